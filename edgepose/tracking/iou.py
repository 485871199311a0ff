"""The overlap of boxes."""

import numpy as np

from edgepose.datatypes import Floats, Poses


def box_iou(poses: Poses, others: Poses) -> Floats:
    """Return the intersection over union, 0..1, of the boxes of n poses and m others, (n, m)."""
    if len(poses) == 1 == len(others):
        # In plain floats, ten times as fast as in arrays of one.
        iou = _iou(poses.boxes_xyxy[0].tolist(), others.boxes_xyxy[0].tolist())
        return np.array([[iou]], np.float32)
    first, second = poses.boxes_xyxy[:, np.newaxis], others.boxes_xyxy[np.newaxis]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(
        first[..., :2], second[..., :2]
    )
    shared = np.maximum(sides, 0.0).prod(axis=2)
    areas = (first[..., 2:] - first[..., :2]).prod(axis=2) + (
        second[..., 2:] - second[..., :2]
    ).prod(axis=2)
    union = areas - shared
    iou_of_pairs: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0.0)
    return iou_of_pairs


def _iou(first: list[float], second: list[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0.0 or height <= 0.0:
        return 0.0
    shared = width * height
    areas = (first[2] - first[0]) * (first[3] - first[1]) + (second[2] - second[0]) * (
        second[3] - second[1]
    )
    return shared / (areas - shared)
