"""body_region, padded_region and eased_region."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.datatypes import CropRegion, Poses
from edgepose.imaging.crop import Part, body_region, eased_region, padded_region
from edgepose.pose_models._tensors import bounding_boxes
from edgepose.skeleton import KEYPOINT_NAMES

SIZE = (640, 480)


def standing(centre_x: float = 320.0, hips_y: float = 260.0) -> list[list[float]]:
    """Return a body 200 px tall, arms down."""
    rows = {"eye": -100, "ear": -95, "shoulder": -70, "elbow": -40, "wrist": -5, "hip": 0}
    rows |= {"knee": 50, "ankle": 100, "nose": -92}
    half = {"shoulder": 22, "elbow": 30, "wrist": 32, "hip": 15, "knee": 14, "ankle": 14}
    points = []
    for name in KEYPOINT_NAMES:
        side, _, part = name.partition("_")
        part = part or "nose"
        offset = half.get(part, 8) * {"left": 1, "right": -1}.get(side, 0)
        points.append([centre_x + offset, hips_y + rows[part]])
    return points


def region_of(points: Sequence[Sequence[float]], scores: Sequence[float]) -> CropRegion | None:
    keypoints, keypoint_scores = np.array([points], np.float32), np.array([scores], np.float32)
    boxes = bounding_boxes(keypoints, keypoint_scores)
    return body_region(Poses(keypoints, keypoint_scores, keypoint_scores[:, 0], boxes), SIZE)


def test_body_region_standing_body() -> None:
    """The region is a square around the hips with the whole body in it."""
    region = region_of(standing(), [0.8] * 17)
    assert region is not None
    assert region.x_max - region.x_min == pytest.approx(region.y_max - region.y_min)
    # The torso is 70 px from the hips, the ankles and eyes 100: 1.9 x 70 beats 1.2 x 100.
    assert region.y_max - region.y_min == pytest.approx(2 * 1.9 * 70)
    assert (region.x_min + region.x_max) / 2 == pytest.approx(320)


def test_body_region_raised_arm() -> None:
    """A visible raised arm enlarges the region."""
    points = standing()
    points[KEYPOINT_NAMES.index("left_wrist")] = [330.0, 100.0]
    region = region_of(points, [0.8] * 17)
    assert region is not None
    assert region.y_max - region.y_min == pytest.approx(2 * 1.2 * 160)


def test_body_region_low_score_keypoint() -> None:
    """A keypoint with a low score does not enlarge the region."""
    points, scores = standing(), [0.8] * 17
    points[9], scores[9] = [639.0, 0.0], 0.1
    assert region_of(points, scores) == region_of(standing(), [0.8] * 17)


@pytest.mark.parametrize("hidden", [("hip",), ("shoulder",)])
def test_body_region_without_torso(hidden: tuple[str, ...]) -> None:
    """Without a visible hip or shoulder it is 1.5 times the box of the visible keypoints."""
    scores = [0.1 if name.endswith(hidden) else 0.9 for name in KEYPOINT_NAMES]
    # From the eyes, 100 px above the hips, to the ankles, 100 px below them.
    assert region_of(standing(), scores) == CropRegion(170, 110, 470, 410)


def test_body_region_head_and_shoulders() -> None:
    """Of a person whose hips are outside the frame, the square is around what is visible."""
    scores = [0.9 if index <= 6 else 0.1 for index in range(17)]
    # The shoulders are 44 px apart, the eyes 30 px above them.
    assert region_of(standing(), scores) == CropRegion(287, 142, 353, 208)


@pytest.mark.parametrize(("visible", "has_region"), [(2, False), (3, True)])
def test_body_region_of_few_keypoints(visible: int, has_region: bool) -> None:
    scores = [0.9] * visible + [0.1] * (17 - visible)
    assert (region_of(standing(), scores) is not None) == has_region


def test_body_region_one_hip_and_shoulder() -> None:
    """One hip and one shoulder are sufficient."""
    scores = [0.9] * 17
    for name in ("left_hip", "right_shoulder"):
        scores[KEYPOINT_NAMES.index(name)] = 0.0
    assert region_of(standing(), scores) is not None


def test_body_region_body_fills_frame() -> None:
    """A body as large as the frame gives no region."""
    points = [[x * 3 - 460, y * 3 - 500] for x, y in standing()]
    assert region_of(points, [0.9] * 17) is None


@given(
    st.lists(st.tuples(st.floats(-50, 700), st.floats(-50, 530)), min_size=17, max_size=17),
    st.lists(st.floats(0, 1), min_size=17, max_size=17),
)
def test_body_region_random_poses(points: list[tuple[float, float]], scores: list[float]) -> None:
    """A region is a square, at least 2 px and at most the frame's longer side."""
    region = region_of(points, scores)
    if region is not None:
        width, height = region.x_max - region.x_min, region.y_max - region.y_min
        assert width == pytest.approx(height, rel=1e-6)
        assert 2 <= width <= 640.001


def test_padded_region_centred() -> None:
    """The frame is centred in the smallest square around it."""
    region = padded_region((640, 480), (192, 192), centred=True)
    assert (region.x_min, region.y_min, region.x_max, region.y_max) == (0, -80, 640, 560)


def test_padded_region_upper_left() -> None:
    """The frame is in the upper left corner, the padding on the right."""
    region = padded_region((360, 640), (192, 256), centred=False)
    assert (region.x_min, region.y_min, region.x_max, region.y_max) == (0, 0, 480, 640)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ((0.0, 0.0, 1.0, 1.0), (0, -80, 640, 560)),
        ((0.25, 0.25, 0.5, 0.5), (160, 100, 320, 260)),
        # Rather within the frame than centred.
        ((0.5, 0.0, 1.0, 0.25), (320, 0, 640, 320)),
        ((0.75, 0.75, 1.0, 1.0), (480, 320, 640, 480)),
        # Higher than the frame: centred.
        ((0.1, 0.4, 0.9, 0.6), (64, -16, 576, 496)),
    ],
)
def test_padded_region_of_a_part_of_the_frame(part: Part, expected: tuple[float, ...]) -> None:
    region = padded_region((640, 480), (192, 192), centred=True, part=part)
    edges = (region.x_min, region.y_min, region.x_max, region.y_max)
    assert edges == pytest.approx(expected)


@pytest.mark.parametrize(
    ("elapsed_ms", "x_min", "side"),
    [
        # A third of the way after half of 0.2 s, half of it after 0.2 s.
        (100, 106, 206),
        (200, 104.5, 204.5),
        # Without time nothing moves, but it is never off by more than a tenth of the side.
        (0, 109, 209),
        (-50, 109, 209),
    ],
)
def test_eased_region_between_the_last_one_and_the_wanted_one(
    elapsed_ms: int, x_min: float, side: float
) -> None:
    last, wanted = CropRegion(109, 50, 318, 259), CropRegion(100, 50, 300, 250)
    eased = eased_region(last, wanted, elapsed_ms * 1_000_000)
    edges = (eased.x_min, eased.y_min, eased.x_max, eased.y_max)
    assert edges == pytest.approx((x_min, 50, x_min + side, 50 + side))


def test_eased_region_is_never_far_from_the_wanted_one() -> None:
    """A person who jumps to another place is in the crop at once."""
    last, wanted = CropRegion(500, 50, 600, 150), CropRegion(100, 50, 300, 250)
    eased = eased_region(last, wanted, 33_000_000)
    edges = (eased.x_min, eased.y_min, eased.x_max, eased.y_max)
    # The centre is off by 20 px to the right and upwards, half of the side by 20 px.
    assert edges == pytest.approx((140, 50, 300, 210))
    assert eased_region(None, wanted, 0) == wanted
