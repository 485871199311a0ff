"""What distinguishes standing, sitting, lying and bending in the keypoints of one pose."""

from collections.abc import Sequence
from math import hypot, log, sqrt
from typing import Final

from edgepose.skeleton import (
    LEFT_ANKLE,
    LEFT_HIP,
    LEFT_KNEE,
    LEFT_SHOULDER,
    RIGHT_ANKLE,
    RIGHT_HIP,
    RIGHT_KNEE,
    RIGHT_SHOULDER,
)

FEATURE_NAMES: Final = (
    "torso_level",
    "thighs_down",
    "shins_down",
    "hips_straight",
    "knees_straight",
    "body_down",
    "ankles_below_hips",
    "ankles_below_knees",
    "head_above_shoulders",
    "wide",
    "foreshortened",
    "ankles_visible",
)
FULL_SCORE: Final = 0.25
"""Up to this score a keypoint counts in proportion to it, beyond in full."""

_LEGS: Final = (
    (LEFT_HIP, LEFT_KNEE, LEFT_ANKLE),
    (RIGHT_HIP, RIGHT_KNEE, RIGHT_ANKLE),
)
_HEAD: Final = slice(5)
_MIN_LIMB_SCORE: Final = 0.1
_TINY: Final = 1e-6

Points = Sequence[Sequence[float]]


def posture_features(points: Points, scores: Sequence[float]) -> tuple[float, ...]:
    """Return the features of one pose in the order of FEATURE_NAMES, each within about -1..1.

    `points` are its 17 keypoints, x and y in px, as measured; a low score lets a keypoint count
    less, and a feature is 0 without its keypoints. Directions are cosines to the vertical or
    between two limbs, heights are in parts of the longest of torso, thighs and shins.
    """
    shoulder_x, shoulder_y, shoulders = middle(points, scores, LEFT_SHOULDER, RIGHT_SHOULDER)
    hip_x, hip_y, hips = middle(points, scores, LEFT_HIP, RIGHT_HIP)
    _, knee_y, knees = middle(points, scores, LEFT_KNEE, RIGHT_KNEE)
    ankle_x, ankle_y, ankles = middle(points, scores, LEFT_ANKLE, RIGHT_ANKLE)
    torso_x, torso_y = hip_x - shoulder_x, hip_y - shoulder_y
    torso = hypot(torso_x, torso_y) + _TINY
    torso_weight = _weight(min(shoulders, hips))
    knee_weight, ankle_weight = _weight(knees), _weight(ankles)

    size = torso
    thigh_sum = shin_sum = _TINY
    thighs_down = shins_down = hips_straight = knees_straight = 0.0
    for hip, knee, ankle in _LEGS:
        (x0, y0), (x1, y1), (x2, y2) = points[hip], points[knee], points[ankle]
        thigh_x, thigh_y, shin_x, shin_y = x1 - x0, y1 - y0, x2 - x1, y2 - y1
        thigh, shin = hypot(thigh_x, thigh_y) + _TINY, hypot(shin_x, shin_y) + _TINY
        thigh_score = sqrt(scores[hip] * scores[knee])
        shin_score = min(scores[knee], scores[ankle])
        thigh_sum += thigh_score
        shin_sum += shin_score
        thighs_down += thigh_score * thigh_y / thigh
        shins_down += shin_score * shin_y / shin
        hips_straight += thigh_score * (torso_x * thigh_x + torso_y * thigh_y) / (torso * thigh)
        knees_straight += shin_score * (thigh_x * shin_x + thigh_y * shin_y) / (thigh * shin)
        if thigh_score > _MIN_LIMB_SCORE and thigh > size:
            size = thigh
        if shin_score > _MIN_LIMB_SCORE and shin > size:
            size = shin

    head_scores = scores[_HEAD]
    head_y = sum([score * y for score, (_, y) in zip(head_scores, points[_HEAD], strict=True)])
    head_y /= sum(head_scores) + _TINY
    body_x, body_y = ankle_x - shoulder_x, ankle_y - shoulder_y
    (x0, y0), (x1, y1) = points[LEFT_SHOULDER], points[RIGHT_SHOULDER]
    width = hypot(x1 - x0, y1 - y0)
    return (
        torso_weight * abs(torso_x) / torso,
        knee_weight * thighs_down / thigh_sum,
        ankle_weight * shins_down / shin_sum,
        knee_weight * hips_straight / thigh_sum,
        ankle_weight * knees_straight / shin_sum,
        ankle_weight * body_y / (hypot(body_x, body_y) + _TINY),
        ankle_weight * (ankle_y - hip_y) / size,
        ankle_weight * (ankle_y - knee_y) / size,
        _weight(max(head_scores)) * (shoulder_y - head_y) / size,
        _width_to_height(points, scores),
        torso_weight * width / (width + torso),
        ankle_weight,
    )


def _weight(score: float) -> float:
    return score / FULL_SCORE if score < FULL_SCORE else 1.0


def middle(
    points: Points, scores: Sequence[float], left: int, right: int
) -> tuple[float, float, float]:
    """Return x and y between two keypoints, nearer to the surer one, and the score of that."""
    left_score, right_score = scores[left] + _TINY, scores[right] + _TINY
    part = right_score / (left_score + right_score)
    (x0, y0), (x1, y1) = points[left], points[right]
    return x0 + part * (x1 - x0), y0 + part * (y1 - y0), max(left_score, right_score)


def _width_to_height(points: Points, scores: Sequence[float]) -> float:
    """Return the logarithm of the keypoints' spread across to that from top to bottom."""
    weight = x_sum = y_sum = xx_sum = yy_sum = _TINY
    x_origin, y_origin = points[LEFT_HIP]
    for (x, y), score in zip(points, scores, strict=True):
        x, y = x - x_origin, y - y_origin
        weight += score
        x_sum += score * x
        y_sum += score * y
        xx_sum += score * x * x
        yy_sum += score * y * y
    across = xx_sum - x_sum * x_sum / weight
    down = yy_sum - y_sum * y_sum / weight
    return 0.5 * log(max(across, _TINY) / max(down, _TINY))
