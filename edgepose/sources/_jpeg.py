"""JPEG pictures, decoded only as far as somebody looks at them."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import Image
from edgepose.errors import FrameError
from edgepose.sources._opencv import to_rgb

# OpenCV gives RGB itself from 4.11 on.
_RGB: Final[int] = getattr(cv2, "IMREAD_COLOR_RGB", 0)
# A camera's sense of which way is up is for whoever configures its rotation.
_WHOLE: Final = (_RGB or cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
_HALF: Final = (
    _RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2 if _RGB else cv2.IMREAD_REDUCED_COLOR_2
) | cv2.IMREAD_IGNORE_ORIENTATION

_START: Final = b"\xff\xd8"
_NO_LENGTH: Final = frozenset((0x01, *range(0xD0, 0xD9)))
_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN: Final = 0xDA


class Jpeg:
    """One JPEG picture; see `datatypes.Picture`.

    `data` is uint8, of any shape; `name` says in errors where it comes from. Raises FrameError for
    what has no JPEG header.
    """

    def __init__(self, data: NDArray[np.uint8], *, name: str) -> None:
        self._data = data.ravel()
        self._name = name
        self._whole: Image | None = None
        self._half: Image | None = None
        self.size_wh = self._size_wh()

    def whole(self) -> Image:
        """Return all of its pixels; raises FrameError where they cannot be decoded."""
        if self._whole is None:
            self._whole = self._decoded(_WHOLE, self.size_wh)
        return self._whole

    def half(self) -> Image:
        """Return it at half its size, which takes half the time; raises FrameError likewise."""
        if self._half is None:
            width, height = self.size_wh
            self._half = self._decoded(_HALF, ((width + 1) // 2, (height + 1) // 2))
        return self._half

    def _decoded(self, flags: int, size_wh: tuple[int, int]) -> Image:
        try:
            image = cv2.imdecode(self._data, flags)
        except cv2.error as error:
            raise self._damaged("cannot be decoded") from error
        # Typed as always there, but None is what a damaged picture gives.
        if image is None or image.shape[:2] != size_wh[::-1]:
            raise self._damaged("cannot be decoded")
        pixels = image.astype(np.uint8, copy=False)
        if not _RGB:
            pixels = to_rgb(pixels)
        pixels.flags.writeable = False
        return pixels

    def _size_wh(self) -> tuple[int, int]:
        """Read width and height from the frame header (ITU-T T.81, annex B)."""
        # Tables and comments come before it, hardly ever this many.
        header = self._data[:65536].tobytes()
        at = len(_START)
        if not header.startswith(_START):
            raise self._damaged("does not begin as a JPEG picture does")
        while at + 9 <= len(header) and header[at] == 0xFF:
            marker = header[at + 1]
            if marker in _FRAME_HEADERS:
                height = int.from_bytes(header[at + 5 : at + 7], "big")
                width = int.from_bytes(header[at + 7 : at + 9], "big")
                if width and height:
                    return width, height
                break
            if marker == _START_OF_SCAN:
                break
            if marker == 0xFF:
                at += 1
            elif marker in _NO_LENGTH:
                at += 2
            else:
                at += 2 + int.from_bytes(header[at + 2 : at + 4], "big")
        raise self._damaged("has no frame header")

    def _damaged(self, how: str) -> FrameError:
        return FrameError(f"{self._name}: a JPEG picture of {self._data.size} bytes {how}")
