"""Still pictures, and folders of them."""

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from edgepose.clock import boottime_ns
from edgepose.datatypes import Frame, Image
from edgepose.errors import SourceError, SourceNotFoundError
from edgepose.sources._base import OpenableSource

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
MAX_PIXELS: Final = 100_000_000
"""A larger picture is refused: decoding it would take the memory of a whole Pi."""
DEFAULT_FPS: Final = 1.0


def list_images(folder: Path) -> list[Path]:
    """Return a folder's pictures in natural order (`2.jpg` before `10.jpg`).

    Raises SourceNotFoundError where there is none, and SourceError where it cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    except OSError as error:
        raise SourceError(f"{folder}: cannot list the folder: {error.strerror}") from error
    if not found:
        raise SourceNotFoundError(
            f"{folder}: expected pictures ({', '.join(sorted(SUFFIXES))}), the folder has none"
        )
    return sorted(found, key=_natural)


def read_image(path: Path) -> Image:
    """Read a picture as uint8 (height, width, 3) RGB, upright as its EXIF data says.

    Raises SourceNotFoundError or SourceError with what is wrong.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"{path}: no such file") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot read the file: {error.strerror}") from error
    if not data:
        raise SourceError(f"{path}: expected a picture, the file is empty")
    try:
        # Grey, alpha and 16-bit pictures all become 8-bit colour.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise SourceError(f"{path}: the picture cannot be decoded ({error.err})") from error
    if image is None:
        raise SourceError(f"{path}: expected a picture, the file is none or is damaged")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise SourceError(
            f"{path}: {image.shape[1]}x{image.shape[0]} is too large a picture, expected at most "
            f"{MAX_PIXELS // 1_000_000} megapixels"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


class ImageSource(OpenableSource):
    """Plays pictures one after another, `fps` of them a second of media time.

    `realtime` paces them by the clock; `loop` starts again after the last one.
    """

    live = False

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        fps: float = DEFAULT_FPS,
        realtime: bool = False,
        loop: bool = False,
    ) -> None:
        self._paths = tuple(paths)
        self._interval_ns = round(1e9 / fps)
        self._realtime = realtime
        self._loop = loop
        self.description = (
            str(paths[0]) if len(paths) == 1 else f"{len(paths)} pictures in {paths[0].parent}"
        )

    def frames(self) -> Iterator[Frame]:
        """Yield the pictures; raises SourceError at one that cannot be read."""
        start_ns = boottime_ns()
        sequence = 0
        while True:
            for path in self._paths:
                timestamp_ns = start_ns + sequence * self._interval_ns
                image = read_image(path)
                if self._realtime:
                    time.sleep(max(0, timestamp_ns - boottime_ns()) / 1e9)
                yield Frame(image, timestamp_ns, sequence, path=str(path))
                sequence += 1
            if not self._loop:
                return


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
