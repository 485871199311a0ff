"""From a frame and a crop region to the tensor a model takes."""

from dataclasses import replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import CropRegion, Frame, Image, InputSpec, TensorToFrame

WORTH_HALVING_PX: Final = 384
"""Twice the input of the smallest model; less than this is never cut from the half."""


def halved(image: Image) -> Image:
    """Return an image (height, width, 3) at half its size, each pixel the mean of four.

    An odd last row or column counts for its share.
    """
    height, width = image.shape[:2]
    size = (max(1, width // 2), max(1, height // 2))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def with_half(frame: Frame) -> Frame:
    """Return a frame with its half, where it is so large that it may be cut from that."""
    if frame.half is not None or max(frame.size_wh) < WORTH_HALVING_PX:
        return frame
    return replace(frame, half=halved(frame.image))


def preprocess(
    frame: Frame, region: CropRegion, spec: InputSpec
) -> tuple[NDArray[np.generic], TensorToFrame]:
    """Scale a region of the frame to the model's input; what lies outside the frame is black.

    Returns the tensor, `spec.dtype` (1, height, width, 3), and the exact map back to frame px. The
    cut is made at whole pixels on both sides, so that scaling is one `cv2.resize` (a third of the
    time of an affine warp with a border); the map is that of the pixels really cut. A region of
    twice the input's size or more is cut from the halved image: with 2 x 2 neighbours, bilinear
    scaling would skip pixels there, and `frame.half` is four times less to read.
    """
    tensor_width, tensor_height = spec.size_wh
    image, by_x, by_y = frame.image, 1.0, 1.0
    if region.x_max - region.x_min >= 2 * tensor_width:
        image = halved(frame.image) if frame.half is None else frame.half
        by_x = frame.image.shape[1] / image.shape[1]
        by_y = frame.image.shape[0] / image.shape[0]
    height, width = image.shape[:2]
    x_from, x_to, column, column_end, scale_x = _fit(
        region.x_min / by_x, region.x_max / by_x, width, tensor_width
    )
    y_from, y_to, row, row_end, scale_y = _fit(
        region.y_min / by_y, region.y_max / by_y, height, tensor_height
    )
    cut = image[y_from:y_to, x_from:x_to]
    size = (column_end - column, row_end - row)
    make = np.empty if size == spec.size_wh else np.zeros
    pixels = make((1, tensor_height, tensor_width, 3), np.uint8)
    cv2.resize(
        cut, size, dst=pixels[0, row:row_end, column:column_end], interpolation=cv2.INTER_LINEAR
    )
    to_frame = TensorToFrame(
        (scale_x * by_x, scale_y * by_y),
        ((x_from - column * scale_x) * by_x, (y_from - row * scale_y) * by_y),
    )
    return _as_dtype(pixels, spec), to_frame


def _fit(
    region_min: float, region_max: float, frame_extent: int, tensor_extent: int
) -> tuple[int, int, int, int, float]:
    """Fit one axis: first and last frame px, first and last tensor px, frame px per tensor px."""
    per_px = (region_max - region_min) / tensor_extent
    start = min(max(round(region_min), 0), frame_extent - 1)
    end = max(min(round(region_max), frame_extent), start + 1)
    tensor_start = min(max(round((start - region_min) / per_px), 0), tensor_extent - 1)
    tensor_end = max(min(round((end - region_min) / per_px), tensor_extent), tensor_start + 1)
    return start, end, tensor_start, tensor_end, (end - start) / (tensor_end - tensor_start)


def _as_dtype(pixels: Image, spec: InputSpec) -> NDArray[np.generic]:
    if spec.pixel_scale == 1.0 and spec.pixel_offset == 0.0:
        return pixels if spec.dtype == np.uint8 else pixels.astype(spec.dtype)
    real = pixels.astype(np.float32)
    real *= np.float32(spec.pixel_scale)
    real += np.float32(spec.pixel_offset)
    if spec.dtype.kind in "iu":
        limits = np.iinfo(spec.dtype.name)
        return np.clip(np.rint(real), limits.min, limits.max).astype(spec.dtype)
    return real.astype(spec.dtype, copy=False)
