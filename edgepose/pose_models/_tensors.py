"""What the pose models share: reading raw tensors, and laying a frame into the input."""

from collections.abc import Iterable
from typing import Final

import numpy as np

from edgepose.datatypes import CropRegion, Floats, TensorSpec
from edgepose.errors import ModelShapeError
from edgepose.protocols import Tensor

BOX_SCORE: Final = 0.2
"""Keypoints from this score on bound a body; weaker ones are guesses that would inflate it."""


def dequantize(stored: Tensor, spec: TensorSpec) -> Floats:
    """Return the real values of a tensor as float32, which it may be already."""
    real: Floats = stored.astype(np.float32, copy=False)
    if spec.scale:
        real = (real - np.float32(spec.zero_point)) * np.float32(spec.scale)
    return real


def shapes_text(specs: Iterable[TensorSpec]) -> str:
    """Return the shapes of tensors for an error's sentence."""
    return ", ".join(str(spec.shape) for spec in specs) or "none"


def input_size_wh(tensor: TensorSpec, *, name: str, expected: str) -> tuple[int, int]:
    """Return the width and height of an image input, -1 where the file leaves them open.

    Raises ModelShapeError, calling the file `name` and the model `expected`.
    """
    shape = tensor.shape
    if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or 0 in shape:
        raise ModelShapeError(
            f"{name}: input is {shape}, expected (1, height, width, 3) of {expected}; "
            "this file is another kind of network, choose one from `edgepose models list`"
        )
    return shape[2], shape[1]


def padded_region(
    frame_size_wh: tuple[int, int], tensor_size_wh: tuple[int, int], *, centred: bool
) -> CropRegion:
    """Return the smallest region of the tensor's shape that holds the whole frame, in frame px.

    `centred` pads on both sides; otherwise the frame keeps the upper left corner.
    """
    (width, height), (tensor_width, tensor_height) = frame_size_wh, tensor_size_wh
    per_px = max(width / tensor_width, height / tensor_height)
    region_width, region_height = tensor_width * per_px, tensor_height * per_px
    left = (region_width - width) / 2 if centred else 0.0
    top = (region_height - height) / 2 if centred else 0.0
    return CropRegion(-left, -top, region_width - left, region_height - top)


def bounding_boxes(keypoints: Floats, keypoint_scores: Floats) -> Floats:
    """Return the boxes (n, 4) x_min, y_min, x_max, y_max around the visible keypoints of n poses.

    `keypoints` are (n, 17, 2), `keypoint_scores` (n, 17). Where none is visible all count.
    """
    counts = keypoint_scores >= BOX_SCORE
    counts |= ~counts.any(axis=1, keepdims=True)
    counts = counts[:, :, np.newaxis]
    low = np.where(counts, keypoints, np.inf).min(axis=1)
    high = np.where(counts, keypoints, -np.inf).max(axis=1)
    boxes: Floats = np.concatenate((low, high), axis=1).astype(np.float32, copy=False)
    return boxes
