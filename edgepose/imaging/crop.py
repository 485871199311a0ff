"""Crop regions: the whole frame, and the surroundings of a pose.

The square around the hips and its constants are those of MoveNet's published use (tfjs-models
`pose-detection`, `movenet/crop_utils`): wide enough for the torso and for every keypoint that is
visible, raised arms included. The square around the visible keypoints is for bodies of which the
frame shows a part.
"""

import math
from collections.abc import Sequence
from typing import Final

from edgepose.datatypes import BOX_SCORE, CropRegion, Poses
from edgepose.skeleton import LEFT_HIP, LEFT_SHOULDER, RIGHT_HIP, RIGHT_SHOULDER

MIN_CROP_SCORE: Final = BOX_SCORE
"""A keypoint counts for the crop region if its score reaches this."""
TORSO_EXPANSION: Final = 1.9
BODY_EXPANSION: Final = 1.2
EASE_S: Final = 0.2
"""The time constant with which a crop region follows the wanted one."""
MAX_OFF: Final = 0.2
"""How far, in half sides, its centre or its half side may be off then."""
MAX_LEAN: Final = 70.0
"""Degrees by which a torso may lean before the crop is turned.

Beyond 45, or it would flicker there; persons who bend down, by up to 69, score less when turned.
"""
BOX_EXPANSION: Final = 1.5
MIN_BOX_KEYPOINTS: Final = 3

Part = tuple[float, float, float, float]
"""A part of the frame, x_min, y_min, x_max, y_max from 0 to 1."""
WHOLE: Final[Part] = (0.0, 0.0, 1.0, 1.0)

_TORSO: Final = (LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP)


def padded_region(
    frame_size_wh: tuple[int, int],
    tensor_size_wh: tuple[int, int],
    *,
    centred: bool,
    part: Part = WHOLE,
) -> CropRegion:
    """Return the smallest region of the tensor's shape that contains a part of the frame.

    It is in frame px and exceeds the frame no more than necessary: on both sides if `centred`, else
    on the right or below.
    """
    (width, height), (tensor_width, tensor_height) = frame_size_wh, tensor_size_wh
    x_min, y_min, x_max, y_max = part
    part_width, part_height = (x_max - x_min) * width, (y_max - y_min) * height
    region_width = max(part_width, part_height * tensor_width / tensor_height)
    region_height = max(part_height, part_width * tensor_height / tensor_width)
    left = _padded((x_min + x_max) / 2 * width, region_width, width, centred=centred)
    top = _padded((y_min + y_max) / 2 * height, region_height, height, centred=centred)
    return CropRegion(left, top, left + region_width, top + region_height)


def _padded(centre: float, extent: float, frame_extent: float, *, centred: bool) -> float:
    """Return where an extent begins, on one axis."""
    spare = frame_extent - extent
    if spare >= 0.0:
        return min(max(centre - extent / 2, 0.0), spare)
    return spare / 2 if centred else 0.0


def body_region(pose: Poses, frame_size_wh: tuple[int, int]) -> CropRegion | None:
    """Return the square crop region around the only pose, or None if the whole frame is better.

    It is the square around the hips; if no torso is visible (a hip and a shoulder), or if that
    square is larger than the frame, 1.5 times the box of the visible keypoints, of which there are
    at least 3. None is returned if that is larger too.
    """
    (keypoints,), (scores,), (box,) = pose.keypoint_list, pose.keypoint_score_list, pose.box_list
    if _has_torso(scores):
        region = _around_hips(keypoints, box, frame_size_wh)
        if region is not None:
            return region
    visible = sum([score >= MIN_CROP_SCORE for score in scores])
    return _around_box(box, frame_size_wh) if visible >= MIN_BOX_KEYPOINTS else None


def _around_hips(
    keypoints: Sequence[Sequence[float]], box: Sequence[float], frame_size_wh: tuple[int, int]
) -> CropRegion | None:
    width, height = frame_size_wh
    centre_x = (keypoints[LEFT_HIP][0] + keypoints[RIGHT_HIP][0]) / 2
    centre_y = (keypoints[LEFT_HIP][1] + keypoints[RIGHT_HIP][1]) / 2
    xs, ys = map(sorted, zip(*[keypoints[index] for index in _TORSO], strict=True))
    torso = max(xs[-1] - centre_x, centre_x - xs[0], ys[-1] - centre_y, centre_y - ys[0])
    left, top, right, bottom = box
    body = max(right - centre_x, centre_x - left, bottom - centre_y, centre_y - top)
    half = max(TORSO_EXPANSION * torso, BODY_EXPANSION * body)
    half = min(half, max(centre_x, width - centre_x, centre_y, height - centre_y))
    return _square(centre_x, centre_y, half, frame_size_wh)


def _around_box(box: Sequence[float], frame_size_wh: tuple[int, int]) -> CropRegion | None:
    left, top, right, bottom = box
    half = BOX_EXPANSION * max(right - left, bottom - top) / 2
    return _square((left + right) / 2, (top + bottom) / 2, half, frame_size_wh)


def _square(
    centre_x: float, centre_y: float, half: float, frame_size_wh: tuple[int, int]
) -> CropRegion | None:
    if not 1.0 <= half <= max(frame_size_wh) / 2:
        return None
    return CropRegion(centre_x - half, centre_y - half, centre_x + half, centre_y + half)


def eased_region(last: CropRegion | None, wanted: CropRegion, elapsed_ns: int) -> CropRegion:
    """Return a square between the last one and the wanted one, never far from that.

    A crop that moves with the jitter of the keypoints adds its own to it.
    """
    if last is None:
        return wanted
    rest = EASE_S / (EASE_S + max(elapsed_ns, 0) / 1e9)
    half = (wanted.x_max - wanted.x_min) / 2
    limit = MAX_OFF * half
    x = rest * (last.x_min + last.x_max - wanted.x_min - wanted.x_max) / 2
    y = rest * (last.y_min + last.y_max - wanted.y_min - wanted.y_max) / 2
    wider = rest * ((last.x_max - last.x_min) / 2 - half)
    if not (-limit <= x <= limit and -limit <= y <= limit and -limit <= wider <= limit):
        x, y, wider = (min(max(value, -limit), limit) for value in (x, y, wider))
    return CropRegion(
        wanted.x_min + x - wider,
        wanted.y_min + y - wider,
        wanted.x_max + x + wider,
        wanted.y_max + y + wider,
    )


def upright_turns(keypoints: Sequence[Sequence[float]], scores: Sequence[float], turns: int) -> int:
    """Return the clockwise quarter turns that put a body upright, from its shoulders to its hips.

    These are `turns`, its last ones, unless the torso is off by more than MAX_LEAN degrees; then it
    is one more or less.
    """
    if not _has_torso(scores):
        return turns
    x, y = torso_direction(keypoints)
    # Hips to the right of the shoulders are below them after one turn clockwise.
    degrees = math.degrees(math.atan2(x, y))
    lean = (degrees - 90 * turns + 180) % 360 - 180
    if abs(lean) <= MAX_LEAN:
        return turns
    return (turns + (1 if lean > 0 else 3)) % 4


def torso_direction(keypoints: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the way from the shoulders to the hips of one pose, twice as long: right and down."""
    x = keypoints[LEFT_HIP][0] + keypoints[RIGHT_HIP][0]
    x -= keypoints[LEFT_SHOULDER][0] + keypoints[RIGHT_SHOULDER][0]
    y = keypoints[LEFT_HIP][1] + keypoints[RIGHT_HIP][1]
    y -= keypoints[LEFT_SHOULDER][1] + keypoints[RIGHT_SHOULDER][1]
    return x, y


def _has_torso(scores: Sequence[float]) -> bool:
    """Whether a hip and a shoulder are visible."""
    return (scores[LEFT_HIP] >= MIN_CROP_SCORE or scores[RIGHT_HIP] >= MIN_CROP_SCORE) and (
        scores[LEFT_SHOULDER] >= MIN_CROP_SCORE or scores[RIGHT_SHOULDER] >= MIN_CROP_SCORE
    )
