"""MoveNet Lightning and Thunder: one pose a frame."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from edgepose.datatypes import InputSpec, Poses, TensorSpec, TensorToFrame
from edgepose.errors import ModelShapeError
from edgepose.pose_models._tensors import BOX_SCORE, dequantize, input_size_wh
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
        values = dequantize(outputs[0], self._output).reshape(KEYPOINT_COUNT, 3).tolist()
        side = self.input_spec.size_wh[0]
        (scale_x, scale_y), (offset_x, offset_y) = to_frame.scale_xy, to_frame.offset_xy
        scale_x, scale_y = scale_x * side, scale_y * side
        # In plain floats: arrays of 17 numbers take three times as long (11 us on x86-64).
        places = [(x, y) for y, x, _ in values]
        if to_frame.turns:
            places = [to_frame.turned_back(x, y) for x, y in places]
        points = [(x * scale_x + offset_x, y * scale_y + offset_y) for x, y in places]
        scores = [score for _, _, score in values]
        visible = [point for point, score in zip(points, scores, strict=True) if score >= BOX_SCORE]
        xs, ys = zip(*(visible or points), strict=True)
        return Poses(
            np.array([points], np.float32),
            np.array([scores], np.float32),
            np.array([_root_mean_square(scores)], np.float32),
            np.array([[min(xs), min(ys), max(xs), max(ys)]], np.float32),
        )


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))
