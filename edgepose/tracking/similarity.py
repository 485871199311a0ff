"""Similarity of poses: by keypoints (OKS) and by boxes (IoU)."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from edgepose.datatypes import Floats, Poses
from edgepose.skeleton import OKS_FALLOFFS

MIN_KEYPOINT_SCORE: Final = 0.3
"""Keypoints are compared if their score reaches this in both poses."""
MIN_SHARED_KEYPOINTS: Final = 4
MAX_SIZE_RATIO: Final = 2.0

# The variance term 2 k^2, with k twice the keypoint's falloff.
_VARIANCES: Final = 2.0 * np.square(2.0 * np.array(OKS_FALLOFFS, np.float32))
_NEGATIVE_VARIANCES: Final = (-_VARIANCES).tolist()


def keypoint_similarity(
    poses: Poses, others: Poses, min_score: float = MIN_KEYPOINT_SCORE
) -> Floats:
    """Return the object keypoint similarity, 0..1, of n poses and m others, (n, m).

    The mean of exp(-d^2 / (2 area k^2)) over the keypoints whose score reaches `min_score` in both,
    0 if they are fewer than MIN_SHARED_KEYPOINTS; k is twice a keypoint's falloff, the area that of
    the box around the visible keypoints of the other pose (COCO's evaluation uses the area of the
    person's segmentation, which is not available here).
    """
    visible = others.keypoint_scores >= min_score
    shared = (poses.keypoint_scores >= min_score)[:, np.newaxis] & visible
    counts = np.count_nonzero(shared, axis=2)
    mask = visible[:, :, np.newaxis]
    extents = np.where(mask, others.keypoints, -np.inf).max(axis=1) - np.where(
        mask, others.keypoints, np.inf
    ).min(axis=1)
    # Without visible keypoints this is -inf, which must not multiply to +inf; a line has no area,
    # but with a width of 1 px there is no division by zero.
    np.maximum(extents, 1.0, out=extents)
    areas = (extents[:, 0] * extents[:, 1])[:, np.newaxis]
    squared = np.square(poses.keypoints[:, np.newaxis] - others.keypoints)
    # Not `sum(axis=3)`, which takes three times as long for two numbers.
    distances = squared[:, :, :, 0] + squared[:, :, :, 1]
    per_keypoint = np.exp(distances / (areas * -_VARIANCES)) * shared
    similarity: Floats = per_keypoint.sum(axis=2) / np.maximum(counts, 1)
    similarity[counts < MIN_SHARED_KEYPOINTS] = 0.0
    return similarity


def pose_similarity(
    pose: Poses,
    other: Poses,
    min_score: float = MIN_KEYPOINT_SCORE,
    shift_xy: tuple[float, float] = (0.0, 0.0),
) -> float:
    """Return the `keypoint_similarity` of one pose and another, which is moved by a shift in px.

    In plain floats: arrays of one pose take four times as long.
    """
    places, others = pose.keypoint_list[0], other.keypoint_list[0]
    scores, other_scores = pose.keypoint_score_list[0], other.keypoint_score_list[0]
    visible = [
        place for place, score in zip(others, other_scores, strict=True) if score >= min_score
    ]
    if len(visible) < MIN_SHARED_KEYPOINTS:
        return 0.0
    # Sorting takes less time than `min` and `max`.
    xs, ys = map(sorted, zip(*visible, strict=True))
    area = max(xs[-1] - xs[0], 1.0) * max(ys[-1] - ys[0], 1.0)
    shared, similarity, exp = 0, 0.0, math.exp
    right, down = shift_xy
    for (x, y), score, (other_x, other_y), other_score, variance in zip(
        places, scores, others, other_scores, _NEGATIVE_VARIANCES, strict=True
    ):
        if score >= min_score <= other_score:
            shared += 1
            dx = x - other_x - right
            dy = y - other_y - down
            # Not `** 2`, which calls a function of C.
            similarity += exp((dx * dx + dy * dy) / (area * variance))
    return similarity / shared if shared >= MIN_SHARED_KEYPOINTS else 0.0


def box_iou(poses: Poses, others: Poses) -> Floats:
    """Return the intersection over union, 0..1, of the boxes of n poses and m others, (n, m).

    In plain floats: most frames have one pose, for which arrays take a hundred times as long.
    """
    boxes = others.box_list
    ious = [[iou(box, other) for other in boxes] for box in poses.box_list]
    return np.array(ious, np.float32).reshape(len(poses), len(others))


def box_nearness(poses: Poses, others: Poses) -> Floats:
    """Return 1 - distance / size of the boxes of n poses and m others, at most 1, (n, m).

    The distance is that of their centres, the size the square root of the other box's area; -inf
    if the sizes differ by more than MAX_SIZE_RATIO.
    """
    boxes = others.box_list
    nearnesses = [[nearness(box, other) for other in boxes] for box in poses.box_list]
    return np.array(nearnesses, np.float32).reshape(len(poses), len(others))


def nearness(box: Sequence[float], other: Sequence[float]) -> float:
    """Return the nearness of two boxes x_min, y_min, x_max, y_max, see `box_nearness`."""
    size, other_size = math.sqrt(_area(box)), math.sqrt(_area(other))
    if not 0.0 < max(size, other_size) <= MAX_SIZE_RATIO * min(size, other_size):
        return -math.inf
    return 1.0 - math.dist(_centre(box), _centre(other)) / other_size


def _centre(box: Sequence[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the intersection over union of two boxes, see `box_iou`."""
    left, top, right, bottom = first
    other_left, other_top, other_right, other_bottom = second
    # `min` and `max` would take most of the time.
    width = min(other_right, right)
    width -= max(other_left, left)
    height = min(other_bottom, bottom)
    height -= max(other_top, top)
    if width <= 0.0 or height <= 0.0:
        return 0.0
    shared = width * height
    return shared / (_area(first) + _area(second) - shared)


def _area(box: Sequence[float]) -> float:
    left, top, right, bottom = box
    return (right - left) * (bottom - top) if right > left and bottom > top else 0.0
