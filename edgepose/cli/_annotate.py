"""Copies of frames with the poses and zones drawn on them."""

import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import PIL.Image

from edgepose.config.people import ZoneConfig
from edgepose.datatypes import Poses
from edgepose.errors import SourceError
from edgepose.events.place import PLACES, in_frame
from edgepose.imaging.draw import draw_poses, draw_zones
from edgepose.pipeline import FrameResult
from edgepose.util.polygon import Point

_PURPOSES: Final = {"none": "", "falls": " (no falls)", "all": " (excluded)"}


class AnnotatedCopies:
    """Writes one JPEG file for each frame into a folder, and never over an input.

    A copy is named after its input, `1.jpg` for `1.png`. If this name is taken by another copy, or
    by any file in a folder of inputs, it is `1.png.jpg`, then `1.png-2.jpg`. Copies of an earlier
    run are replaced, links are not: behind one may be an input.
    """

    def __init__(
        self,
        folder: Path,
        inputs: Iterable[Path],
        keypoint_threshold: float,
        zones: Iterable[ZoneConfig] = (),
    ) -> None:
        self._folder = folder
        self._keypoint_threshold = keypoint_threshold
        zones = tuple(zones)
        self._zones = {f"{zone.name}{_PURPOSES[zone.exclude]}": zone.polygon for zone in zones}
        self._places = {zone.place for zone in zones}
        self._input_folders = set(_identities(inputs))
        self._written: set[str] = set()
        self._attempt = 0

    def write(self, result: FrameResult, subfolder: str, number: int | None) -> None:
        """Write the copy of a frame, with its number in a video.

        Raises SourceError if it cannot be written.
        """
        folder = self._folder / subfolder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            target = self._target(folder, Path(str(result.frame.path)), number)
            poses, frame = result.tracked.poses, result.frame
            image = draw_poses(frame.image, poses, self._keypoint_threshold)
            image = draw_zones(image, self._zones, self._places_of(poses, frame.size_wh))
            PIL.Image.fromarray(image).save(target, "JPEG", quality=95)
        except OSError as error:
            raise SourceError(
                f"{error.filename or folder}: the annotated image cannot be written: "
                f"{error.strerror or error}"
            ) from error

    def _places_of(self, poses: Poses, size_wh: tuple[int, int]) -> Iterator[Point]:
        """Yield what must be in a zone for each pose to be in it."""
        for keypoints, scores, box in zip(
            poses.keypoints, poses.keypoint_scores, poses.boxes_xyxy, strict=True
        ):
            for place in self._places:
                yield in_frame(PLACES[place](keypoints, scores, box), size_wh)

    def _target(self, folder: Path, path: Path, number: int | None) -> Path:
        if not number:
            self._attempt = 0
        while True:
            # All frames of a video keep the name with which the first of them is not taken.
            names = (path.stem, path.name, f"{path.name}-{self._attempt}")
            suffix = "" if number is None else f"-{number:06d}"
            target = folder / f"{names[min(self._attempt, 2)]}{suffix}.jpg"
            if self._is_free(target):
                # Memory cards and other systems' disks take `A.jpg` and `a.jpg` for one name.
                self._written.add(str(target).casefold())
                return target
            self._attempt += 1

    def _is_free(self, target: Path) -> bool:
        if str(target).casefold() in self._written:
            return False
        try:
            status = target.lstat()
        except FileNotFoundError:
            return True
        is_file = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        return is_file and _identity(target.parent) not in self._input_folders


def _identities(inputs: Iterable[Path]) -> Iterator[tuple[int, int]]:
    """Yield the identity of each folder that inputs are in, by their names or behind links."""
    for path in inputs:
        # A file that cannot be read is reported later.
        with suppress(OSError):
            files = list(path.iterdir()) if path.is_dir() else [path]
            folders = {path if path.is_dir() else path.parent}
            folders |= {file.resolve().parent for file in files if file.is_symlink()}
            yield from (_identity(folder) for folder in folders)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
