"""Still pictures, and folders of them."""

import logging
import re
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from edgepose.clock import boottime_ns
from edgepose.datatypes import Frame, Image
from edgepose.errors import SourceError, SourceNotFoundError
from edgepose.sources._opencv import to_rgb
from edgepose.util.resource import Resource

log = logging.getLogger(__name__)

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
MAX_PIXELS: Final = 100_000_000
"""A larger picture is refused: decoding it would take the memory of a whole Pi."""
MAX_BYTES: Final = 256_000_000
DEFAULT_FPS: Final = 1.0

_KINDS: Final = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))


def is_image(path: Path) -> bool:
    """Whether a file's name is that of a picture that `read_image` takes."""
    return path.suffix.lower() in SUFFIXES


def list_images(folder: Path) -> list[Path]:
    """Return a folder's pictures in natural order (`2.jpg` before `10.jpg`), hidden ones left out.

    Raises SourceNotFoundError where there is none, and SourceError where it cannot be read.
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
        raise SourceNotFoundError(f"{folder}: expected pictures ({_KINDS}), the folder has none")
    return sorted(found, key=_natural)


def read_image(path: Path) -> Image:
    """Read a picture as uint8 (height, width, 3) RGB, upright as its EXIF data says.

    Transparency is ignored. Raises SourceNotFoundError or SourceError with what is wrong.
    """
    data = _read_bytes(path)
    declared = _declared(data)
    if declared is None:
        raise SourceError(f"{path}: expected a picture ({_KINDS}), the file is none or is damaged")
    width, height, complete = declared
    if width * height > MAX_PIXELS:
        raise SourceError(
            f"{path}: {width}x{height} is too large a picture, expected at most "
            f"{MAX_PIXELS // 1_000_000} megapixels"
        )
    if not complete:
        # Decoders fill up what is missing with grey, in which somebody may be.
        raise SourceError(f"{path}: the picture is cut short; copy or download the file again")
    try:
        # Grey, alpha and 16-bit pictures all become 8-bit colour.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise SourceError(f"{path}: the picture cannot be decoded ({error.err})") from error
    if image is None:
        raise SourceError(f"{path}: the picture is damaged and cannot be decoded")
    return to_rgb(image.astype(np.uint8, copy=False))


class ImageSource(Resource):
    """Plays pictures one after another, `fps` of them a second of media time.

    `realtime` paces them by the clock; `loop` starts again after the last one. Of several, one that
    cannot be read is named in the log and left out.
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
        if not paths:
            raise ValueError("expected at least one picture, got none")
        self._paths = tuple(paths)
        self._interval_ns = round(1e9 / fps)
        self._realtime = realtime
        self._loop = loop
        self.description = (
            str(paths[0]) if len(paths) == 1 else f"{len(paths)} pictures in {paths[0].parent}"
        )

    def frames(self) -> Iterator[Frame]:
        """Yield the pictures; raises SourceError where the only one, or every one, is unreadable.

        SourceNotFoundError where it is not there.
        """
        start_ns = boottime_ns()
        sequence = 0
        unreadable: set[Path] = set()
        while True:
            for path in self._paths:
                try:
                    image = read_image(path)
                except SourceError as error:
                    if len(self._paths) == 1:
                        raise
                    if path not in unreadable:
                        log.warning("%s; going on without it", error)
                    unreadable.add(path)
                    if unreadable.issuperset(self._paths):
                        raise SourceError(
                            f"{self.description}: none of them can be read; the last: {error}"
                        ) from error
                    continue
                timestamp_ns = start_ns + sequence * self._interval_ns
                if self._realtime:
                    time.sleep(max(0, timestamp_ns - boottime_ns()) / 1e9)
                yield Frame(image, timestamp_ns, sequence, path=str(path))
                sequence += 1
            if not self._loop:
                return


def _read_bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            # Reading a pipe or a device might never end.
            raise SourceError(f"{path}: expected a picture, this is not a file")
        if path.stat().st_size > MAX_BYTES:
            raise SourceError(
                f"{path}: too large a file for a picture, expected at most "
                f"{MAX_BYTES // 1_000_000} MB"
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"{path}: no such file") from error
    except SourceError:
        raise
    except OSError as error:
        raise SourceError(f"{path}: cannot read the file: {error.strerror}") from error
    if not data:
        raise SourceError(f"{path}: expected a picture, the file is empty")
    return data


def _declared(data: bytes) -> tuple[int, int, bool] | None:
    """Return what a picture says of itself: width, height, and whether its end is there.

    None where it is no picture that we know. It is asked before decoding, since a file of a few
    kilobytes may ask for gigabytes.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return _declared_jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _declared_png(data)
        if data.startswith(b"BM"):
            (size,) = struct.unpack_from("<I", data, 2)
            old = struct.unpack_from("<I", data, 14)[0] == 12
            width, height = struct.unpack_from("<HH" if old else "<ii", data, 18)
            return abs(width), abs(height), size <= len(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _declared_webp(data)
    except struct.error:
        # Even the header is cut short.
        return 0, 0, False
    return None


def _declared_png(data: bytes) -> tuple[int, int, bool] | None:
    """Walk over the chunks of the PNG specification and compare their check sums.

    OpenCV 4.11 makes room for a chunk of any length, so that a damaged file of 400 bytes took
    gigabytes and seconds; and libpng writes to stderr what it finds.
    """
    width, height = struct.unpack_from(">II", data, 16)
    position = 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        (told,) = struct.unpack_from(">I", data, end)
        if zlib.crc32(memoryview(data)[position + 4 : end]) != told:
            return None
        if kind == b"IEND":
            return width, height, True
        position = end + 4


def _declared_jpeg(data: bytes) -> tuple[int, int, bool] | None:
    """Walk over the segments of ITU-T T.81 annex B to the frame header and the first scan."""
    width = height = 0
    position = 2
    while 0 <= position < len(data) - 4:
        if data[position] != 0xFF:
            position = data.find(b"\xff", position)
            continue
        marker = data[position + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            position += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, position + 5)
        if marker == 0xDA:
            # Within a scan every ff is escaped, so this can only be the end of the picture; an
            # EXIF thumbnail, which has an end of its own, lies before.
            return width, height, data.find(b"\xff\xd9", position) >= 0
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return width, height, False


def _declared_webp(data: bytes) -> tuple[int, int, bool] | None:
    (size,) = struct.unpack_from("<I", data, 4)
    complete = size + 8 <= len(data)
    chunk = data[12:16]
    if chunk == b"VP8X":
        corner = struct.unpack_from("<6B", data, 24)
        return (
            1 + int.from_bytes(bytes(corner[:3]), "little"),
            1 + int.from_bytes(bytes(corner[3:]), "little"),
            complete,
        )
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), complete
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF, complete
    return None


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"([0-9]+)", path.name.lower())
    numbered = [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
    # The name itself decides between 1.jpg and 01.jpg, which a folder lists in any order.
    return numbered, path.name
