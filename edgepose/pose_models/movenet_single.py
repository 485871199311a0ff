"""MoveNet Lightning and Thunder: one pose a frame."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from edgepose.datatypes import CropRegion, InputSpec, Poses, TensorSpec, TensorToFrame
from edgepose.errors import ModelShapeError
from edgepose.imaging.crop import MIN_CROP_SCORE, body_region, square_region
from edgepose.protocols import Tensor
from edgepose.skeleton import KEYPOINT_COUNT

OUTPUT_SHAPE: Final = (1, 1, KEYPOINT_COUNT, 3)
"""One pose of 17 (y, x, score), y and x 0..1 of the input square."""


class MovenetSingle:
    """Decodes MoveNet single pose; `crop` off looks at the whole frame every time.

    Raises ModelShapeError where the tensors are not those of a single-pose MoveNet.
    """

    def __init__(
        self,
        input_tensor: TensorSpec,
        output_tensors: tuple[TensorSpec, ...],
        *,
        name: str,
        crop: bool = True,
    ) -> None:
        shape = input_tensor.shape
        if len(shape) != 4 or shape[0] != 1 or shape[1] != shape[2] or shape[3] != 3:
            raise ModelShapeError(
                f"{name}: input is {shape}, expected (1, S, S, 3) of a single-pose MoveNet"
            )
        if [output.shape for output in output_tensors] != [OUTPUT_SHAPE]:
            shapes = ", ".join(str(output.shape) for output in output_tensors)
            raise ModelShapeError(
                f"{name}: outputs are {shapes}, expected one {OUTPUT_SHAPE} of a single-pose "
                "MoveNet; set model.kind to what the file is, or auto"
            )
        self.input_spec = InputSpec((shape[2], shape[1]), input_tensor.dtype)
        self._crop = crop
        self._dequantize = (output_tensors[0].scale, output_tensors[0].zero_point)

    def decode(self, outputs: Sequence[Tensor], to_frame: TensorToFrame) -> Poses:
        """Return the one pose, in frame px, with the mean of its 17 keypoint scores as score.

        MoveNet names 17 places in any picture; how much the model believes in all of them together
        tells a body from a ghost better than the mean of the strong ones alone.
        """
        values = outputs[0].reshape(KEYPOINT_COUNT, 3)
        if self._dequantize[0]:
            scale, zero_point = self._dequantize
            values = (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
        width, height = self.input_spec.size_wh
        (scale_x, scale_y), (offset_x, offset_y) = to_frame.scale_xy, to_frame.offset_xy
        scale_x, scale_y = scale_x * width, scale_y * height
        # Plain floats: with 17 keypoints, every NumPy call costs as much as half of this loop.
        keypoints: list[tuple[float, float]] = []
        scores: list[float] = []
        visible: list[tuple[float, float]] = []
        for y, x, score in values.tolist():
            point = (x * scale_x + offset_x, y * scale_y + offset_y)
            keypoints.append(point)
            scores.append(score)
            if score >= MIN_CROP_SCORE:
                visible.append(point)
        # Where keypoints are only guessed, the visible ones bound the body.
        xs, ys = zip(*(visible or keypoints), strict=True)
        return Poses(
            np.array([keypoints], np.float32),
            np.array([scores], np.float32),
            np.array([sum(scores) / KEYPOINT_COUNT], np.float32),
            np.array([[min(xs), min(ys), max(xs), max(ys)]], np.float32),
        )

    def default_region(self, frame_size_wh: tuple[int, int]) -> CropRegion:
        """Return the whole frame padded to a square."""
        return square_region(frame_size_wh)

    def next_region(self, poses: Poses, frame_size_wh: tuple[int, int]) -> CropRegion | None:
        """Return the square around the first pose, or None for the whole frame."""
        if not self._crop or not len(poses):
            return None
        return body_region(
            poses.keypoints[0].tolist(), poses.keypoint_scores[0].tolist(), frame_size_wh
        )
