"""MoveNet MultiPose: up to six poses a frame, detected in the whole frame at once."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from edgepose.datatypes import InputSpec, Poses, TensorSpec, TensorToFrame
from edgepose.errors import ModelShapeError
from edgepose.pose_models._tensors import dequantize, input_size_wh, to_frame_px
from edgepose.protocols import Tensor
from edgepose.skeleton import KEYPOINT_COUNT

DEFAULT_POSE_THRESHOLD: Final = 0.20
"""The score from which a pose is reported.

Of 50 COCO images without people the best score is 0.14; of 98 with people, 76 have a pose from
0.20 on and 85 from 0.15 on. The worst false positives so far were bottles on a table, up to 0.32.
"""
MAX_POSES: Final = 6
SIDE_MULTIPLE: Final = 32
"""Both sides of the input are multiples of this."""

_KEYPOINT_VALUES: Final = KEYPOINT_COUNT * 3
POSE_VALUES: Final = _KEYPOINT_VALUES + 5
"""One pose: 17 (y, x, score), then y_min, x_min, y_max, x_max of its box, then its score."""


class MovenetMultipose:
    """Decodes MoveNet MultiPose; raises ModelShapeError if the input does not fit its grids."""

    def __init__(
        self,
        input_tensor: TensorSpec,
        output_tensors: tuple[TensorSpec, ...],
        *,
        name: str,
        max_poses: int = MAX_POSES,
    ) -> None:
        width, height = input_size_wh(input_tensor, name=name)
        if width % SIDE_MULTIPLE or height % SIDE_MULTIPLE:
            raise ModelShapeError(
                f"{name}: input is {width}x{height}, expected sides that are multiples of "
                f"{SIDE_MULTIPLE}; choose such a model.input_size"
            )
        self.input_spec = InputSpec((width, height), input_tensor.dtype, centred=False)
        self.crops = False
        self._output = output_tensors[0]
        self._max_poses = max_poses

    def decode(self, outputs: Sequence[Tensor], to_frame: TensorToFrame) -> Poses:
        """Return the poses, in frame px and best first; always as many as the model has places."""
        values = dequantize(outputs[0], self._output)[0]
        values = values[np.argsort(-values[:, -1], kind="stable")[: self._max_poses]]
        keypoints = values[:, :_KEYPOINT_VALUES].reshape(-1, KEYPOINT_COUNT, 3)
        corners = values[:, _KEYPOINT_VALUES:-1].reshape(-1, 2, 2)
        size_wh = self.input_spec.size_wh
        return Poses(
            to_frame_px(keypoints[:, :, :2], size_wh, to_frame),
            keypoints[:, :, 2],
            values[:, -1],
            to_frame_px(corners, size_wh, to_frame).reshape(-1, 4),
        )
