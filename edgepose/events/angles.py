"""Angles at the joints of a body, in the image plane."""

from collections.abc import Mapping, Sequence
from math import acos, degrees, sqrt
from typing import Final

from edgepose.skeleton import KEYPOINT_NAMES

_LIMBS: Final = {
    "elbow": ("shoulder", "elbow", "wrist"),
    "shoulder": ("hip", "shoulder", "elbow"),
    "hip": ("shoulder", "hip", "knee"),
    "knee": ("hip", "knee", "ankle"),
}

JOINTS: Final[Mapping[str, tuple[int, int, int]]] = {
    f"{side}_{joint}": (
        KEYPOINT_NAMES.index(f"{side}_{names[0]}"),
        KEYPOINT_NAMES.index(f"{side}_{names[1]}"),
        KEYPOINT_NAMES.index(f"{side}_{names[2]}"),
    )
    for joint, names in _LIMBS.items()
    for side in ("left", "right")
}
"""For each joint the three keypoints whose angle it is, the joint in the middle."""

Points = Sequence[Sequence[float]]
"""The keypoints of one pose as plain numbers, x and y in px."""


def joint_angles(
    points: Points, scores: Sequence[float], min_score: float
) -> dict[str, float | None]:
    """Return the angle at each of JOINTS in degrees with one decimal, None as `joint_angle`."""
    angles = {name: joint_angle(points, scores, joint, min_score) for name, joint in JOINTS.items()}
    return {name: None if angle is None else round(angle, 1) for name, angle in angles.items()}


def joint_angle(
    points: Points, scores: Sequence[float], joint: tuple[int, int, int], min_score: float
) -> float | None:
    """Return the angle at a joint in degrees: 180 is straight, 0 folded.

    None if one of its three keypoints has a lower score than `min_score`, or two are at one place.
    """
    first, middle, last = joint
    if scores[first] < min_score or scores[middle] < min_score or scores[last] < min_score:
        return None
    x, y = points[middle]
    to_first_x, to_first_y = points[first][0] - x, points[first][1] - y
    to_last_x, to_last_y = points[last][0] - x, points[last][1] - y
    lengths = sqrt(
        (to_first_x * to_first_x + to_first_y * to_first_y)
        * (to_last_x * to_last_x + to_last_y * to_last_y)
    )
    if not lengths > 0:
        return None
    cosine = (to_first_x * to_last_x + to_first_y * to_last_y) / lengths
    return degrees(acos(max(-1.0, min(1.0, cosine))))
