"""The angles at the joints of a body."""

import pytest

from edgepose.events.angles import JOINTS, joint_angle
from edgepose.skeleton import KEYPOINT_NAMES
from tests.bodies import BODY

STRONG = [0.9] * 17


@pytest.mark.parametrize(
    ("last", "expected"),
    [((0, 20), 180), ((20, 0), 90), ((-20, 0), 90), ((0, -20), 0), ((5, -5), 45)],
)
def test_joint_angle_is_that_between_both_limbs(last: tuple[int, int], expected: float) -> None:
    """Limbs at known angles: the length of neither counts, nor the side."""
    points = [(0.0, -10.0), (0.0, 0.0), (float(last[0]), float(last[1]))]
    assert joint_angle(points, STRONG, (0, 1, 2), 0.2) == pytest.approx(expected, abs=1e-4)


def test_joint_angle_of_a_weak_keypoint_is_none() -> None:
    points = [(0.0, -10.0), (0.0, 0.0), (0.0, 10.0)]
    for weak in range(3):
        scores = [0.2] * 3
        assert joint_angle(points, scores, (0, 1, 2), 0.2) == 180
        scores[weak] = 0.19
        assert joint_angle(points, scores, (0, 1, 2), 0.2) is None


def test_joint_angle_of_keypoints_at_one_place_is_none() -> None:
    points = [(5.0, 5.0), (5.0, 5.0), (0.0, 10.0)]
    assert joint_angle(points, STRONG, (0, 1, 2), 0.2) is None


def test_joint_angle_of_a_standing_body() -> None:
    """Straight legs, hanging arms; both sides are alike since the body is symmetrical."""
    angles = {
        name: joint_angle(BODY.tolist(), STRONG, joint, 0.2) for name, joint in JOINTS.items()
    }
    rounded = {name: round(angle) for name, angle in angles.items() if angle is not None}
    assert rounded == {
        "left_elbow": 169, "right_elbow": 169,
        "left_shoulder": 21, "right_shoulder": 21,
        "left_hip": 173, "right_hip": 173,
        "left_knee": 180, "right_knee": 180,
    }  # fmt: skip


def test_joints_have_the_joint_in_the_middle() -> None:
    for name, (_, middle, _) in JOINTS.items():
        assert KEYPOINT_NAMES[middle] == name
