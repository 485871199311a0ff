"""Object keypoint similarity, and OksTracker in the cases that it does not cover."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgepose.datatypes import Poses
from edgepose.skeleton import OKS_FALLOFFS
from edgepose.tracking.oks_tracker import OksTracker
from edgepose.tracking.similarity import keypoint_similarity, pose_similarity
from tests.bodies import BODY, MS, at, ids, random_poses
from tests.builders import poses_of


def with_scores(poses: Poses, scores: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Poses:
    return replace(poses, keypoint_scores=scores.astype(np.float32)[np.newaxis])


def slow_similarity(pose: Poses, other: Poses) -> float:
    """Return the similarity of two single poses, written from the formula."""
    seen = [k for k in range(17) if other.keypoint_scores[0, k] >= 0.3]
    shared = [k for k in seen if pose.keypoint_scores[0, k] >= 0.3]
    if len(shared) < 4:
        return 0.0
    xs, ys = other.keypoints[0, seen, 0], other.keypoints[0, seen, 1]
    area = max(float(xs.max() - xs.min()), 1.0) * max(float(ys.max() - ys.min()), 1.0)
    total = 0.0
    for k in shared:
        squared = math.dist(pose.keypoints[0, k], other.keypoints[0, k]) ** 2
        total += math.exp(-squared / (2 * area * (2 * OKS_FALLOFFS[k]) ** 2))
    return total / len(shared)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 4), m=st.integers(1, 4))
def test_keypoint_similarity_equals_formula(seed: int, n: int, m: int) -> None:
    """The result of a plain implementation of the formula, for random poses."""
    rng = np.random.default_rng(seed)
    poses, others = random_poses(rng, n), random_poses(rng, m)
    found = keypoint_similarity(poses, others)
    assert found.shape == (n, m)
    for i in range(n):
        for j in range(m):
            one, other = poses.select(np.array([i])), others.select(np.array([j]))
            assert found[i, j] == pytest.approx(slow_similarity(one, other), abs=1e-4)


@given(st.integers(0, 10_000), st.sampled_from((0.0, 0.2, 0.3, 0.9)))
def test_pose_similarity_equals_keypoint_similarity(seed: int, min_score: float) -> None:
    rng = np.random.default_rng(seed)
    pose, other = random_poses(rng, 1), random_poses(rng, 1)
    expected = keypoint_similarity(pose, other, min_score).item()
    assert pose_similarity(pose, other, min_score) == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_pose_similarity_to_a_pose_that_has_moved() -> None:
    """A shift is that of the other pose."""
    there = poses_of(at(0))
    here = poses_of(at(30, 12))
    assert pose_similarity(here, there, shift_xy=(30.0, 12.0)) == pytest.approx(1.0)
    assert pose_similarity(here, there, shift_xy=(0.0, 12.0)) == pytest.approx(
        pose_similarity(poses_of(at(30)), there)
    )


def test_keypoint_similarity_same_pose() -> None:
    """It is 1."""
    assert keypoint_similarity(poses_of(BODY), poses_of(BODY))[0, 0] == pytest.approx(1.0)


@given(factor=st.floats(0.05, 20.0), shift=st.floats(0.0, 40.0))
def test_keypoint_similarity_scaled_poses(factor: float, shift: float) -> None:
    """It does not depend on the size of the frame."""
    small = keypoint_similarity(poses_of(at(shift)), poses_of(BODY))
    scaled = keypoint_similarity(poses_of(at(shift) * factor), poses_of(BODY * factor))
    np.testing.assert_allclose(small, scaled, atol=1e-3)


@pytest.mark.parametrize(("visible", "similar"), [(3, 0.0), (4, 1.0)])
def test_keypoint_similarity_few_shared_keypoints(visible: int, similar: float) -> None:
    """It is 0 with fewer than four shared keypoints."""
    scores = np.where(np.arange(17) < visible, 0.9, 0.1)
    found = keypoint_similarity(with_scores(poses_of(BODY), scores), poses_of(BODY))
    assert found[0, 0] == pytest.approx(similar)


def test_keypoint_similarity_no_visible_keypoints() -> None:
    """It is 0, without a floating-point warning."""
    unseen = with_scores(poses_of(BODY), np.zeros(17))
    with np.errstate(all="raise"):
        assert keypoint_similarity(unseen, unseen)[0, 0] == 0.0


def test_oks_tracker_walker_at_low_frame_rate() -> None:
    """At 1.5 m/s and 5 fps a step is a sixth of the height: too far for keypoints alone."""
    tracker = OksTracker()
    for frame in range(10):
        assert ids(tracker.update(poses_of(at(32.0 * frame)), frame * 200 * MS)) == [1]
    assert keypoint_similarity(poses_of(at(32.0)), poses_of(BODY))[0, 0] < 0.2


def test_oks_tracker_body_at_frame_edge() -> None:
    """With fewer than four keypoints left in the frame, the track is kept by its box."""
    tracker = OksTracker()
    assert ids(tracker.update(poses_of(BODY), 0)) == [1]
    leaving = with_scores(poses_of(BODY), np.where(np.arange(17) < 3, 0.9, 0.1))
    assert ids(tracker.update(leaving, 33 * MS)) == [1]


def test_oks_tracker_same_boxes() -> None:
    """Two poses in the same box, one upside down, keep their ids when their order changes."""
    upside_down = BODY.copy()
    upside_down[:, 1] = BODY[:, 1].min() + BODY[:, 1].max() - BODY[:, 1]
    tracker = OksTracker()
    assert ids(tracker.update(poses_of(BODY, upside_down), 0)) == [1, 2]
    assert ids(tracker.update(poses_of(upside_down, BODY), 33 * MS)) == [2, 1]


def test_oks_tracker_boxes_match_only_the_rest() -> None:
    """A walker does not take the track of a person standing in the way."""
    tracker = OksTracker()
    assert ids(tracker.update(poses_of(at(0), at(40)), 0)) == [1, 2]
    assert ids(tracker.update(poses_of(at(32), at(41)), 200 * MS)) == [1, 2]


def test_oks_tracker_people_who_cross() -> None:
    """Two walkers at 5 fps who pass each other, one of them hidden on the way, keep their ids."""
    tracker = OksTracker()
    for frame in range(14):
        to_right, to_left = at(25.0 * frame), at(300.0 - 25.0 * frame)
        hidden = 5 <= frame <= 7
        poses = poses_of(to_left) if hidden else poses_of(to_right, to_left)
        assert ids(tracker.update(poses, frame * 200 * MS)) == ([2] if hidden else [1, 2])


def test_oks_tracker_hidden_walker_is_expected_further_on() -> None:
    """After 0.5 s behind a pillar a walker is continued where the velocity led, not a newcomer."""
    tracker = OksTracker()
    for frame in range(11):
        assert ids(tracker.update(poses_of(at(20.0 * frame)), frame * 100 * MS)) == [1]
    further_on, newcomer = at(300), at(150)
    assert ids(tracker.update(poses_of(newcomer, further_on), 1500 * MS)) == [2, 1]


def test_oks_tracker_hidden_walker_is_not_extrapolated_for_long() -> None:
    """After 0.6 s a track stays where it is: at 200 px/s, 120 px further on."""
    tracker = OksTracker()
    for frame in range(11):
        tracker.update(poses_of(at(20.0 * frame)), frame * 100 * MS)
    stopped, too_far = at(320), at(580)
    assert ids(tracker.update(poses_of(too_far, stopped), 2900 * MS)) == [2, 1]


def test_oks_tracker_velocity_without_shared_keypoints() -> None:
    """Frames in which neither shoulders nor hips are visible do not change the velocity."""
    tracker = OksTracker()
    for frame in range(11):
        poses = poses_of(at(20.0 * frame))
        if frame > 7:
            poses = with_scores(poses, np.where(np.arange(17) < 5, 0.9, 0.1))
        assert ids(tracker.update(poses, frame * 100 * MS)) == [1]
    assert ids(tracker.update(poses_of(at(150), at(300)), 1500 * MS)) == [2, 1]


@pytest.mark.parametrize(("x", "expected"), [(55, 1), (90, 2)])
def test_oks_tracker_reach_grows_with_time(x: int, expected: int) -> None:
    """A track that nothing overlaps is continued within 0.3 sizes of its box, and 2 more a second.

    The box has a size of 133 px: after 100 ms that is 67 px.
    """
    tracker = OksTracker()
    upright = np.array([(0, 0), (50, 10)] + 15 * [(25, 364)], np.float64)
    moved = upright + np.array((x, 0))
    assert ids(tracker.update(poses_of(upright), 0)) == [1]
    assert ids(tracker.update(poses_of(moved), 100 * MS)) == [expected]


def test_oks_tracker_sizes_too_different() -> None:
    """A child where an adult was is not the adult: the sizes of the boxes differ twofold."""
    tracker = OksTracker()
    assert ids(tracker.update(poses_of(BODY, at(1000)), 0)) == [1, 2]
    child = (BODY - BODY.mean(axis=0)) * 0.3 + BODY.mean(axis=0)
    assert ids(tracker.update(poses_of(child, at(1000)), 33 * MS)) == [3, 2]


def test_oks_tracker_pose_does_not_take_a_track_seen_just_now() -> None:
    """Of two who overlap, the hidden one appears when the other is missed: she has her own track.

    40 px from one frame to the next, 33 ms later, are too far; to a track hidden for 0.6 s they are
    not.
    """
    tracker = OksTracker()
    for frame in range(4):
        assert ids(tracker.update(poses_of(at(0), at(60)), frame * 33 * MS)) == [1, 2]
    for frame in range(4, 22):
        assert ids(tracker.update(poses_of(at(0)), frame * 33 * MS)) == [1]
    assert ids(tracker.update(poses_of(at(40)), 22 * 33 * MS)) == [2]


def test_oks_tracker_second_pose_of_the_same_body() -> None:
    """It is left out and starts no track, until it is far enough away to be another body."""
    tracker = OksTracker()
    assert ids(tracker.update(poses_of(BODY), 0)) == [1]
    poses = poses_of(at(8), at(1))
    tracked = tracker.update(poses, 33 * MS)
    assert ids(tracked) == [1]
    np.testing.assert_array_equal(tracked.poses.keypoints, poses.keypoints[1:])
    assert ids(tracker.update(poses_of(at(60), at(1)), 66 * MS)) == [2, 1]


def test_oks_tracker_pose_in_front_of_a_hidden_person() -> None:
    """Where a hidden person is expected exactly, the pose is still that of the visible one."""
    tracker = OksTracker()
    # One walks to the right; the other one, who stands there, sways by 2 px.
    for index in range(10):
        assert ids(tracker.update(poses_of(at(2 + 20 * index), at(244)), 100 * index * MS)) == [
            1,
            2,
        ]
    for index, place in ((10, 244), (11, 244), (12, 242), (13, 244)):
        assert ids(tracker.update(poses_of(at(place)), 100 * index * MS)) == [2]
