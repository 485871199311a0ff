"""Image files, and folders of them."""

import io
import logging
import math
import os
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

from edgepose.datatypes import Frame, Image
from edgepose.errors import SourceError, SourceNotFoundError
from edgepose.protocols import FrameStream
from edgepose.sources._base import Pacer, check_file
from edgepose.sources._opencv import configure_opencv

log = logging.getLogger(__name__)

MAX_BYTES: Final = 256_000_000
DEFAULT_FPS: Final = 1.0
DEFAULT_DURATION_MS: Final = 100
"""How long browsers show a frame of an animation that has no duration."""

# Pillow imports the plugins for the last three, and all others, only if no other one fits.
_FORMATS: Final = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "ICO")
_ANIMATED: Final = frozenset({"GIF", "PNG", "WEBP"})
_KINDS: Final = "JPEG, PNG, WebP, GIF, TIFF or BMP"
_SUFFIXES: Final = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
_SIGNATURE: Final = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8|BM.{4}\0{4}|P[1-6]\s|RIFF.{4}WEBP|II[*+]\0|MM\0[*+]|\0\0\x01\0",
    re.DOTALL,
)
_UNSUPPORTED: Final[Mapping[str, re.Pattern[bytes]]] = {
    "AVIF": re.compile(rb".{4}ftyp(avi[fs]|.{4,40}avif)", re.DOTALL),
    "HEIC": re.compile(rb".{4}ftyp(he[iv][cmsx]|mif1|msf1)", re.DOTALL),
    "JPEG XL": re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "),
    "JPEG 2000": re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  "),
}


def find_images(path: Path) -> list[Path]:
    """Return the images of a folder, or the path itself if it is an image; empty for a video.

    Raises SourceError as `list_images` does, and if the path is not a file that can be read.
    """
    # Path.is_dir raises if a folder on the way cannot be entered.
    if os.path.isdir(path):  # noqa: PTH112
        return list_images(path)
    check_file(path, "an image or a video")
    return [path] if is_image(path) else []


def is_image(path: Path) -> bool:
    """Return whether a file begins as an image does, whatever its name is."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
            if start.startswith(b"\xff\xd8\xff"):
                # Three and more, one after the other, are a video in Motion JPEG; two are mostly a
                # photograph and its preview, and an index (MPF) lists versions of a photograph.
                start += file.read(16_000_000)
                return start.count(b"\xff\xd9\xff\xd8\xff") < 2 or b"MPF\0" in start
    except OSError:
        return False
    return any(kind.match(start) for kind in (_SIGNATURE, *_UNSUPPORTED.values()))


def list_images(folder: Path) -> list[Path]:
    """Return a folder's images in natural order (`2.jpg` before `10.jpg`), without hidden ones.

    A file with the name of an image counts as one, so that a damaged one is reported. What else
    the folder contains is logged. Raises SourceNotFoundError if there is no image, and SourceError
    if the folder cannot be read.
    """
    found: list[Path] = []
    others: list[Path] = []
    try:
        for path in folder.iterdir():
            if not path.name.startswith("."):
                chosen = path.is_file() and (path.suffix.lower() in _SUFFIXES or is_image(path))
                (found if chosen else others).append(path)
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"{folder}: no such folder") from error
    except OSError as error:
        raise SourceError(f"{folder}: cannot list the folder: {error.strerror}") from error
    names = [path.name for path in sorted(others, key=_natural)]
    skipped = f"{len(names)} ({', '.join(names[:5])}{', ...' * (len(names) > 5)})"
    if not found:
        rest = f"; other files: {skipped}" if names else ""
        raise SourceNotFoundError(
            f"{folder}: expected images ({_KINDS}), the folder has none{rest}"
        )
    if names:
        _log_skipped(folder, skipped)
    return sorted(found, key=_natural)


@lru_cache
def _log_skipped(folder: Path, skipped: str) -> None:
    """Log what a folder has besides images; once, though a source may be opened again and again."""
    log.warning("%s: skipping files that are not images: %s", folder, skipped)


def read_image(path: Path) -> Image:
    """Read an image, or the first frame of an animation; see `read_frames`."""
    return next(read_frames(path))[0]


def read_frames(path: Path) -> Iterator[tuple[Image, int | None]]:
    """Yield the frames of an image file, each with its duration in ns; None for a still image.

    Frames are uint8 (height, width, 3) RGB with the EXIF orientation applied. Transparency is
    ignored. Raises SourceNotFoundError or SourceError with the reason.
    """
    if check_file(path, "an image") > MAX_BYTES:
        raise SourceError(
            f"{path}: the file is too large for an image, expected at most "
            f"{MAX_BYTES // 1_000_000} MB"
        )
    try:
        yield from _frames(path)
    except PIL.UnidentifiedImageError as error:
        raise SourceError(f"{path}: expected an image ({_KINDS}), {_kind_of(path)}") from error
    except PIL.Image.DecompressionBombError as error:
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

    The frames of an animation have durations of their own. `realtime` paces them by the clock;
    `loop` starts again after the last one. One of several files that cannot be read is logged once
    and skipped.
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
        sequence = elapsed_ns = 0
        unreadable: set[Path] = set()
        unlogged: list[SourceError] = []
        while True:
            for path in self.paths:
                try:
                    for image, duration_ns in read_frames(path):
                        if self.realtime:
                            pacer.wait_for(elapsed_ns)
                        time_ns, still = pacer.start_ns + elapsed_ns, duration_ns is None
                        yield Frame(image, time_ns, sequence, path=str(path), still=still)
                        # The consumer alone holds the frame while the next one is decoded.
                        del image
                        sequence += 1
                        elapsed_ns += duration_ns or interval_ns
                except SourceError as error:
                    if len(self.paths) == 1:
                        raise
                    if path not in unreadable:
                        unlogged.append(error)
                    unreadable.add(path)
                    if unreadable.issuperset(self.paths):
                        raise SourceError(
                            f"{self.description}: none of them can be read; the last: {error}"
                        ) from error
                # Not before a first frame: a source without one is opened again and again.
                while sequence and unlogged:
                    log.warning("%s; skipping it", unlogged.pop(0))
            if not self.loop:
                return


def _frames(path: Path) -> Iterator[tuple[Image, int | None]]:
    with _open(path) as image:
        pages = getattr(image, "is_animated", False)
        animated = pages and image.format in _ANIMATED
        if pages and image.format == "TIFF":
            log.warning("%s: only the first of several pages is used", path)
        for number in count():
            # The consumer alone holds the frame. Its duration is known once it is decoded.
            yield _to_rgb(image, path), _duration_ns(image) if animated else None
            if not animated:
                return
            try:
                image.seek(number + 1)
            except EOFError:
                return


def _open(path: Path) -> PIL.Image.Image:
    """Open an image without decoding it."""
    # Pillow warns of damaged metadata, and of sizes that `_to_rgb` rejects.
    with warnings.catch_warnings(action="ignore"):
        try:
            return PIL.Image.open(path, formats=_FORMATS)
        except (PIL.UnidentifiedImageError, ValueError):
            data = _without_damaged_metadata(path)
            return PIL.Image.open(io.BytesIO(data), formats=["PNG"])


def _to_rgb(image: PIL.Image.Image, path: Path) -> Image:
    """Decode the present frame of an image, upright."""
    tags = getattr(image, "tag_v2", {})
    tile = (tags.get(PIL.ExifTags.Base.TileWidth, 0), tags.get(PIL.ExifTags.Base.TileLength, 0))
    # Before decoding, which would take the memory of a whole Pi.
    if max(math.prod(image.size), math.prod(tile)) > (PIL.Image.MAX_IMAGE_PIXELS or 0):
        raise PIL.Image.DecompressionBombError
    with warnings.catch_warnings(action="ignore"):
        try:
            image.load()
        except OSError:
            if image.format != "JPEG":
                raise
            image = _without_end_marker(path)
        if image.format != "TIFF":
            # Pillow applies the orientation of a TIFF file when it decodes it.
            image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # 16-bit grey, which Pillow would clip at 255 instead of scaling it.
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., np.newaxis], 3, axis=2)
    return np.array(image.convert("RGB"))


def _duration_ns(image: PIL.Image.Image) -> int:
    return round((image.info.get("duration") or DEFAULT_DURATION_MS) * 1e6)


def _without_damaged_metadata(path: Path) -> bytes:
    """Return a PNG file without the optional chunks that Pillow may reject; empty for other files.

    These are damaged ones, and compressed ones, such as a text, which may be huge.
    """
    with path.open("rb") as file:
        if file.read(4) != b"\x89PNG":
            return b""
        data = file.read()
    kept, at = [b"\x89PNG" + data[:4]], 4
    while at < len(data):
        size = 12 + int.from_bytes(data[at : at + 4], "big")
        chunk = data[at : at + size]
        is_whole = zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]
        is_compressed = chunk[4:8] in (b"zTXt", b"iTXt", b"iCCP")
        # Lower case means optional.
        if chunk[4:5].isupper() or (is_whole and not is_compressed):
            kept.append(chunk)
        at += size
    return b"".join(kept)


def _without_end_marker(path: Path) -> PIL.Image.Image:
    """Decode a JPEG file that lacks its end marker only; raises OSError if more is missing.

    Bytes after the last pixel do not change a whole image. In one that is cut short they take the
    place of what is missing, and different bytes result in different pixels.
    """
    data = path.read_bytes().rstrip(b"\xff")
    images = []
    for filler in (b"\x35\xca\x91", b"\xca\x35\x0e"):
        image = PIL.Image.open(io.BytesIO(data + 20 * filler), formats=["JPEG"])
        if "progressive" in image.info:
            # All of such a file is read before the first pixel.
            image = PIL.Image.open(io.BytesIO(data + 20 * filler + b"\xff\xd9"), formats=["JPEG"])
        image.load()
        images.append(image)
    if images[0] != images[1]:
        raise OSError("the end is missing")
    return images[0]


def _kind_of(path: Path) -> str:
    """Return what a file is that Pillow cannot read, for an error."""
    with path.open("rb") as file:
        start = file.read(64)
    for name, signature in _UNSUPPORTED.items():
        if signature.match(start):
            return f"this is an image in the format {name}; convert it to JPEG or PNG"
    return "the file is another kind or damaged"


def _natural(path: Path) -> tuple[str, str]:
    # Plain texts, in which a number follows its length: sorting holds the GIL, and lists of
    # numbers stop the daemon for 0.34 s in a folder of 100,000 images, these for 0.18 s (x86-64).
    key = re.sub("[0-9]+", _with_length, path.name.lower())
    # The name itself decides between 1.jpg and 01.jpg, which a folder lists in any order.
    return key, path.name


def _with_length(number: re.Match[str]) -> str:
    digits = number[0].lstrip("0")
    return chr(len(digits)) + digits
