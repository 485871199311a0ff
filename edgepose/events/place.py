"""Where a person is in the frame: the place of the feet, or of the torso."""

import math
from collections.abc import Sequence
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
from edgepose.util.polygon import Point

MIN_SCORE: Final = 0.2
"""A keypoint with a lower score is not visible. In poses of Lightning and Thunder, the feet of 111
annotated persons of COCO are off by more than a tenth of the body's size in 18 and 14 %; with a
minimum of 0.3 it is 25 and 18 %."""
FEET_BELOW_KNEES: Final = 0.75
FEET_BELOW_HIPS: Final = 1.5
"""In lengths of the torso. With ankles that are visible but left out, the median distance to them
is 0.06 of the body's size from the knees and 0.09 from the hips (133 annotated persons of COCO);
the foot line of a box that ends at the knees is off by 0.22, one that ends at the hips by 0.41."""

EDGE_PX: Final = 1e-3
"""Feet that are guessed below the frame are this much inside, as zones end where the frame does."""


def feet(
    keypoints: Sequence[Sequence[float]], scores: Sequence[float], box_xyxy: Sequence[float]
) -> Point:
    """Return where a person stands, in the unit of the keypoints.

    The middle of the visible ankles; else a point below the knees, else below the hips, by the
    length of the torso; else the middle of the lower side of the box.
    """
    ankles = _middle(keypoints, scores, LEFT_ANKLE, RIGHT_ANKLE)
    if ankles is not None:
        return ankles
    shoulders = _middle(keypoints, scores, LEFT_SHOULDER, RIGHT_SHOULDER)
    hips = _middle(keypoints, scores, LEFT_HIP, RIGHT_HIP)
    if shoulders is not None and hips is not None:
        length = math.dist(shoulders, hips)
        knees = _middle(keypoints, scores, LEFT_KNEE, RIGHT_KNEE)
        if knees is not None:
            return knees[0], knees[1] + FEET_BELOW_KNEES * length
        return hips[0], hips[1] + FEET_BELOW_HIPS * length
    return (box_xyxy[0] + box_xyxy[2]) / 2, box_xyxy[3]


def torso(
    keypoints: Sequence[Sequence[float]], scores: Sequence[float], box_xyxy: Sequence[float]
) -> Point:
    """Return the middle between the visible shoulders and hips, else that of the box."""
    shoulders = _middle(keypoints, scores, LEFT_SHOULDER, RIGHT_SHOULDER)
    hips = _middle(keypoints, scores, LEFT_HIP, RIGHT_HIP)
    if shoulders is not None and hips is not None:
        return (shoulders[0] + hips[0]) / 2, (shoulders[1] + hips[1]) / 2
    return (box_xyxy[0] + box_xyxy[2]) / 2, (box_xyxy[1] + box_xyxy[3]) / 2


PLACES: Final = {"feet": feet, "torso": torso}


def in_frame(place: Point, size_wh: tuple[int, int]) -> Point:
    """Return the nearest point that is in the frame, in px."""
    (x, y), (width, height) = place, size_wh
    return min(max(x, EDGE_PX), width - EDGE_PX), min(max(y, EDGE_PX), height - EDGE_PX)


def _middle(
    keypoints: Sequence[Sequence[float]], scores: Sequence[float], left: int, right: int
) -> Point | None:
    """Return the middle of the visible ones of two keypoints, None without any."""
    if scores[left] >= MIN_SCORE:
        x, y = keypoints[left]
        if scores[right] >= MIN_SCORE:
            return (x + keypoints[right][0]) / 2, (y + keypoints[right][1]) / 2
        return x, y
    if scores[right] >= MIN_SCORE:
        x, y = keypoints[right]
        return x, y
    return None
