"""The life of a head count, on a clock of its own."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.events.occupancy import OccupancyChange, OccupancyDetector

MS = 1_000_000


def test_a_visit_from_the_door_to_the_door() -> None:
    presence = OccupancyDetector(on_delay_ms=300, off_delay_ms=1000)
    assert presence.update(0, 0) is None
    assert presence.update(1, 1000 * MS) is None
    assert presence.update(1, 1200 * MS) is None
    assert presence.count == 0
    assert presence.update(1, 1300 * MS) == OccupancyChange(1300 * MS, True, 1)
    assert presence.present
    assert presence.update(1, 5000 * MS) is None
    # One missed detection is no leaving.
    assert presence.update(0, 5100 * MS) is None
    assert presence.update(1, 5200 * MS) is None
    assert presence.update(0, 9000 * MS) is None
    assert presence.update(0, 9999 * MS) is None
    assert presence.update(0, 10_000 * MS) == OccupancyChange(10_000 * MS, False, 0)
    assert not presence.present


def test_a_ghost_in_one_frame_switches_nothing_at_any_frame_rate() -> None:
    for period_ms in (10, 33, 299, 301, 2000):
        presence = OccupancyDetector(on_delay_ms=300)
        for frame in range(20):
            assert presence.update(int(frame == 7), frame * period_ms * MS) is None
            assert presence.tick((frame * period_ms + period_ms - 1) * MS) is None


def test_time_alone_lets_presence_fall_but_never_rise() -> None:
    presence = OccupancyDetector(on_delay_ms=300, off_delay_ms=1000)
    presence.update(1, 0)
    assert presence.tick(10_000 * MS) is None
    assert presence.update(1, 10_000 * MS) is not None
    # The last thing seen was somebody: that nothing came since is not that nobody is there.
    assert presence.tick(60_000 * MS) is None
    assert presence.update(0, 60_000 * MS) is None
    assert presence.tick(60_999 * MS) is None
    assert presence.tick(61_000 * MS) == OccupancyChange(61_000 * MS, False, 0)
    assert presence.tick(62_000 * MS) is None


def test_a_lost_camera_knows_nobody() -> None:
    presence = OccupancyDetector(on_delay_ms=0)
    assert presence.lost(0) is None
    assert presence.update(2, MS) == OccupancyChange(MS, True, 2)
    assert presence.lost(2 * MS) == OccupancyChange(2 * MS, False, 0)
    assert presence.lost(3 * MS) is None
    assert presence.update(1, 4 * MS) == OccupancyChange(4 * MS, True, 1)


def test_what_was_seen_before_the_camera_was_lost_does_not_count_afterwards() -> None:
    presence = OccupancyDetector(on_delay_ms=300)
    presence.update(1, 0)
    presence.lost(100 * MS)
    assert presence.update(1, 400 * MS) is None


def test_a_second_person_comes_and_leaves() -> None:
    presence = OccupancyDetector(on_delay_ms=300, off_delay_ms=1000, count_interval_ms=1000)
    presence.update(1, 0)
    assert presence.update(1, 300 * MS) == OccupancyChange(300 * MS, True, 1)
    assert presence.update(2, 400 * MS) is None
    # Long enough there, but the count changed less than a second ago.
    assert presence.update(2, 800 * MS) is None
    assert presence.update(2, 1299 * MS) is None
    assert presence.tick(1400 * MS) is None
    assert presence.update(2, 1400 * MS) == OccupancyChange(1400 * MS, None, 2)
    assert presence.update(1, 5000 * MS) is None
    assert presence.update(2, 5500 * MS) is None
    assert presence.update(1, 6000 * MS) is None
    assert presence.tick(7000 * MS) == OccupancyChange(7000 * MS, None, 1)


def test_a_timestamp_that_runs_back_counts_as_the_latest() -> None:
    presence = OccupancyDetector(on_delay_ms=300)
    presence.update(1, 1000 * MS)
    assert presence.update(1, 500 * MS) is None
    assert presence.update(1, 1300 * MS) is not None


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match="0 ms or more"):
        OccupancyDetector(on_delay_ms=-1)
    with pytest.raises(ValueError, match="0 or more poses"):
        OccupancyDetector().update(-1, 0)


FRAMES = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 700)), max_size=120)


@given(FRAMES, st.integers(0, 800), st.integers(0, 1500))
def test_what_it_says_is_always_backed_by_what_was_seen(
    frames: list[tuple[int, int]], on_ms: int, off_ms: int
) -> None:
    """Judged by a plain rereading of the whole history after each frame."""
    presence = OccupancyDetector(on_delay_ms=on_ms, off_delay_ms=off_ms, count_interval_ms=1000)
    seen: list[tuple[int, int]] = [(-10_000, 0)]
    now_ms, said, changed_ms = 0, 0, -10_000
    for count, gap_ms in frames:
        now_ms += gap_ms
        seen.append((now_ms, count))

        def counts(delay_ms: int, now_ms: int = now_ms) -> list[int]:
            start = max(i for i, (at, _) in enumerate(seen) if at <= now_ms - delay_ms)
            return [c for _, c in seen[start:]]

        sightings = [
            (later[0] - earlier[0], later[1])
            for earlier, later in pairwise(seen)
            if later[0] > changed_ms
        ]
        seen_at_change = next((c for at, c in seen if at == changed_ms), 0)
        change = presence.update(count, now_ms * MS)
        if change is None:
            # Nothing kept back that had to be said: presence follows at once.
            assert said > 0 or min(counts(on_ms)) == 0
            assert said == 0 or max(counts(off_ms)) > 0
            continue
        assert change.timestamp_ns == now_ms * MS
        assert change.count != said
        if change.count > said:
            assert said < change.count <= count
            gaps_ms = [gap for gap, seen_count in sightings if seen_count >= change.count]
            # Time counts from the first sighting.
            first_ms = 0 if seen_at_change >= change.count or not on_ms else gaps_ms[0]
            assert sum(gaps_ms) - first_ms >= on_ms
        else:
            assert change.count == max(counts(off_ms))
        assert change.present == (None if bool(said) == bool(change.count) else change.count > 0)
        if said and change.count:
            assert now_ms - changed_ms >= 1000
        said, changed_ms = change.count, now_ms
        assert presence.count == said
        assert presence.present == (said > 0)


@pytest.mark.parametrize("fps", [5, 10, 15, 30])
@given(st.integers(0, 2**32))
def test_agrees_with_the_truth_but_for_a_second_and_a_half_after_each_edge(
    fps: int, seed: int
) -> None:
    """Every fifth frame or fewer miss somebody; while nobody is there, ghosts are seconds apart.

    A ghost in the second after somebody left would hold presence up, as somebody seen would.
    """
    random = Random(seed)
    presence = OccupancyDetector()
    right = 0
    was_there = False
    for frame in range(50 * fps):
        at_s = frame / fps
        there = any(start <= at_s < end for start, end in TRUTH)
        right = right + 1 if there == was_there else 0
        was_there = there
        if there:
            wrong = right > 4 and random.random() < 0.5
        else:
            wrong = right > 3 * fps and random.random() < 0.5
        right *= not wrong
        presence.update(int(there != wrong), round(at_s * 1e9))
        if all(not 0 <= at_s - edge <= 1.5 for stretch in TRUTH for edge in stretch):
            assert presence.present == there, at_s


TRUTH = ((6.0, 20.1), (22.7, 45.2))


def test_a_flickering_detection_is_somebody_and_stays_one() -> None:
    """The life of a person at the edge of what the model sees: two frames of three."""
    presence = OccupancyDetector()
    changes = [presence.update(int(frame % 3 > 0), frame * 33 * MS) for frame in range(300)]
    told = [change for change in changes if change is not None]
    assert [(change.present, change.count) for change in told] == [(True, 1)]
    assert told[0].timestamp_ns < 1500 * MS
