"""Crop regions: the whole frame, and the surroundings of a pose.

The square around the hips and its constants are those of MoveNet's published use (tfjs-models
`pose-detection`, `movenet/crop_utils`): wide enough for the torso and for every keypoint that is
visible, raised arms included. The square around the visible keypoints is for bodies of which the
frame shows a part.
"""

from collections.abc import Sequence
from typing import Final

from edgepose.datatypes import CropRegion
from edgepose.skeleton import LEFT_HIP, LEFT_SHOULDER, RIGHT_HIP, RIGHT_SHOULDER

MIN_CROP_SCORE: Final = 0.2
"""A keypoint counts for the crop region if its score reaches this."""
TORSO_EXPANSION: Final = 1.9
BODY_EXPANSION: Final = 1.2
BOX_EXPANSION: Final = 1.5
MIN_BOX_KEYPOINTS: Final = 3

_TORSO: Final = (LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP)


def padded_region(
    frame_size_wh: tuple[int, int], tensor_size_wh: tuple[int, int], *, centred: bool
) -> CropRegion:
    """Return the smallest region of the tensor's shape that contains the whole frame, in frame px.

    `centred` pads on both sides; otherwise the frame is in the upper left corner.
    """
    (width, height), (tensor_width, tensor_height) = frame_size_wh, tensor_size_wh
    region_width = max(width, height * tensor_width / tensor_height)
    region_height = max(height, width * tensor_height / tensor_width)
    left = (region_width - width) / 2 if centred else 0.0
    top = (region_height - height) / 2 if centred else 0.0
    return CropRegion(-left, -top, region_width - left, region_height - top)


def body_region(
    keypoints: Sequence[Sequence[float]], scores: Sequence[float], frame_size_wh: tuple[int, int]
) -> CropRegion | None:
    """Return the square crop region around a pose, or None if the whole frame is better.

    `keypoints` are 17 (x, y) in frame px and `scores` their scores. It is the square around the
    hips; if no torso is visible (a hip and a shoulder), or if that square is larger than the frame,
    1.5 times the box of the visible keypoints, of which there are at least 3. None is returned if
    that is larger too.
    """
    region = _around_hips(keypoints, scores, frame_size_wh)
    return region or _around_visible_keypoints(keypoints, scores, frame_size_wh)


def _around_hips(
    keypoints: Sequence[Sequence[float]], scores: Sequence[float], frame_size_wh: tuple[int, int]
) -> CropRegion | None:
    if not (
        max(scores[LEFT_HIP], scores[RIGHT_HIP]) >= MIN_CROP_SCORE
        and max(scores[LEFT_SHOULDER], scores[RIGHT_SHOULDER]) >= MIN_CROP_SCORE
    ):
        return None
    width, height = frame_size_wh
    centre_x = (keypoints[LEFT_HIP][0] + keypoints[RIGHT_HIP][0]) / 2
    centre_y = (keypoints[LEFT_HIP][1] + keypoints[RIGHT_HIP][1]) / 2
    # In plain floats: arrays of 17 numbers take three times as long (7 us on x86-64).
    distances = [max(abs(x - centre_x), abs(y - centre_y)) for x, y in keypoints]
    torso = max(distances[index] for index in _TORSO)
    body = max(d for d, score in zip(distances, scores, strict=True) if score >= MIN_CROP_SCORE)
    half = max(TORSO_EXPANSION * torso, BODY_EXPANSION * body)
    half = min(half, max(centre_x, width - centre_x, centre_y, height - centre_y))
    return _square(centre_x, centre_y, half, frame_size_wh)


def _around_visible_keypoints(
    keypoints: Sequence[Sequence[float]], scores: Sequence[float], frame_size_wh: tuple[int, int]
) -> CropRegion | None:
    visible = [p for p, score in zip(keypoints, scores, strict=True) if score >= MIN_CROP_SCORE]
    if len(visible) < MIN_BOX_KEYPOINTS:
        return None
    xs, ys = zip(*visible, strict=True)
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    half = BOX_EXPANSION * max(right - left, bottom - top) / 2
    return _square((left + right) / 2, (top + bottom) / 2, half, frame_size_wh)


def _square(
    centre_x: float, centre_y: float, half: float, frame_size_wh: tuple[int, int]
) -> CropRegion | None:
    if not 1.0 <= half <= max(frame_size_wh) / 2:
        return None
    return CropRegion(centre_x - half, centre_y - half, centre_x + half, centre_y + half)
