"""Reading raw tensors and mapping them to the frame, for all pose models."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import BOX_SCORE, Floats, TensorSpec, TensorToFrame
from edgepose.errors import ModelShapeError
from edgepose.protocols import Tensor


def dequantize(stored: Tensor, spec: TensorSpec) -> Floats:
    """Return the real values of a tensor as float32, which it may be already."""
    real: Floats = stored.astype(np.float32, copy=False)
    if spec.scale:
        real = (real - np.float32(spec.zero_point)) * np.float32(spec.scale)
    return real


def input_size_wh(tensor: TensorSpec, *, name: str) -> tuple[int, int]:
    """Return the width and height of an image input.

    Raises ModelShapeError, with the file as `name`.
    """
    shape = tensor.shape
    if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or min(shape) < 1:
        raise ModelShapeError(
            f"{name}: input is {shape}, expected (1, height, width, 3) of a pose model; "
            "this file is another kind of network, choose one from `edgepose models list`"
        )
    return shape[2], shape[1]


def to_frame_px(
    points_yx: NDArray[np.floating[Any]], unit_wh: tuple[int, int], to_frame: TensorToFrame
) -> Floats:
    """Return points (..., 2) as (x, y) in frame px; `unit_wh` is the tensor px of one unit."""
    scale = np.multiply(unit_wh, to_frame.scale_xy)
    points: Floats = (points_yx[..., ::-1] * scale + to_frame.offset_xy).astype(np.float32)
    return points


def bounding_boxes(keypoints: Floats, keypoint_scores: Floats) -> Floats:
    """Return the boxes (n, 4) x_min, y_min, x_max, y_max around the visible keypoints of n poses.

    `keypoints` are (n, 17, 2), `keypoint_scores` (n, 17). If none is visible, all count.
    """
    counts = keypoint_scores >= BOX_SCORE
    counts |= ~counts.any(axis=1, keepdims=True)
    counts = counts[:, :, np.newaxis]
    low = np.where(counts, keypoints, np.inf).min(axis=1)
    high = np.where(counts, keypoints, -np.inf).max(axis=1)
    boxes: Floats = np.concatenate((low, high), axis=1).astype(np.float32)
    return boxes
