"""PoseNet: heatmaps, offsets and displacements, decoded to one pose or to several.

Several poses are assembled as in PersonLab (Papandreou et al. 2018, arXiv:1803.08225) with the
constants of tfjs-models' `posenet`: the keypoints with the highest scores start a pose each, and
displacements lead along the skeleton from there. Float files and Coral's quantized ones differ in
the order, number and scale of their outputs; all of it is read from the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import Floats, InputSpec, Poses, TensorSpec, TensorToFrame
from edgepose.errors import ModelShapeError
from edgepose.pose_models._tensors import bounding_boxes, dequantize, input_size_wh, to_frame_px
from edgepose.protocols import Tensor
from edgepose.skeleton import KEYPOINT_COUNT

PARENT_CHILD: Final = (
    (0, 1), (1, 3), (0, 2), (2, 4),
    (0, 5), (5, 7), (7, 9), (5, 11), (11, 13), (13, 15),
    (0, 6), (6, 8), (8, 10), (6, 12), (12, 14), (14, 16),
)  # fmt: skip
"""The keypoints that each displacement channel joins: a tree with the nose as its root."""

EDGE_COUNT: Final = len(PARENT_CHILD)
OFFSET_CHANNELS: Final = 2 * KEYPOINT_COUNT
DISPLACEMENT_CHANNELS: Final = 2 * EDGE_COUNT
CHANNEL_SETS: Final = ([17, 32, 32, 34], [17, 34, 64])
"""The channels of a PoseNet's outputs, sorted: displacements are two tensors or one."""

_TO_PARENT: Final = [(e, child, parent) for e, (parent, child) in enumerate(PARENT_CHILD)][::-1]
_TO_CHILD: Final = [(e, parent, child) for e, (parent, child) in enumerate(PARENT_CHILD)]
"""Steps along the tree, in an order in which they can be taken: edge, source, target."""

STRIDES: Final = (8, 16, 32)

DEFAULT_POSE_THRESHOLD: Final = 0.45
"""The score from which a pose is reported.

Of 50 COCO images without people, the float file and both sizes of Coral's quantized one have a
pose in 1 at this threshold and in 2 or 3 at 0.40; of 98 with people, in 68-71 and 72-75.
"""
ROOT_SCORE: Final = 0.5
"""The keypoint score from which a keypoint starts a pose; the sigmoid of 0."""
REFINEMENTS: Final = 2
"""How often a keypoint that a displacement led to is corrected by the offset found there."""
TRIES_PER_POSE: Final = 4
"""Poses tried at most, for each one asked for: bounds the time of a crowd."""

_ALL_KEYPOINTS: Final = np.arange(KEYPOINT_COUNT)

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Field:
    """Vectors (y, x) of a model, in px, `count` of them for each cell of its outputs.

    `tensor` is the index of the output; y is in the channels from `first` on, x `count` channels
    later.
    """

    tensor: int
    spec: TensorSpec
    count: int
    first: int = 0

    def vectors(self, outputs: Sequence[Tensor]) -> Doubles:
        """Return the vectors (cells, count, 2).

        In float64, as points of quantized files often lie on the border between two cells.
        """
        cells = outputs[self.tensor].reshape(-1, self.spec.shape[-1])
        stored = cells[:, self.first : self.first + 2 * self.count].reshape(-1, 2, self.count)
        real: Doubles = stored.swapaxes(1, 2).astype(np.float64)
        return (real - self.spec.zero_point) * (self.spec.scale or 1.0)


class Posenet:
    """Decodes PoseNet; with `max_poses` 1, a single pose of the best cell of each keypoint.

    Poses below `pose_threshold` do not count as one of `max_poses`. A keypoint starts a pose only
    if it is `nms_radius_px` (of the input) from the same keypoint of a better pose. Raises
    ModelShapeError if the input does not fit the outputs.
    """

    def __init__(
        self,
        input_tensor: TensorSpec,
        output_tensors: tuple[TensorSpec, ...],
        *,
        name: str,
        max_poses: int = 5,
        pose_threshold: float = 0.0,
        nms_radius_px: float = 20.0,
    ) -> None:
        size_wh = input_size_wh(input_tensor, name=name)
        self.input_spec = _input_spec(input_tensor, size_wh)
        self.crops = False
        self._rows, self._columns = output_tensors[0].shape[1:3]
        self._stride = _stride(size_wh, (self._columns, self._rows), name=name)
        # (cells, 1, 2): y and x of each cell, px of the input.
        corners = np.indices((self._rows, self._columns), np.float64) * self._stride
        self._corners = corners.reshape(2, -1).T[:, np.newaxis]
        channels = [output.shape[3] for output in output_tensors]
        self._heatmap = channels.index(KEYPOINT_COUNT)
        self._heatmap_spec = output_tensors[self._heatmap]
        offsets = channels.index(OFFSET_CHANNELS)
        self._offsets = _Field(offsets, output_tensors[offsets], KEYPOINT_COUNT)
        self._forward, self._backward = _displacements(output_tensors)
        self._max_poses = max_poses
        self._pose_threshold = pose_threshold
        self._nms_radius_px = nms_radius_px

    def decode(self, outputs: Sequence[Tensor], to_frame: TensorToFrame) -> Poses:
        """Return the poses in frame px, best first."""
        spec = self._heatmap_spec
        heatmap = dequantize(outputs[self._heatmap], spec)[0]
        # Logits have negative values, scores none but for the rounding of quantized ones.
        logits = bool(heatmap.min() < -2.0 * spec.scale)
        # For each cell and keypoint the point that the offset in this cell leads to.
        offset_points = self._corners + self._offsets.vectors(outputs)
        if self._max_poses > 1:
            found = self._several(outputs, heatmap, offset_points, logits)
        else:
            found = _single(heatmap, offset_points, logits)
        points_yx, keypoint_scores, scores = found
        # Cell 0 lies on the centre of the first pixel (3x3 kernels at stride 2, one px of padding
        # on an odd side), half a px from the corner that coordinates count from.
        keypoints = to_frame_px(points_yx + 0.5, (1, 1), to_frame)
        return Poses(keypoints, keypoint_scores, scores, bounding_boxes(keypoints, keypoint_scores))

    def _several(
        self, outputs: Sequence[Tensor], heatmap: Floats, offset_points: Doubles, logits: bool
    ) -> tuple[Doubles, Floats, Floats]:
        """Assemble poses from the best keypoint on, until there are enough."""
        is_root = heatmap >= (0.0 if logits else ROOT_SCORE)
        is_root &= heatmap == cv2.dilate(heatmap, np.ones((3, 3), np.uint8))
        roots = np.flatnonzero(is_root)
        roots = roots[np.argsort(-heatmap.reshape(-1)[roots], kind="stable")]
        cells, parts = np.divmod(roots, KEYPOINT_COUNT)
        root_points = offset_points[cells, parts]
        free = np.ones(len(roots), np.bool_)
        limit = self._max_poses * TRIES_PER_POSE
        points_yx = np.empty((limit, KEYPOINT_COUNT, 2))
        keypoint_scores = np.empty((limit, KEYPOINT_COUNT), np.float32)
        scores = np.empty(limit, np.float32)
        forward, backward = self._forward.vectors(outputs), self._backward.vectors(outputs)
        radius_squared = self._nms_radius_px**2
        tried = kept = 0
        while tried < limit and kept < self._max_poses and free.any():
            root = int(free.argmax())
            part = int(parts[root])
            points = self._assemble(forward, backward, offset_points, int(cells[root]), part)
            points_yx[tried] = points
            at = [self._cell(y, x) for y, x in points]
            at[part] = cells[root]
            values = heatmap.reshape(-1, KEYPOINT_COUNT)[at, _ALL_KEYPOINTS]
            keypoint_scores[tried] = _scores(values, logits)
            # A keypoint that belongs to a better pose does not count for this one.
            distances = np.square(points_yx[:tried] - points_yx[tried]).sum(axis=2)
            own = ~(distances <= radius_squared).any(axis=0)
            scores[tried] = keypoint_scores[tried, own].sum() / KEYPOINT_COUNT
            kept += bool(scores[tried] >= self._pose_threshold)
            to_root = root_points - points_yx[tried, parts]
            free &= np.square(to_root).sum(axis=1) > radius_squared
            tried += 1
        best = np.argsort(-scores[:tried], kind="stable")
        best = best[scores[best] >= self._pose_threshold]
        return points_yx[best], keypoint_scores[best], scores[best]

    def _assemble(
        self, forward: Doubles, backward: Doubles, offset_points: Doubles, cell: int, part: int
    ) -> list[tuple[float, float]]:
        """Follow the displacements from one cell's keypoint along the tree; return 17 (y, x).

        In plain floats: a step needs a handful of numbers.
        """
        points: dict[int, tuple[float, float]] = {part: offset_points[cell, part].tolist()}
        for displacements, edges in ((backward, _TO_PARENT), (forward, _TO_CHILD)):
            for edge, source, target in edges:
                if source not in points or target in points:
                    continue
                y, x = points[source]
                step_y, step_x = displacements[self._cell(y, x), edge].tolist()
                y, x = y + step_y, x + step_x
                for _ in range(REFINEMENTS):
                    y, x = offset_points[self._cell(y, x), target].tolist()
                points[target] = (y, x)
        return [points[index] for index in range(KEYPOINT_COUNT)]

    def _cell(self, y: float, x: float) -> int:
        """Return the cell nearest to a point of the input, px."""
        row = _nearest(y / self._stride, self._rows - 1)
        return row * self._columns + _nearest(x / self._stride, self._columns - 1)


def _nearest(value: float, last: int) -> int:
    # A NaN fails the first comparison, and so cannot reach int().
    if not value > 0.0:
        return 0
    return last if value >= last else int(value + 0.5)


def _single(
    heatmap: Floats, offset_points: Doubles, logits: bool
) -> tuple[Doubles, Floats, Floats]:
    """Take the best cell of each keypoint, of whichever body."""
    values = heatmap.reshape(-1, KEYPOINT_COUNT)
    cells = values.argmax(axis=0)
    keypoint_scores = _scores(values[cells, _ALL_KEYPOINTS], logits)[np.newaxis]
    points_yx = offset_points[cells, _ALL_KEYPOINTS][np.newaxis]
    return points_yx, keypoint_scores, keypoint_scores.mean(axis=1)


def _scores(values: Floats, logits: bool) -> Floats:
    if not logits:
        return values.clip(0.0, 1.0)
    # exp of the negative magnitude only, which cannot overflow.
    small = np.exp(-np.abs(values.astype(np.float64)))
    scores: Floats = (np.where(values >= 0, 1.0, small) / (1.0 + small)).astype(np.float32)
    return scores


def _input_spec(tensor: TensorSpec, size_wh: tuple[int, int]) -> InputSpec:
    """Return how pixels become the tensor: PoseNet takes pixel / 127.5 - 1.

    An 8-bit input whose steps are those of a byte to within one and a half takes the bytes
    unchanged (Coral's has 1/128 and zero 128, where the exact factor is 1.004); so does an integer
    one without quantization, which normalizes inside.
    """
    if tensor.dtype.kind == "f":
        return InputSpec(size_wh, tensor.dtype, 1.0 / 127.5, -1.0)
    if not tensor.scale:
        return InputSpec(size_wh, tensor.dtype)
    factor = 1.0 / (127.5 * tensor.scale)
    offset = tensor.zero_point - 1.0 / tensor.scale
    lowest = np.iinfo(tensor.dtype.name).min
    if all(abs(pixel * (factor - 1.0) + offset - lowest) <= 1.5 for pixel in (0, 255)):
        return InputSpec(size_wh, tensor.dtype, 1.0, float(lowest))
    return InputSpec(size_wh, tensor.dtype, factor, offset)


def _displacements(outputs: Sequence[TensorSpec]) -> tuple[_Field, _Field]:
    """Return the forward and the backward displacements.

    Coral's files have both in one tensor: forward y, forward x, backward y, backward x. Two
    tensors are identified by their names; without these, forward comes first, as in the graph and
    in every published file.
    """
    fields = [
        _Field(index, output, EDGE_COUNT, first)
        for index, output in enumerate(outputs)
        if output.shape[3] % DISPLACEMENT_CHANNELS == 0
        for first in range(0, output.shape[3], DISPLACEMENT_CHANNELS)
    ]
    forward, backward = sorted(fields, key=lambda field: "bwd" in field.spec.name.lower())
    return forward, backward


def _stride(size_wh: tuple[int, int], cells_wh: tuple[int, int], *, name: str) -> int:
    """Return the distance of the outputs' cells in px of the input; raises ModelShapeError."""

    def excess(stride: int) -> float:
        """Return by how many strides the cells miss the last pixel."""
        return max(
            abs(side - 1 - stride * (cells - 1)) / stride
            for side, cells in zip(size_wh, cells_wh, strict=True)
        )

    # 1280x720 with 81x46 cells misses by a little: the model pads its input to a whole stride.
    stride = min(STRIDES, key=excess)
    if excess(stride) >= 1.0:
        raise ModelShapeError(
            f"{name}: input is {size_wh[0]}x{size_wh[1]} and outputs have "
            f"{cells_wh[0]}x{cells_wh[1]} cells, expected an output stride of 8, 16 or 32; this is "
            "another network, or its input size was changed without its outputs"
        )
    return stride
