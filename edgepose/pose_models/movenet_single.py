"""MoveNet Lightning and Thunder: one pose a frame."""

import math
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Final

import numpy as np

from edgepose.datatypes import BOX_SCORE, InputSpec, Poses, TensorSpec, TensorToFrame
from edgepose.errors import ModelShapeError
from edgepose.pose_models._tensors import dequantize, input_size_wh
from edgepose.protocols import Tensor
from edgepose.skeleton import KEYPOINT_COUNT

OUTPUT_SHAPE: Final = (1, 1, KEYPOINT_COUNT, 3)
"""One pose of 17 (y, x, score), y and x 0..1 of the input square."""

LIGHTNING_POSE_THRESHOLD: Final = 0.30
THUNDER_POSE_THRESHOLD: Final = 0.28
"""The scores from which a pose is reported; docs/models.md has the measurements."""
THUNDER_SIDE: Final = 256


def default_pose_threshold(input_tensor: TensorSpec) -> float:
    """Return the threshold of a model with this input, by its height in px."""
    is_thunder = input_tensor.shape[1] >= THUNDER_SIDE
    return THUNDER_POSE_THRESHOLD if is_thunder else LIGHTNING_POSE_THRESHOLD


class MovenetSingle:
    """Decodes MoveNet single pose; without `crop`, every frame is detected as a whole.

    Raises ModelShapeError if the input is not a square image.
    """

    def __init__(
        self,
        input_tensor: TensorSpec,
        output_tensors: tuple[TensorSpec, ...],
        *,
        name: str,
        crop: bool = True,
    ) -> None:
        width, height = input_size_wh(input_tensor, name=name)
        if width != height:
            raise ModelShapeError(
                f"{name}: input is {width}x{height}, expected the square of a single-pose MoveNet; "
                "choose such a model.input_size"
            )
        self.input_spec = InputSpec((width, height), input_tensor.dtype)
        self._output = output_tensors[0]
        self.crops = crop

    def decode(self, outputs: Sequence[Tensor], to_frame: TensorToFrame) -> Poses:
        """Return the one pose, in frame px; its score is the root mean square of its 17 scores.

        MoveNet places 17 keypoints in any image. All scores together distinguish a body from a
        false positive better than the high ones alone; their root mean square counts a body of
        which half is outside the frame for more than their mean does. docs/models.md compares them.
        """
        # In plain floats: arrays of 17 numbers take three times as long (11 us on x86-64).
        values = dequantize(outputs[0], self._output).ravel().tolist()
        xs: Iterable[float] = values[1::3]
        ys: Iterable[float] = values[0::3]
        scores: list[float] = values[2::3]
        if to_frame.turns:
            xs, ys = zip(*map(to_frame.turned_back, xs, ys), strict=True)
        side = self.input_spec.size_wh[0]
        (scale_x, scale_y), (offset_x, offset_y) = to_frame.scale_xy, to_frame.offset_xy
        scale_x, scale_y = scale_x * side, scale_y * side
        points = [0.0] * (2 * KEYPOINT_COUNT)
        points[0::2] = xs = [x * scale_x + offset_x for x in xs]
        points[1::2] = ys = [y * scale_y + offset_y for y in ys]
        visible = [score >= BOX_SCORE for score in scores]
        if any(visible):
            xs, ys = compress(xs, visible), compress(ys, visible)
        # Sorting takes less time than `min` and `max`.
        xs, ys = sorted(xs), sorted(ys)
        score = math.hypot(*scores) / math.sqrt(KEYPOINT_COUNT)
        # One array of a flat list: four of nested ones take three times as long.
        numbers = np.array([*points, *scores, xs[0], ys[0], xs[-1], ys[-1], score], np.float32)
        count = KEYPOINT_COUNT
        return Poses(
            numbers[: 2 * count].reshape(1, count, 2),
            numbers[2 * count : 3 * count].reshape(1, count),
            numbers[-1:],
            numbers[3 * count : -1].reshape(1, 4),
        )
