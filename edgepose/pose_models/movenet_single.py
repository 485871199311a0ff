"""MoveNet Lightning and Thunder: one pose a frame."""

from collections.abc import Sequence
from typing import Final

from edgepose.datatypes import CropRegion, InputSpec, Poses, TensorSpec, TensorToFrame
from edgepose.errors import ModelShapeError
from edgepose.imaging.crop import body_region, padded_region
from edgepose.pose_models._tensors import bounding_boxes, dequantize, shapes_text, to_frame_px
from edgepose.protocols import Tensor
from edgepose.skeleton import KEYPOINT_COUNT

OUTPUT_SHAPE: Final = (1, 1, KEYPOINT_COUNT, 3)
"""One pose of 17 (y, x, score), y and x 0..1 of the input square."""


class MovenetSingle:
    """Decodes MoveNet single pose; without `crop`, every frame is detected as a whole.

    Raises ModelShapeError if the tensors are not those of a single-pose MoveNet.
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
        side = shape[1] if len(shape) == 4 else 0
        if shape != (1, side, side, 3) or [o.shape for o in output_tensors] != [OUTPUT_SHAPE]:
            raise ModelShapeError(
                f"{name}: input is {shape} and outputs are {shapes_text(output_tensors)}, expected "
                f"(1, S, S, 3) and {OUTPUT_SHAPE} of a single-pose MoveNet; set model.kind to what "
                "the file is, or auto"
            )
        self.input_spec = InputSpec((side, side), input_tensor.dtype)
        self._output = output_tensors[0]
        self._crop = crop

    def decode(self, outputs: Sequence[Tensor], to_frame: TensorToFrame) -> Poses:
        """Return the one pose, in frame px, with the mean of its 17 keypoint scores as score.

        MoveNet places 17 keypoints in any image; the mean of all scores distinguishes a body from a
        false positive better than that of the high ones alone.
        """
        values = dequantize(outputs[0], self._output)[0]
        keypoints = to_frame_px(values[:, :, :2], self.input_spec.size_wh, to_frame)
        scores = values[:, :, 2]
        return Poses(keypoints, scores, scores.mean(axis=1), bounding_boxes(keypoints, scores))

    def default_region(self, frame_size_wh: tuple[int, int]) -> CropRegion:
        """Return the whole frame padded to a square."""
        return padded_region(frame_size_wh, self.input_spec.size_wh, centred=True)

    def next_region(self, poses: Poses, frame_size_wh: tuple[int, int]) -> CropRegion | None:
        """Return the square around the first pose, or None for the whole frame."""
        if not self._crop or not len(poses):
            return None
        return body_region(poses.keypoints[0], poses.keypoint_scores[0], frame_size_wh)
