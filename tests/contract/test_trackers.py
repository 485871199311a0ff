"""The contract of every tracker, on injected timestamps."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.datatypes import Poses, TrackedPoses
from edgepose.protocols import Tracker
from edgepose.tracking.oks_tracker import OksTracker
from tests.bodies import BODY, MS, at, ids, random_poses
from tests.builders import SECOND_NS, poses_of

TRACKERS: dict[str, Callable[..., Tracker]] = {"oks": OksTracker}

every_tracker = pytest.mark.parametrize("make", TRACKERS.values(), ids=TRACKERS)


def by_pose(tracked: TrackedPoses) -> dict[bytes, int]:
    """Return the id of each pose, by the bytes of its keypoints."""
    return {k.tobytes(): i for k, i in zip(tracked.poses.keypoints, ids(tracked), strict=True)}


@every_tracker
def test_tracker_protocol(make: Callable[..., Tracker]) -> None:
    """It implements the Tracker protocol."""
    assert isinstance(make(), Tracker)


@every_tracker
def test_tracker_track_lifetime(make: Callable[..., Tracker]) -> None:
    """A track is kept through a gap of at most `max_age_ns`, and replaced after it."""
    tracker = make(max_age_ns=1000 * MS)
    now = SECOND_NS
    assert ids(tracker.update(Poses.empty(), now)) == []
    # Created, and followed along its way.
    for step in range(30):
        now += 33 * MS
        assert ids(tracker.update(poses_of(at(3.0 * step)), now)) == [1]
    # Hidden for exactly the maximum age, by timestamps and not by frames.
    for _ in range(9):
        now += 100 * MS
        assert ids(tracker.update(Poses.empty(), now)) == []
    now += 100 * MS
    assert ids(tracker.update(poses_of(at(90.0)), now)) == [1]
    # Hidden for a nanosecond longer: a new track.
    now += 1000 * MS + 1
    assert ids(tracker.update(poses_of(at(90.0)), now)) == [2]


@every_tracker
def test_tracker_gap_without_frames(make: Callable[..., Tracker]) -> None:
    """The age counts by timestamps, also without frames in between."""
    tracker = make(max_age_ns=500 * MS)
    assert ids(tracker.update(poses_of(BODY), 0)) == [1]
    assert ids(tracker.update(poses_of(BODY), 500 * MS)) == [1]
    assert ids(tracker.update(poses_of(BODY), 1001 * MS)) == [2]


@every_tracker
def test_tracker_reset(make: Callable[..., Tracker]) -> None:
    """Ids continue after a reset."""
    tracker = make()
    assert ids(tracker.update(poses_of(BODY, at(300)), 0)) == [1, 2]
    tracker.reset()
    assert ids(tracker.update(poses_of(BODY, at(300)), 1)) == [3, 4]


@every_tracker
def test_tracker_order_of_poses_changes(make: Callable[..., Tracker]) -> None:
    """Ids follow the poses, not their order in the frame."""
    tracker = make()
    assert ids(tracker.update(poses_of(at(0), at(200)), 0)) == [1, 2]
    assert ids(tracker.update(poses_of(at(204), at(4)), 33 * MS)) == [2, 1]


@every_tracker
def test_tracker_one_of_two_leaves(make: Callable[..., Tracker]) -> None:
    """The other keeps its id, and the one that left gets its id back when it returns in time."""
    tracker = make()
    assert ids(tracker.update(poses_of(at(0), at(200)), 0)) == [1, 2]
    assert ids(tracker.update(poses_of(at(200)), 33 * MS)) == [2]
    assert ids(tracker.update(poses_of(at(200), at(500)), 66 * MS)) == [2, 3]
    # The track of the first one is still kept.
    assert ids(tracker.update(poses_of(at(500), at(0)), 99 * MS)) == [3, 1]


@every_tracker
def test_tracker_distant_pose(make: Callable[..., Tracker]) -> None:
    """A pose far from every track gets a new id."""
    tracker = make()
    assert ids(tracker.update(poses_of(at(0)), 0)) == [1]
    assert ids(tracker.update(poses_of(at(400)), 33 * MS)) == [2]


@every_tracker
def test_tracker_nearest_pose_wins(
    make: Callable[..., Tracker],
) -> None:
    """Matching one pose after the other would give the track to the first near enough."""
    tracker = make()
    assert ids(tracker.update(poses_of(at(0)), 0)) == [1]
    assert ids(tracker.update(poses_of(at(24), at(4)), 33 * MS)) == [2, 1]


@every_tracker
def test_tracker_max_tracks(make: Callable[..., Tracker]) -> None:
    """Above 18 tracks the one without a pose for the longest time is dropped."""
    tracker = make()
    crowd = [at(200.0 * index) for index in range(19)]
    for index, body in enumerate(crowd):
        assert ids(tracker.update(poses_of(body), index * MS)) == [index + 1]
    assert ids(tracker.update(poses_of(*crowd), 20 * MS)) == [20, *range(2, 20)]


@every_tracker
def test_tracker_more_poses_than_max_tracks(make: Callable[..., Tracker]) -> None:
    """All get an id."""
    tracker = make()
    crowd = [at(150.0 * i) for i in range(25)]
    assert sorted(ids(tracker.update(poses_of(*crowd), 0))) == list(range(1, 26))


@every_tracker
def test_tracker_returns_poses_unchanged(make: Callable[..., Tracker]) -> None:
    """The poses are returned as the same object, with the same values."""
    tracker = make()
    for now in (0, 33 * MS):
        poses = poses_of(at(0), at(200))
        assert tracker.update(poses, now).poses is poses
        np.testing.assert_array_equal(poses.keypoints, poses_of(at(0), at(200)).keypoints)


@every_tracker
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.lists(st.integers(0, 8), min_size=1, max_size=6),
    gap_ms=st.integers(0, 700),
)
def test_tracker_random_poses(
    make: Callable[..., Tracker], seed: int, counts: list[int], gap_ms: int
) -> None:
    """The order of poses does not change their ids; ids are unique and count up."""
    rng = np.random.default_rng(seed)
    straight, shuffled = make(), make()
    highest = 0
    for frame, count in enumerate(counts):
        poses, order = random_poses(rng, count), rng.permutation(count)
        now = frame * gap_ms * MS
        expected = by_pose(straight.update(poses, now))
        assert by_pose(shuffled.update(poses.select(order), now)) == expected
        found = set(expected.values())
        assert len(found) == len(expected) <= count
        new = sorted(found - set(range(1, highest + 1)))
        assert new == list(range(highest + 1, highest + 1 + len(new)))
        highest += len(new)
