"""The posture of bodies whose angles are known."""

import numpy as np
import pytest

from edgepose.datatypes import Poses, Posture, TrackedPoses
from edgepose.events.posture import POSTURES, LogisticPostures, posture_probabilities
from edgepose.events.posture_features import FEATURE_NAMES, posture_features
from edgepose.skeleton import MIRRORED
from tests.bodies import MS
from tests.kinematics import (
    BENDING,
    CRAWLING,
    CROUCHING,
    ON_BACK,
    ON_FRONT,
    ON_LEFT_SIDE,
    ON_RIGHT_SIDE,
    SITTING,
    STANDING,
    Camera,
    Points,
    Stance,
    body,
    measured,
    random_stance,
    random_view,
)

LEGS = (13, 14, 15, 16)


def seen(stance: Stance, heading: float = 45.0, camera: Camera | None = None) -> Points:
    """Return the keypoints (17, 3) of a body before a camera, all with a score of 0.6."""
    points = (camera or Camera()).project(body(stance, heading=heading))
    return np.column_stack((points, np.full(17, 0.6)))


def tracked(*keypoints: Points, first_id: int = 1) -> TrackedPoses:
    """Return tracked poses with the scores of their keypoints."""
    points = np.array(keypoints, np.float32).reshape(-1, 17, 3)
    poses = Poses(
        points[:, :, :2],
        points[:, :, 2],
        np.full(len(points), 0.6, np.float32),
        np.concatenate((points[:, :, :2].min(axis=1), points[:, :, :2].max(axis=1)), axis=1),
    )
    return TrackedPoses(poses, np.arange(first_id, first_id + len(points), dtype=np.int64))


def posture_of(keypoints: Points) -> str:
    """Return the posture of a pose that is seen for the first time."""
    (posture,) = LogisticPostures().update(tracked(keypoints), 0)
    return posture.name


def features_of(keypoints: Points) -> dict[str, float]:
    """Return the features of keypoints by name."""
    values = posture_features(keypoints[:, :2].tolist(), keypoints[:, 2].tolist())
    return dict(zip(FEATURE_NAMES, values, strict=True))


def test_features_standing_body() -> None:
    """A body that stands upright has vertical limbs, straight joints and its ankles lowest."""
    features = features_of(seen(STANDING, camera=Camera(height_m=0.8)))
    assert features == pytest.approx(
        {
            "torso_level": 0.0,
            "thighs_down": 1.0,
            "shins_down": 1.0,
            "hips_straight": 1.0,
            "knees_straight": 1.0,
            "body_down": 1.0,
            # Thigh and shin of 0.491 and a head 0.111 above a torso of 0.288 body heights.
            "ankles_below_hips": 0.491 / 0.288,
            "ankles_below_knees": 0.246 / 0.288,
            "head_above_shoulders": 0.116 / 0.288,
            "wide": features["wide"],
            "foreshortened": features["foreshortened"],
            "ankles_visible": 1.0,
        },
        abs=0.05,
    )
    assert features["wide"] < -1
    assert features["foreshortened"] == pytest.approx(0.16 / (0.16 + 0.288), abs=0.03)


def test_features_do_not_depend_on_place_size_or_side() -> None:
    """A body elsewhere, nearer, or in a mirror has the same features."""
    keypoints = seen(SITTING)
    other = keypoints[list(MIRRORED)] * (-3, 3, 1) + (900, 40, 0)
    assert features_of(other) == pytest.approx(features_of(keypoints), abs=1e-4)


def test_features_ignore_a_keypoint_without_score() -> None:
    """A knee with a score of 0 counts nothing, wherever it is; the other one counts for both."""
    keypoints = seen(STANDING)
    keypoints[13, 2] = 0
    moved = keypoints.copy()
    moved[13, :2] += 300
    assert features_of(moved) == pytest.approx(features_of(keypoints), abs=1e-4)


@pytest.mark.parametrize("heading", [-90, -45, 0, 45, 90, 180])
@pytest.mark.parametrize(
    ("name", "stance"),
    [
        ("standing", STANDING),
        ("standing", Stance(hip=(30, -20), knee=(20, 15), arm=90)),
        ("sitting", SITTING),
    ],
)
def test_posture_upright_from_every_side(name: str, stance: Stance, heading: float) -> None:
    """Standing, a step and sitting are recognized from every side by a camera of 1.2 m."""
    assert posture_of(seen(stance, heading, Camera(height_m=1.2))) == name


@pytest.mark.parametrize("stance", [ON_BACK, ON_FRONT, ON_LEFT_SIDE, ON_RIGHT_SIDE])
@pytest.mark.parametrize("heading", [70, 90, 110, -70, -90, -110])
def test_posture_lying_across_the_frame(stance: Stance, heading: float) -> None:
    """A body that lies across the frame is lying, on its back, its front or a side."""
    turned = heading + 90 if stance.roll else heading
    assert posture_of(seen(stance, turned)) == "lying"


@pytest.mark.parametrize("stance", [BENDING, CROUCHING, CRAWLING])
def test_posture_bending_from_the_side(stance: Stance) -> None:
    """Bending, crouching and crawling are one posture, and not lying."""
    assert posture_of(seen(stance, 90)) == "bending"


def test_posture_many_bodies() -> None:
    """Of random bodies, views and errors few are wrong, and hardly one stands for lying."""
    rng = np.random.default_rng(7)
    right = wrong = exchanged = 0
    for name in POSTURES:
        for _ in range(100):
            found = posture_of(measured(random_view(random_stance(name, rng), rng), rng))
            right += found == name
            wrong += found not in (name, "unclear")
            exchanged += {found, name} == {"standing", "lying"}
    assert right >= 330
    assert wrong <= 40
    assert exchanged <= 1


def test_posture_unclear_without_legs() -> None:
    """An upper body may stand or sit: without a visible knee the posture is unclear."""
    keypoints = seen(STANDING)
    keypoints[LEGS, 2] = 0.1
    assert posture_of(keypoints) == "unclear"


def test_posture_of_legs_with_low_scores() -> None:
    """Legs with scores that a threshold of 0.3 would drop still count."""
    keypoints = seen(STANDING)
    keypoints[LEGS, 2] = 0.2
    assert posture_of(keypoints) == "standing"


def test_probabilities_add_up() -> None:
    """The probabilities of the four postures add up to 1."""
    keypoints = seen(CROUCHING, 20)
    probabilities = posture_probabilities(keypoints[:, :2].tolist(), keypoints[:, 2].tolist())
    assert sum(probabilities) == pytest.approx(1)


def test_probabilities_of_keypoints_at_one_place() -> None:
    """Keypoints that all are at one place are no division by zero."""
    probabilities = posture_probabilities([(5.0, 5.0)] * 17, [0.5] * 17)
    assert sum(probabilities) == pytest.approx(1)


def test_estimator_averages_over_time() -> None:
    """One frame with another posture changes nothing; after half a second the new one counts."""
    estimator = LogisticPostures()
    for ms in range(0, 500, 100):
        estimator.update(tracked(seen(STANDING)), ms * MS)
    found = [estimator.update(tracked(seen(SITTING)), ms * MS)[0] for ms in (500, 600, 1000)]
    assert [posture.name for posture in found] == ["standing", "unclear", "sitting"]
    assert found[2].score > 0.8


def test_estimator_keeps_tracks_apart() -> None:
    """Each track has its own posture, and an unknown one begins with what it shows."""
    estimator = LogisticPostures()
    estimator.update(tracked(seen(STANDING), seen(ON_BACK, 90)), 0)
    found = estimator.update(tracked(seen(STANDING), seen(ON_BACK, 90), seen(SITTING)), 100 * MS)
    assert [posture.name for posture in found] == ["standing", "lying", "sitting"]


def test_estimator_forgets() -> None:
    """A track that was not seen for 2 s begins anew, and all do after a reset."""
    estimator = LogisticPostures()
    estimator.update(tracked(seen(STANDING)), 0)
    estimator.reset()
    assert estimator.update(tracked(seen(SITTING)), 0)[0].name == "sitting"
    estimator.update(tracked(), 2000 * MS)
    assert estimator.update(tracked(seen(STANDING)), 2001 * MS)[0].name == "standing"


def test_estimator_no_pose() -> None:
    """A frame without poses has no postures."""
    empty: tuple[Posture, ...] = ()
    assert LogisticPostures().update(tracked(), 0) == empty
