"""PoseNet: heatmaps, offsets and displacements, decoded to one pose or to several.

Several poses are put together as in PersonLab (Papandreou et al. 2018, arXiv:1803.08225) with the
constants of tfjs-models' `posenet`: the most certain keypoints start a pose each, and displacements
lead along the skeleton from there. Float files and Coral's quantized ones differ in the order,
number and scale of their outputs; all of it is read from the file.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import (
    CropRegion,
    Floats,
    InputSpec,
    Poses,
    TensorSpec,
    TensorToFrame,
)
from edgepose.errors import ModelShapeError
from edgepose.pose_models._tensors import (
    bounding_boxes,
    dequantize,
    input_size_wh,
    padded_region,
    shapes_text,
)
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
CHANNEL_SETS: Final = (
    sorted((KEYPOINT_COUNT, OFFSET_CHANNELS, DISPLACEMENT_CHANNELS, DISPLACEMENT_CHANNELS)),
    sorted((KEYPOINT_COUNT, OFFSET_CHANNELS, 2 * DISPLACEMENT_CHANNELS)),
)
"""The channels of a PoseNet's outputs, sorted: displacements are two tensors or one."""

STRIDES: Final = (8, 16, 32)

DEFAULT_POSE_THRESHOLD: Final = 0.45
"""From which score on a pose is somebody.

Of 50 COCO pictures without people, the float file and both sizes of Coral's quantized one find
somebody in 1 at this threshold and in 2 or 3 at 0.40; of 98 with people, in 68-71 and 72-75.
"""
DEFAULT_MAX_POSES: Final = 5
DEFAULT_ROOT_SCORE: Final = 0.5
DEFAULT_NMS_RADIUS_PX: Final = 20.0
REFINEMENTS: Final = 2
"""How often a keypoint that a displacement led to is corrected by the offset found there."""

_TRIES_PER_POSE: Final = 4
"""Poses put together at most, for each one asked for: bounds the time a crowd can take."""

_WHAT: Final = "a PoseNet"


@dataclass(frozen=True, slots=True)
class _Field:
    """Vectors (y, x) that a model gives for each cell: where they are in the stored outputs.

    `tensor` is the output's index; a vector's y is at channel `first` plus its number and its x
    `count` later; real = scale * (stored - zero_point) px.
    """

    tensor: int
    first: int
    count: int
    channels: int
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class _Grid:
    """The cells of the outputs, `stride` px of the input apart."""

    rows: int
    columns: int
    stride: int

    def cell(self, y: float, x: float) -> int:
        """Return the flat index of the cell nearest to a point of the input, px."""
        return _nearest(y / self.stride, self.rows - 1) * self.columns + _nearest(
            x / self.stride, self.columns - 1
        )


def _nearest(value: float, last: int) -> int:
    # A NaN fails the first comparison, and so cannot reach int().
    if not value > 0.0:
        return 0
    return last if value >= last else int(value + 0.5)


class Posenet:
    """Decodes PoseNet, `multiple` poses or one.

    `max_poses` poses at most come back; `pose_threshold` is the score below which a pose does not
    count as one of them; a keypoint must reach `root_score` to start a pose, and be
    `nms_radius_px` (of the input) from the same keypoint of a better pose. `sigmoid` says that
    heatmaps are logits; None reads it from the quantization, or from each heatmap of a float file:
    logits have negative values, scores have none.

    Raises ModelShapeError where the tensors are not those of a PoseNet.
    """

    def __init__(
        self,
        input_tensor: TensorSpec,
        output_tensors: tuple[TensorSpec, ...],
        *,
        name: str,
        multiple: bool = True,
        max_poses: int = DEFAULT_MAX_POSES,
        pose_threshold: float = 0.0,
        root_score: float = DEFAULT_ROOT_SCORE,
        nms_radius_px: float = DEFAULT_NMS_RADIUS_PX,
        sigmoid: bool | None = None,
    ) -> None:
        if not 0.0 < root_score < 1.0:
            raise ValueError(f"root_score is between 0 and 1, got {root_score}")
        size_wh = input_size_wh(input_tensor, name=name, expected=_WHAT)
        self._heatmap_index = _index_of(output_tensors, KEYPOINT_COUNT, name=name)
        offset_index = _index_of(output_tensors, OFFSET_CHANNELS, name=name)
        self._heatmap = output_tensors[self._heatmap_index]
        self._offsets = _field(output_tensors, offset_index, count=KEYPOINT_COUNT)
        self._forward, self._backward = _displacements(output_tensors, name=name)
        self._grid = _grid(size_wh, output_tensors, name=name)
        self.input_spec = _input_spec(input_tensor, size_wh)
        self._sigmoid = sigmoid if sigmoid is not None else _stores_logits(self._heatmap)
        self._multiple = multiple
        self._max_poses = max_poses
        self._pose_threshold = pose_threshold
        self._root_score = root_score
        self._nms_radius_px = nms_radius_px

    @property
    def stride(self) -> int:
        """Input px from one cell of the outputs to the next."""
        return self._grid.stride

    def decode(self, outputs: Sequence[Tensor], to_frame: TensorToFrame) -> Poses:
        """Return the poses in frame px, best first; at most one where `multiple` is off."""
        heatmap = outputs[self._heatmap_index][0]
        sigmoid = self._sigmoid
        if sigmoid is None:
            sigmoid = bool(heatmap.min() < 0.0)
        if self._multiple:
            points_yx, keypoint_scores, scores = self._several(outputs, heatmap, sigmoid)
        else:
            points_yx, keypoint_scores, scores = self._single(outputs, heatmap, sigmoid)
        # Cell 0 lies on the middle of the first pixel (3x3 kernels at stride 2, one px of padding
        # on an odd side), half a px from the corner that coordinates count from.
        keypoints = (points_yx[:, :, ::-1] + np.float32(0.5)) * np.array(
            to_frame.scale_xy, np.float32
        )
        keypoints += np.array(to_frame.offset_xy, np.float32)
        return Poses(keypoints, keypoint_scores, scores, bounding_boxes(keypoints, keypoint_scores))

    def default_region(self, frame_size_wh: tuple[int, int]) -> CropRegion:
        """Return the whole frame, padded on both sides to the shape of the input."""
        return padded_region(frame_size_wh, self.input_spec.size_wh, centred=True)

    def next_region(self, poses: Poses, frame_size_wh: tuple[int, int]) -> CropRegion | None:  # noqa: ARG002
        """Return None: each frame is looked at as a whole."""
        return None

    def _single(
        self, outputs: Sequence[Tensor], heatmap: Tensor, sigmoid: bool
    ) -> tuple[Floats, Floats, Floats]:
        """Take the best cell of each keypoint, whoever it belongs to."""
        cells = heatmap.reshape(-1, KEYPOINT_COUNT).argmax(axis=0)
        parts = np.arange(KEYPOINT_COUNT)
        values = dequantize(heatmap.reshape(-1, KEYPOINT_COUNT)[cells, parts], self._heatmap)
        scores = _sigmoid(values) if sigmoid else values
        points_yx = self._points_yx(outputs, cells, parts)
        return points_yx[np.newaxis], scores[np.newaxis], scores.mean(keepdims=True)

    def _several(
        self, outputs: Sequence[Tensor], heatmap: Tensor, sigmoid: bool
    ) -> tuple[Floats, Floats, Floats]:
        """Put poses together from the most certain keypoint on, until there are enough."""
        cells, parts = self._roots(heatmap, sigmoid)
        roots_yx = self._points_yx(outputs, cells, parts)
        free = np.ones(len(cells), np.bool_)
        radius_squared = self._nms_radius_px**2
        follow = self._follower(outputs, heatmap, sigmoid)
        limit = min(self._max_poses * _TRIES_PER_POSE, len(cells))
        points_yx = np.empty((limit, KEYPOINT_COUNT, 2), np.float32)
        keypoint_scores = np.empty((limit, KEYPOINT_COUNT), np.float32)
        scores = np.empty(limit, np.float32)
        tried = kept = 0
        while tried < limit and kept < self._max_poses and free.any():
            root = int(free.argmax())
            points, part_scores = follow(
                int(parts[root]), int(cells[root]), *roots_yx[root].tolist()
            )
            points_yx[tried], keypoint_scores[tried] = points, part_scores
            # A keypoint that a better pose has already claimed says nothing for this one.
            claimed = (
                np.square(points_yx[:tried] - points_yx[tried]).sum(axis=2) <= radius_squared
            ).any(axis=0)
            scores[tried] = keypoint_scores[tried][~claimed].sum() / KEYPOINT_COUNT
            kept += bool(scores[tried] >= self._pose_threshold)
            to_root = roots_yx - points_yx[tried, parts]
            free &= np.square(to_root).sum(axis=1) > radius_squared
            tried += 1
        best = np.argsort(-scores[:tried], kind="stable")
        best = best[scores[best] >= self._pose_threshold]
        return points_yx[best], keypoint_scores[best], scores[best]

    def _roots(self, heatmap: Tensor, sigmoid: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return cells and keypoints of the heatmaps' local maxima, best first.

        Compared as stored: logits and quantized values are in the order of the scores.
        """
        least = self._root_score
        if sigmoid:
            least = math.log(least / (1.0 - least))
        if self._heatmap.scale:
            least = least / self._heatmap.scale + self._heatmap.zero_point
        numbers: NDArray[Any] = heatmap
        found = np.flatnonzero((numbers >= least) & (numbers == _highest_around(numbers)))
        values = numbers.reshape(-1)[found].astype(np.float32)
        found = found[np.argsort(-values, kind="stable")]
        cells, parts = np.divmod(found, KEYPOINT_COUNT)
        return cells, parts

    def _points_yx(
        self, outputs: Sequence[Tensor], cells: NDArray[np.intp], parts: NDArray[np.intp]
    ) -> Floats:
        """Return where in the input, px, the offsets of these cells put these keypoints, (n, 2)."""
        field = self._offsets
        vectors = outputs[field.tensor].reshape(-1, field.channels)
        stored = np.stack((vectors[cells, parts], vectors[cells, parts + field.count]), axis=1)
        corners = np.stack(np.divmod(cells, self._grid.columns), axis=1) * self._grid.stride
        offsets = stored.astype(np.float32)
        if field.scale:
            offsets = (offsets - np.float32(field.zero_point)) * np.float32(field.scale)
        points: Floats = corners.astype(np.float32) + offsets
        return points

    def _follower(
        self, outputs: Sequence[Tensor], heatmap: Tensor, sigmoid: bool
    ) -> Callable[[int, int, float, float], tuple[list[tuple[float, float]], list[float]]]:
        """Return the function that puts one pose together from its root keypoint.

        It takes the keypoint's number, cell, y and x, and returns 17 (y, x) and 17 scores. In plain
        floats: a step needs a handful of numbers, each of which would cost a NumPy call more.
        """
        grid = self._grid
        columns, stride = grid.columns, grid.stride
        score_at = _score_reader(heatmap, self._heatmap, sigmoid)
        offset_at = _vector_reader(outputs, self._offsets)
        backward_at = _vector_reader(outputs, self._backward)
        forward_at = _vector_reader(outputs, self._forward)

        def step(
            points: list[tuple[float, float]],
            scores: list[float],
            displacement: tuple[float, float],
            source: int,
            target: int,
        ) -> None:
            y = points[source][0] + displacement[0]
            x = points[source][1] + displacement[1]
            for _ in range(REFINEMENTS):
                cell = grid.cell(y, x)
                offset = offset_at(cell, target)
                y = cell // columns * stride + offset[0]
                x = cell % columns * stride + offset[1]
            points[target] = (y, x)
            scores[target] = score_at(grid.cell(y, x), target)

        def follow(
            root: int, root_cell: int, root_y: float, root_x: float
        ) -> tuple[list[tuple[float, float]], list[float]]:
            points = [(0.0, 0.0)] * KEYPOINT_COUNT
            scores = [-1.0] * KEYPOINT_COUNT
            points[root] = (root_y, root_x)
            scores[root] = score_at(root_cell, root)
            for edge in range(EDGE_COUNT - 1, -1, -1):
                parent, child = PARENT_CHILD[edge]
                if scores[child] >= 0.0 and scores[parent] < 0.0:
                    cell = grid.cell(*points[child])
                    step(points, scores, backward_at(cell, edge), child, parent)
            for edge, (parent, child) in enumerate(PARENT_CHILD):
                if scores[parent] >= 0.0 and scores[child] < 0.0:
                    cell = grid.cell(*points[parent])
                    step(points, scores, forward_at(cell, edge), parent, child)
            return points, scores

        return follow


def _highest_around(heatmap: Tensor) -> Tensor:
    """Return for each cell of (rows, columns, 17) the highest value of the 3 x 3 around it."""
    down = heatmap.copy()
    np.maximum(down[1:], heatmap[:-1], out=down[1:])
    np.maximum(down[:-1], heatmap[1:], out=down[:-1])
    across = down.copy()
    np.maximum(across[:, 1:], down[:, :-1], out=across[:, 1:])
    np.maximum(across[:, :-1], down[:, 1:], out=across[:, :-1])
    return across


def _score_reader(heatmap: Tensor, spec: TensorSpec, sigmoid: bool) -> Callable[[int, int], float]:
    item = heatmap.reshape(-1).item
    scale, zero_point = (spec.scale, spec.zero_point) if spec.scale else (1.0, 0)

    def read(cell: int, part: int) -> float:
        value: float = (item(cell * KEYPOINT_COUNT + part) - zero_point) * scale
        if sigmoid:
            # Beyond this a float64 exp would overflow, and the score is 0 in any precision.
            return 1.0 / (1.0 + math.exp(-value)) if value > -700.0 else 0.0
        return min(max(value, 0.0), 1.0)

    return read


def _vector_reader(
    outputs: Sequence[Tensor], field: _Field
) -> Callable[[int, int], tuple[float, float]]:
    item = outputs[field.tensor].reshape(-1).item
    channels, first, count = field.channels, field.first, field.count
    scale, zero_point = (field.scale, field.zero_point) if field.scale else (1.0, 0)

    def read(cell: int, number: int) -> tuple[float, float]:
        at = cell * channels + first + number
        return (item(at) - zero_point) * scale, (item(at + count) - zero_point) * scale

    return read


def _sigmoid(values: Floats) -> Floats:
    # exp of the negative magnitude only, which cannot overflow.
    small = np.exp(-np.abs(values))
    scores: Floats = (np.where(values >= 0, 1.0, small) / (1.0 + small)).astype(
        np.float32, copy=False
    )
    return scores


def _stores_logits(heatmap: TensorSpec) -> bool | None:
    """Return whether a quantized heatmap can hold anything but scores; None for a float one."""
    if not heatmap.scale:
        return None
    limits: np.iinfo[Any] = np.iinfo(str(heatmap.dtype))
    low = heatmap.scale * (int(limits.min) - heatmap.zero_point)
    high = heatmap.scale * (int(limits.max) - heatmap.zero_point)
    # A calibrated range of scores may miss 0 or 1 by a step.
    return low < -2 * heatmap.scale or high > 1.0 + 2 * heatmap.scale


def _input_spec(tensor: TensorSpec, size_wh: tuple[int, int]) -> InputSpec:
    """Return how pixels become the tensor: PoseNet takes pixel / 127.5 - 1.

    An 8-bit input whose steps are those of a byte to within one and a half takes the bytes as they
    are (Coral's has 1/128 and zero 128, where the exact factor is 1.004); so does an integer one
    without quantization, which normalizes inside.
    """
    if not np.issubdtype(tensor.dtype, np.integer):
        return InputSpec(size_wh, tensor.dtype, 1.0 / 127.5, -1.0)
    if not tensor.scale:
        return InputSpec(size_wh, tensor.dtype)
    factor = 1.0 / (127.5 * tensor.scale)
    offset = tensor.zero_point - 1.0 / tensor.scale
    limits: np.iinfo[Any] = np.iinfo(str(tensor.dtype))
    lowest = int(limits.min)
    if limits.bits == 8 and all(
        abs(pixel * (factor - 1.0) + offset - lowest) <= 1.5 for pixel in (0, 255)
    ):
        return InputSpec(size_wh, tensor.dtype, 1.0, float(lowest))
    return InputSpec(size_wh, tensor.dtype, factor, offset)


def _index_of(outputs: Sequence[TensorSpec], channels: int, *, name: str) -> int:
    """Return the index of the only output with that many channels."""
    found = [index for index, output in enumerate(outputs) if output.shape[-1:] == (channels,)]
    if len(found) != 1:
        raise _wrong_outputs(outputs, name)
    return found[0]


def _displacements(outputs: Sequence[TensorSpec], *, name: str) -> tuple[_Field, _Field]:
    """Return the forward and the backward displacements.

    Coral's files hold both in one tensor: forward y, forward x, backward y, backward x. Of two
    tensors the names tell which is which; where they do not, forward comes first, as in the
    graph and in every published file.
    """
    joined = [i for i, o in enumerate(outputs) if o.shape[-1:] == (2 * DISPLACEMENT_CHANNELS,)]
    pair = [i for i, o in enumerate(outputs) if o.shape[-1:] == (DISPLACEMENT_CHANNELS,)]
    if len(joined) == 1 and not pair:
        return (
            _field(outputs, joined[0], count=EDGE_COUNT),
            _field(outputs, joined[0], count=EDGE_COUNT, first=DISPLACEMENT_CHANNELS),
        )
    if len(pair) != 2 or joined:
        raise _wrong_outputs(outputs, name)
    if "bwd" in outputs[pair[0]].name.lower() or "fwd" in outputs[pair[1]].name.lower():
        pair.reverse()
    return (
        _field(outputs, pair[0], count=EDGE_COUNT),
        _field(outputs, pair[1], count=EDGE_COUNT),
    )


def _field(outputs: Sequence[TensorSpec], index: int, *, count: int, first: int = 0) -> _Field:
    output = outputs[index]
    return _Field(index, first, count, output.shape[-1], output.scale, output.zero_point)


def _grid(size_wh: tuple[int, int], outputs: Sequence[TensorSpec], *, name: str) -> _Grid:
    """Return the cells of the outputs; their stride follows from the size of the input."""
    shape = outputs[0].shape
    if (
        any(len(output.shape) != 4 or output.shape[:3] != (1, *shape[1:3]) for output in outputs)
        or min(shape) < 1
        or min(shape[1:3]) < 2
    ):
        raise _wrong_outputs(outputs, name)
    rows, columns = shape[1], shape[2]
    spacing = ((size_wh[1] - 1) / (rows - 1), (size_wh[0] - 1) / (columns - 1))
    # 1280x720 with 81x46 cells is 15.98: the model pads its input to the next whole stride.
    stride = min(STRIDES, key=lambda stride: abs(stride - spacing[0]) + abs(stride - spacing[1]))
    if (
        abs(size_wh[1] - 1 - stride * (rows - 1)) >= stride
        or abs(size_wh[0] - 1 - stride * (columns - 1)) >= stride
    ):
        raise ModelShapeError(
            f"{name}: input is {size_wh[0]}x{size_wh[1]} and outputs have {columns}x{rows} cells, "
            f"expected an output stride of 8, 16 or 32, got {spacing[1]:.1f} and {spacing[0]:.1f}; "
            "this is another network, or its input size was changed without its outputs"
        )
    return _Grid(rows, columns, stride)


def _wrong_outputs(outputs: Sequence[TensorSpec], name: str) -> ModelShapeError:
    return ModelShapeError(
        f"{name}: outputs are {shapes_text(outputs)}, expected of {_WHAT} (1, rows, columns, C) "
        "with C = 17 (heatmaps), 34 (offsets), and 64 or twice 32 (displacements), of equal rows "
        "and columns; set model.kind to what the file is, or auto"
    )
