"""What every tracker must do, told as lives of tracks on an injected clock."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgepose.datatypes import Poses, TrackedPoses
from edgepose.protocols import Tracker
from edgepose.tracking.iou import IouTracker
from edgepose.tracking.oks import OksTracker
from tests.helpers import SECOND_NS, poses_of

MS = 1_000_000
TRACKERS: dict[str, Callable[..., Tracker]] = {
    "oks": OksTracker,
    "oks_alone": lambda **options: OksTracker(min_iou=None, **options),
    "iou": IouTracker,
}

every_tracker = pytest.mark.parametrize("make", TRACKERS.values(), ids=TRACKERS)
Body = NDArray[np.float64]

BODY: Body = np.array(
    [
        (50, 10), (54, 7), (46, 7), (58, 10), (42, 10), (66, 35), (34, 35), (74, 65), (26, 65),
        (76, 95), (24, 95), (60, 95), (40, 95), (61, 145), (39, 145), (62, 190), (38, 190),
    ],
    np.float64,
)  # fmt: skip
"""A person of 190 px who stands upright."""


def at(x: float, y: float = 0.0) -> Body:
    moved: Body = BODY + np.array((x, y))
    return moved


def ids(tracked: TrackedPoses) -> list[int]:
    found: list[int] = tracked.track_ids.tolist()
    return found


@every_tracker
def test_it_is_a_tracker(make: Callable[..., Tracker]) -> None:
    assert isinstance(make(), Tracker)


@every_tracker
def test_a_track_from_birth_to_death(make: Callable[..., Tracker]) -> None:
    tracker = make(max_age_ns=1000 * MS)
    now = SECOND_NS
    assert ids(tracker.update(Poses.empty(), now)) == []
    # Born, and followed along its walk.
    for step in range(30):
        now += 33 * MS
        assert ids(tracker.update(poses_of(at(3.0 * step)), now)) == [1]
    # Hidden for exactly as long as a track may be, by the clock and not by frames.
    for _ in range(9):
        now += 100 * MS
        assert ids(tracker.update(Poses.empty(), now)) == []
    now += 100 * MS
    assert ids(tracker.update(poses_of(at(90.0)), now)) == [1]
    # Gone for a moment longer: whoever comes then is somebody new.
    now += 1000 * MS + 1
    assert ids(tracker.update(poses_of(at(90.0)), now)) == [2]


@every_tracker
def test_a_gap_without_any_frame_ends_a_track_too(make: Callable[..., Tracker]) -> None:
    tracker = make(max_age_ns=500 * MS)
    assert ids(tracker.update(poses_of(BODY), 0)) == [1]
    assert ids(tracker.update(poses_of(BODY), 500 * MS)) == [1]
    assert ids(tracker.update(poses_of(BODY), 1001 * MS)) == [2]


@every_tracker
def test_ids_are_not_used_again_after_a_reset(make: Callable[..., Tracker]) -> None:
    tracker = make()
    assert ids(tracker.update(poses_of(BODY, at(300)), 0)) == [1, 2]
    tracker.reset()
    assert ids(tracker.update(poses_of(BODY, at(300)), 1)) == [3, 4]


@every_tracker
def test_two_people_keep_their_ids_when_their_order_changes(make: Callable[..., Tracker]) -> None:
    tracker = make()
    assert ids(tracker.update(poses_of(at(0), at(200)), 0)) == [1, 2]
    assert ids(tracker.update(poses_of(at(204), at(4)), 33 * MS)) == [2, 1]


@every_tracker
def test_one_leaves_and_the_other_keeps_their_id(make: Callable[..., Tracker]) -> None:
    tracker = make()
    assert ids(tracker.update(poses_of(at(0), at(200)), 0)) == [1, 2]
    assert ids(tracker.update(poses_of(at(200)), 33 * MS)) == [2]
    assert ids(tracker.update(poses_of(at(200), at(500)), 66 * MS)) == [2, 3]
    # The first one is still remembered.
    assert ids(tracker.update(poses_of(at(500), at(0)), 99 * MS)) == [3, 1]


@every_tracker
def test_somebody_far_away_is_somebody_else(make: Callable[..., Tracker]) -> None:
    tracker = make()
    assert ids(tracker.update(poses_of(at(0)), 0)) == [1]
    assert ids(tracker.update(poses_of(at(400)), 33 * MS)) == [2]


@every_tracker
def test_the_nearer_of_two_gets_the_track_though_it_comes_second(
    make: Callable[..., Tracker],
) -> None:
    """Matching pose after pose gave the track to the first that was near enough."""
    tracker = make()
    assert ids(tracker.update(poses_of(at(0)), 0)) == [1]
    assert ids(tracker.update(poses_of(at(6), at(1)), 33 * MS)) == [2, 1]


@every_tracker
def test_the_longest_unseen_are_forgotten_first(make: Callable[..., Tracker]) -> None:
    tracker = make(max_tracks=2)
    assert ids(tracker.update(poses_of(at(0)), 0)) == [1]
    assert ids(tracker.update(poses_of(at(200)), 10 * MS)) == [2]
    assert ids(tracker.update(poses_of(at(400)), 20 * MS)) == [3]
    assert ids(tracker.update(poses_of(at(0), at(200), at(400)), 30 * MS)) == [4, 2, 3]


@every_tracker
def test_more_poses_than_tracks_all_get_an_id(make: Callable[..., Tracker]) -> None:
    tracker = make()
    crowd = [at(150.0 * i) for i in range(25)]
    assert sorted(ids(tracker.update(poses_of(*crowd), 0))) == list(range(1, 26))


@every_tracker
def test_the_poses_themselves_are_untouched(make: Callable[..., Tracker]) -> None:
    tracker = make()
    for now in (0, 33 * MS):
        poses = poses_of(at(0), at(200))
        assert tracker.update(poses, now).poses is poses
        np.testing.assert_array_equal(poses.keypoints, poses_of(at(0), at(200)).keypoints)


@every_tracker
@pytest.mark.parametrize("options", [{"max_tracks": 0}, {"max_age_ns": -1}])
def test_limits_that_make_no_sense_are_refused(
    make: Callable[..., Tracker], options: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match="expected at least one track"):
        make(**options)


def random_poses(rng: np.random.Generator, count: int) -> Poses:
    """People anywhere, some overlapping, keypoints seen or not, each with a score of its own."""
    places = rng.uniform(0, 500, (count, 1, 2))
    keypoints = (BODY + places + rng.normal(0, 3, (count, 17, 2))).astype(np.float32)
    return Poses(
        keypoints,
        rng.uniform(0, 1, (count, 17)).astype(np.float32),
        rng.permutation(np.linspace(0.3, 0.9, count)).astype(np.float32),
        np.concatenate((keypoints.min(axis=1), keypoints.max(axis=1)), axis=1),
    )


@every_tracker
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.lists(st.integers(0, 8), min_size=1, max_size=6),
    gap_ms=st.integers(0, 700),
)
def test_order_does_not_matter_and_ids_are_unique(
    make: Callable[..., Tracker], seed: int, counts: list[int], gap_ms: int
) -> None:
    rng = np.random.default_rng(seed)
    straight, shuffled = make(), make()
    highest = 0
    for frame, count in enumerate(counts):
        poses, order = random_poses(rng, count), rng.permutation(count)
        now = frame * gap_ms * MS
        expected = straight.update(poses, now).track_ids
        found = shuffled.update(poses.select(order), now).track_ids
        np.testing.assert_array_equal(found, expected[order])
        assert len(set(expected.tolist())) == count
        new = sorted(set(expected.tolist()) - set(range(1, highest + 1)))
        assert new == list(range(highest + 1, highest + 1 + len(new)))
        highest += len(new)
