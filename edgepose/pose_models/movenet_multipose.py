"""MoveNet MultiPose: up to six poses a frame, found in the whole frame at once."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from edgepose.datatypes import CropRegion, InputSpec, Poses, TensorSpec, TensorToFrame
from edgepose.errors import ModelShapeError
from edgepose.pose_models._tensors import (
    dequantize,
    input_size_wh,
    padded_region,
    shapes_text,
)
from edgepose.protocols import Tensor
from edgepose.skeleton import KEYPOINT_COUNT

DEFAULT_POSE_THRESHOLD: Final = 0.20
"""From which score on a pose is somebody.

Of 50 COCO pictures without people the best score is 0.14; of 98 with people, 76 have a pose from
0.20 on and 85 from 0.15 on. Bottles on a table are the worst ghosts met, with up to 0.32.
"""
MAX_POSES: Final = 6
SIDE_MULTIPLE: Final = 32
"""Both sides of the input are multiples of this."""
DEFAULT_LONG_SIDE_PX: Final = 256
MIN_SIDE_PX, MAX_SIDE_PX = 32, 512

_KEYPOINT_VALUES: Final = KEYPOINT_COUNT * 3
_BOX_VALUES: Final = 4
POSE_VALUES: Final = _KEYPOINT_VALUES + _BOX_VALUES + 1
"""One pose: 17 (y, x, score), then y_min, x_min, y_max, x_max of its box, then its score."""

_WHAT: Final = "a MoveNet MultiPose"


def preferred_input_size_wh(
    frame_size_wh: tuple[int, int], long_side_px: int = DEFAULT_LONG_SIDE_PX
) -> tuple[int, int]:
    """Return the input size for a frame, for files that leave it open.

    The longer side becomes `long_side_px`; the other keeps the frame's aspect and is padded to a
    multiple of 32. Raises ValueError for a long side that is no multiple of 32 within 32..512.
    """
    if long_side_px % SIDE_MULTIPLE or not MIN_SIDE_PX <= long_side_px <= MAX_SIDE_PX:
        raise ValueError(
            f"the long side of a MoveNet MultiPose input is a multiple of {SIDE_MULTIPLE} "
            f"from {MIN_SIDE_PX} to {MAX_SIDE_PX}, got {long_side_px}"
        )
    width, height = frame_size_wh
    longest = max(width, height)

    def side(extent: int) -> int:
        # In integers: in floats 480 of 640 is a hair over 192 for some long sides.
        return -(-extent * long_side_px // (longest * SIDE_MULTIPLE)) * SIDE_MULTIPLE

    return side(width), side(height)


class MovenetMultipose:
    """Decodes MoveNet MultiPose, of a fixed input size or of one that the file leaves open.

    `chosen_size_wh` is the input size of an open file, to which the interpreter must be resized;
    without it that is a square, which fits any frame. Raises ModelShapeError where the tensors are
    not those of a MoveNet MultiPose, or its input cannot be the chosen size.
    """

    def __init__(
        self,
        input_tensor: TensorSpec,
        output_tensors: tuple[TensorSpec, ...],
        *,
        name: str,
        max_poses: int = MAX_POSES,
        chosen_size_wh: tuple[int, int] | None = None,
    ) -> None:
        file_size_wh = input_size_wh(input_tensor, name=name, expected=_WHAT)
        shape = output_tensors[0].shape if len(output_tensors) == 1 else ()
        if len(shape) != 3 or shape[0] not in (1, -1) or shape[2] != POSE_VALUES:
            raise ModelShapeError(
                f"{name}: outputs are {shapes_text(output_tensors)}, expected one "
                f"(1, {MAX_POSES}, {POSE_VALUES}) of {_WHAT}; set model.kind to what the file is, "
                "or auto"
            )
        wanted = chosen_size_wh or (DEFAULT_LONG_SIDE_PX, DEFAULT_LONG_SIDE_PX)
        size_wh = (
            file_size_wh[0] if file_size_wh[0] > 0 else wanted[0],
            file_size_wh[1] if file_size_wh[1] > 0 else wanted[1],
        )
        if chosen_size_wh is not None and size_wh != chosen_size_wh:
            raise ModelShapeError(
                f"{name}: its input is fixed at {size_wh[0]}x{size_wh[1]}, expected "
                f"{chosen_size_wh[0]}x{chosen_size_wh[1]} as set in model.input_size; "
                "leave input_size out"
            )
        if size_wh[0] % SIDE_MULTIPLE or size_wh[1] % SIDE_MULTIPLE:
            raise ModelShapeError(
                f"{name}: input is {size_wh[0]}x{size_wh[1]}, expected sides that are multiples "
                f"of {SIDE_MULTIPLE}; choose such a model.input_size"
            )
        self.input_spec = InputSpec(size_wh, input_tensor.dtype)
        self._output = output_tensors[0]
        self._max_poses = max_poses

    def decode(self, outputs: Sequence[Tensor], to_frame: TensorToFrame) -> Poses:
        """Return the poses, in frame px and best first; always as many as the model has places."""
        values = dequantize(outputs[0], self._output).reshape(-1, POSE_VALUES)
        scores = values[:, -1]
        best = np.argsort(-scores, kind="stable")[: self._max_poses]
        values = values[best]
        size = np.array(self.input_spec.size_wh, np.float32)
        scale = size * np.array(to_frame.scale_xy, np.float32)
        offset = np.array(to_frame.offset_xy, np.float32)
        keypoints = values[:, :_KEYPOINT_VALUES].reshape(-1, KEYPOINT_COUNT, 3)
        corners = values[:, _KEYPOINT_VALUES : _KEYPOINT_VALUES + _BOX_VALUES].reshape(-1, 2, 2)
        return Poses(
            keypoints[:, :, 1::-1] * scale + offset,
            keypoints[:, :, 2].copy(),
            scores[best],
            (corners[:, :, ::-1] * scale + offset).reshape(-1, 4),
        )

    def default_region(self, frame_size_wh: tuple[int, int]) -> CropRegion:
        """Return the whole frame, padded on the right or below to the shape of the input."""
        return padded_region(frame_size_wh, self.input_spec.size_wh, centred=False)

    def next_region(self, poses: Poses, frame_size_wh: tuple[int, int]) -> CropRegion | None:  # noqa: ARG002
        """Return None: bodies may appear anywhere, so each frame is looked at as a whole."""
        return None
