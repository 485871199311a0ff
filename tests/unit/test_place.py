"""Where a person is: the feet, with less and less of the body visible, and the torso."""

import numpy as np
import pytest

from edgepose.events.place import feet, torso
from edgepose.skeleton import KEYPOINT_NAMES
from tests.bodies import BODY

BOX = (20.0, 5.0, 80.0, 195.0)
POINTS = BODY.tolist()


def scores(*hidden: str) -> list[float]:
    """Return scores of 0.9, but 0.1 for keypoints whose names end with one of these words."""
    return [0.1 if name.endswith(hidden) else 0.9 for name in KEYPOINT_NAMES]


def test_feet_of_a_body_with_fewer_and_fewer_keypoints() -> None:
    """Shoulders at y = 35, hips at 95, knees at 145, ankles at 190."""
    assert feet(POINTS, scores("-"), BOX) == (50, 190)
    assert feet(POINTS, scores("left_ankle"), BOX) == (38, 190)
    assert feet(POINTS, scores("right_ankle"), BOX) == (62, 190)
    assert feet(POINTS, scores("ankle"), BOX) == (50, 145 + 0.75 * 60)
    assert feet(POINTS, scores("ankle", "left_knee"), BOX) == (39, 145 + 0.75 * 60)
    assert feet(POINTS, scores("ankle", "knee"), BOX) == (50, 95 + 1.5 * 60)
    # Without the length of the torso: the lower side of the box.
    assert feet(POINTS, scores("ankle", "shoulder"), BOX) == (50, 195)
    assert feet(POINTS, scores("ankle", "knee", "hip"), BOX) == (50, 195)


def test_torso_of_a_body() -> None:
    """The middle of shoulders and hips, or of the box if one of them is hidden."""
    assert torso(POINTS, scores("ankle"), BOX) == (50, 65)
    assert torso(POINTS, scores("left_hip"), BOX) == (45, 65)
    assert torso(POINTS, scores("hip"), BOX) == (50, 100)


def test_feet_hardly_depend_on_what_is_visible() -> None:
    """Furniture that hides the legs moves a standing person by less than a tenth of the body."""
    places = [
        feet(POINTS, scores(*hidden), BOX) for hidden in (("-",), ("ankle",), ("ankle", "knee"))
    ]
    assert np.ptp(np.array(places), axis=0).max() < 0.1 * 190
    assert places[0] == pytest.approx((50, 190))
