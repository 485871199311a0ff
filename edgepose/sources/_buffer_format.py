"""Camera buffers to RGB images: padded rows, pixel orders, YUV planes and their colour spaces."""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import Image

# Bytes a pixel and OpenCV's conversion, none for RGB itself. libcamera's names give the order in a
# 32-bit word; in memory it is reversed.
_PACKED: Final[dict[str, tuple[int, int | None]]] = {
    "BGR888": (3, None),
    "RGB888": (3, cv2.COLOR_BGR2RGB),
    "XBGR8888": (4, cv2.COLOR_RGBA2RGB),
    "XRGB8888": (4, cv2.COLOR_BGRA2RGB),
}
FORMATS: Final = (*_PACKED, "YUV420", "NV12")
"""Names of the supported formats, as libcamera spells them."""

# The weights of red and blue in luma (ITU-R BT.601, BT.709, BT.2020).
_LUMA_WEIGHTS: Final = {
    "Rec601": (0.299, 0.114),
    "Rec709": (0.2126, 0.0722),
    "Rec2020": (0.2627, 0.0593),
}


class BufferFormat:
    """The layout of a camera's image buffers.

    `name` is one of FORMATS; `stride` is the bytes of a row of pixels, or of luma, with padding;
    `colour_space` is a libcamera.ColorSpace or None.
    """

    def __init__(
        self, name: str, size_wh: tuple[int, int], stride: int, colour_space: object
    ) -> None:
        self._name = name
        self._width, self._height = size_wh
        self._stride = stride
        self._matrix = _yuv_matrix(colour_space)

    def to_rgb(self, buffer: NDArray[np.uint8]) -> Image:
        """Return a buffer's image, uint8 (height, width, 3) RGB."""
        width, height, stride = self._width, self._height, self._stride
        rows = buffer[: height * stride].reshape(height, stride)
        if self._name in _PACKED:
            depth, code = _PACKED[self._name]
            pixels = rows[:, : width * depth].reshape(height, width, depth)
            # The buffer is a copy of the camera's already; without padding it needs no other.
            rgb = np.ascontiguousarray(pixels) if code is None else cv2.cvtColor(pixels, code)
            return rgb.astype(np.uint8, copy=False)
        # Rows of luma, then half as many rows' worth of chroma, all padded.
        luma = np.ascontiguousarray(rows[:, :width])
        chroma = buffer[height * stride : height * stride * 3 // 2]
        if self._name == "NV12":
            pairs = chroma.reshape(height // 2, stride)[:, :width]
            pairs = np.ascontiguousarray(pairs.reshape(height // 2, width // 2, 2))
        else:
            # With padded planes `merge` takes seven times as long.
            planes = np.ascontiguousarray(
                chroma.reshape(2, height // 2, stride // 2)[:, :, : width // 2]
            )
            pairs = cv2.merge((planes[0], planes[1])).astype(np.uint8, copy=False)
        if self._matrix is None:
            rgb = cv2.cvtColorTwoPlane(luma, pairs, cv2.COLOR_YUV2RGB_NV12)
        else:
            wide = cv2.resize(pairs, (width, height), interpolation=cv2.INTER_NEAREST)
            rgb = cv2.transform(cv2.merge((luma, wide)), self._matrix)
        return rgb.astype(np.uint8, copy=False)


def _yuv_matrix(colour_space: Any) -> NDArray[np.float32] | None:
    """Return the matrix (3, 4) from Y, Cb, Cr, 1 to R, G, B, all 0..255, of a colour space.

    None is OpenCV's own conversion, BT.601 in limited range, which is also taken for a colour space
    without an encoding.
    """
    encoding = getattr(getattr(colour_space, "ycbcrEncoding", None), "name", "")
    full = getattr(getattr(colour_space, "range", None), "name", "") == "Full"
    if encoding not in _LUMA_WEIGHTS or (encoding == "Rec601" and not full):
        return None
    red, blue = _LUMA_WEIGHTS[encoding]
    green = 1.0 - red - blue
    of_luma, of_cb, of_cr = np.array(
        [
            [1.0, 1.0, 1.0],
            [0.0, -2 * blue * (1 - blue) / green, 2 * (1 - blue)],
            [2 * (1 - red), -2 * red * (1 - red) / green, 0.0],
        ]
    )
    black = 0.0
    if not full:
        black = 16.0
        of_luma, of_cb, of_cr = of_luma * 255 / 219, of_cb * 255 / 224, of_cr * 255 / 224
    constant = -black * of_luma - 128.0 * (of_cb + of_cr)
    matrix: NDArray[np.float32] = np.stack((of_luma, of_cb, of_cr, constant), 1).astype(np.float32)
    return matrix
