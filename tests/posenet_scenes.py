"""PoseNet outputs computed from known people, and a decoder written from the algorithm alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import TensorSpec

Doubles = NDArray[np.float64]

TREE = {
    0: (1, 2, 5, 6), 1: (3,), 2: (4,), 5: (7, 11), 7: (9,), 11: (13,), 13: (15,),
    6: (8, 12), 8: (10,), 12: (14,), 14: (16,),
}  # fmt: skip
EDGES = (
    (0, 1), (1, 3), (0, 2), (2, 4), (0, 5), (5, 7), (7, 9), (5, 11),
    (11, 13), (13, 15), (0, 6), (6, 8), (8, 10), (6, 12), (12, 14), (14, 16),
)  # fmt: skip
FLOAT_NAMES = ("heatmap_2/BiasAdd", "offset_2/BiasAdd", "displacement_fwd_2", "displacement_bwd_2")


@dataclass(frozen=True)
class Person:
    """`points_yx` (17, 2) in input px counted from the middle of the first pixel; one score."""

    points_yx: Doubles
    score: float


@dataclass(frozen=True)
class Outputs:
    """The outputs of a PoseNet as real values, (rows, columns, channels)."""

    heatmaps: Doubles
    offsets: Doubles
    forward: Doubles
    backward: Doubles
    stride: int

    @property
    def size_wh(self) -> tuple[int, int]:
        rows, columns = self.heatmaps.shape[:2]
        return (columns - 1) * self.stride + 1, (rows - 1) * self.stride + 1

    def tensors(self) -> list[NDArray[np.float32]]:
        """Return the four tensors of a float file: heatmaps, offsets, forward, backward."""
        fields = (self.heatmaps, self.offsets, self.forward, self.backward)
        return [field.astype(np.float32)[np.newaxis] for field in fields]

    def specs(self) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name, tensor.shape, tensor.dtype)
            for name, tensor in zip(FLOAT_NAMES, self.tensors(), strict=True)
        )


def draw(people: Sequence[Person], *, rows: int, columns: int, stride: int) -> Outputs:
    """Return the outputs for exactly these people; the background has score 0."""
    heatmaps = np.full((rows, columns, 17), -12.0)
    offsets = np.zeros((rows, columns, 34))
    forward, backward = np.zeros((rows, columns, 32)), np.zeros((rows, columns, 32))
    for person in people:
        cells = np.rint(person.points_yx / stride).astype(int)
        for part, ((row, column), (y, x)) in enumerate(zip(cells, person.points_yx, strict=True)):
            heatmaps[row, column, part] = math.log(person.score / (1 - person.score))
            offsets[row, column, part] = y - row * stride
            offsets[row, column, 17 + part] = x - column * stride
        for edge, (parent, child) in enumerate(EDGES):
            vector = person.points_yx[child] - person.points_yx[parent]
            forward[(*cells[parent], [edge, 16 + edge])] = vector
            backward[(*cells[child], [edge, 16 + edge])] = -vector
    return Outputs(heatmaps, offsets, forward, backward, stride)


def reference_poses(
    outputs: Outputs, *, max_poses: int, root_score: float = 0.5, nms_radius_px: float = 20.0
) -> list[tuple[Doubles, Doubles, float]]:
    """Return (y, x) of 17 keypoints, their scores and the pose's, best first.

    A slow decoder: from every root the tree is followed by recursion.
    """
    probabilities = 1 / (1 + np.exp(-outputs.heatmaps))
    rows, columns, _ = probabilities.shape
    roots = [
        (float(probabilities[row, column, part]), row, column, part)
        for row in range(rows)
        for column in range(columns)
        for part in range(17)
        if probabilities[row, column, part] >= root_score
        and probabilities[row, column, part]
        == probabilities[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2, part].max()
    ]
    roots.sort(key=lambda root: -root[0])
    poses: list[tuple[Doubles, Doubles, float]] = []
    for score, row, column, part in roots:
        if len(poses) == max_poses:
            break
        at = (
            np.array((row, column)) * outputs.stride
            + outputs.offsets[row, column, [part, 17 + part]]
        )
        if any(math.dist(points[part], at) <= nms_radius_px for points, _, _ in poses):
            continue
        points, scores = np.full((17, 2), np.nan), np.full(17, np.nan)
        points[part], scores[part] = at, score
        _grow(outputs, probabilities, part, points, scores)
        alone = [
            scores[k]
            for k in range(17)
            if all(math.dist(other[k], points[k]) > nms_radius_px for other, _, _ in poses)
        ]
        poses.append((points, scores, sum(alone) / 17))
    return sorted(poses, key=lambda pose: -pose[2])


def _cell(outputs: Outputs, point: Doubles) -> tuple[int, int]:
    rows, columns, _ = outputs.heatmaps.shape
    row, column = np.floor(point / outputs.stride + 0.5).astype(int)
    return int(np.clip(row, 0, rows - 1)), int(np.clip(column, 0, columns - 1))


def _grow(
    outputs: Outputs, probabilities: Doubles, part: int, points: Doubles, scores: Doubles
) -> None:
    neighbours = [(child, outputs.forward, (part, child)) for child in TREE.get(part, ())]
    neighbours += [
        (parent, outputs.backward, (parent, part)) for parent in TREE if part in TREE[parent]
    ]
    for target, field, edge in neighbours:
        if not np.isnan(scores[target]):
            continue
        number = EDGES.index(edge)
        point = points[part] + field[(*_cell(outputs, points[part]), [number, 16 + number])]
        for _ in range(2):
            cell = _cell(outputs, point)
            point = (
                np.array(cell) * outputs.stride + outputs.offsets[(*cell, [target, 17 + target])]
            )
        points[target] = point
        scores[target] = probabilities[(*_cell(outputs, point), target)]
        _grow(outputs, probabilities, target, points, scores)
