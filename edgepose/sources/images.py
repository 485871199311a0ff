"""Image files, and folders of them."""

import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import PIL.Image
import PIL.ImageOps

from edgepose.datatypes import Frame, Image
from edgepose.errors import SourceError, SourceNotFoundError
from edgepose.protocols import FrameStream
from edgepose.sources._base import Pacer, check_file
from edgepose.sources._opencv import configure_opencv

log = logging.getLogger(__name__)

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
MAX_BYTES: Final = 256_000_000
DEFAULT_FPS: Final = 1.0

_FORMATS: Final = ("BMP", "JPEG", "PNG", "WEBP")
_KINDS: Final = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))


def is_image(path: Path) -> bool:
    """Return whether a file has a suffix that `read_image` supports."""
    return path.suffix.lower() in SUFFIXES


def list_images(folder: Path) -> list[Path]:
    """Return a folder's images in natural order (`2.jpg` before `10.jpg`), without hidden ones.

    Raises SourceNotFoundError if there is none, and SourceError if the folder cannot be read.
    """
    try:
        found = [
            path
            for path in folder.iterdir()
            if is_image(path) and not path.name.startswith(".") and path.is_file()
        ]
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"{folder}: no such folder") from error
    except OSError as error:
        raise SourceError(f"{folder}: cannot list the folder: {error.strerror}") from error
    if not found:
        raise SourceNotFoundError(f"{folder}: expected images ({_KINDS}), the folder has none")
    return sorted(found, key=_natural)


def read_image(path: Path) -> Image:
    """Read an image as uint8 (height, width, 3) RGB, with its EXIF orientation applied.

    Transparency is ignored. Raises SourceNotFoundError or SourceError with the reason.
    """
    if check_file(path, "an image") > MAX_BYTES:
        raise SourceError(
            f"{path}: the file is too large for an image, expected at most "
            f"{MAX_BYTES // 1_000_000} MB"
        )
    try:
        with warnings.catch_warnings():
            # Pillow warns of damaged metadata, which does not matter here, and of images of more
            # than 89 megapixels, whose decoding would take the memory of a whole Pi.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path, formats=_FORMATS) as image:
                return _to_rgb(PIL.ImageOps.exif_transpose(image))
    except PIL.UnidentifiedImageError as error:
        raise SourceError(
            f"{path}: expected an image ({_KINDS}), the file is another kind or damaged"
        ) from error
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise SourceError(
            f"{path}: the image is too large, expected at most "
            f"{(PIL.Image.MAX_IMAGE_PIXELS or 0) // 1_000_000} megapixels"
        ) from error
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        raise SourceError(
            f"{path}: the image is damaged or cut short ({error}); copy or download the file again"
        ) from error


@dataclass
class ImageSource:
    """Plays image files one after another, `fps` of them per second of media time.

    `realtime` paces them by the clock; `loop` starts again after the last one. One of several that
    cannot be read is logged once and skipped.
    """

    paths: Sequence[Path]
    fps: float = DEFAULT_FPS
    realtime: bool = False
    loop: bool = False
    live = False

    def __post_init__(self) -> None:
        first, *others = self.paths
        self.description = f"{len(self.paths)} images in {first.parent}" if others else str(first)

    def frames(self) -> FrameStream:
        """Yield the images; raises SourceError if the only one, or every one, is unreadable."""
        configure_opencv()
        interval_ns = round(1e9 / self.fps)
        pacer = Pacer()
        sequence = 0
        unreadable: set[Path] = set()
        while True:
            for path in self.paths:
                try:
                    image = read_image(path)
                except SourceError as error:
                    if len(self.paths) == 1:
                        raise
                    if path not in unreadable:
                        log.warning("%s; skipping it", error)
                    unreadable.add(path)
                    if unreadable.issuperset(self.paths):
                        raise SourceError(
                            f"{self.description}: none of them can be read; the last: {error}"
                        ) from error
                    continue
                elapsed_ns = sequence * interval_ns
                if self.realtime:
                    pacer.wait_for(elapsed_ns)
                yield Frame(image, pacer.start_ns + elapsed_ns, sequence, path=str(path))
                sequence += 1
            if not self.loop:
                return


def _to_rgb(image: PIL.Image.Image) -> Image:
    if image.mode.startswith("I"):
        # 16-bit grey, which Pillow would clip at 255 instead of scaling it.
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., np.newaxis], 3, axis=2)
    return np.array(image.convert("RGB"))


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"([0-9]+)", path.name.lower())
    numbered = [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
    # The name itself decides between 1.jpg and 01.jpg, which a folder lists in any order.
    return numbered, path.name
