"""OccupancyDetector, on injected timestamps."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.events.occupancy import OccupancyChange, OccupancyDetector

MS = 1_000_000


def test_occupancy_one_visit() -> None:
    """Presence follows a person who enters and leaves, delayed by on and off delay."""
    occupancy = OccupancyDetector(on_delay_ms=300, off_delay_ms=1000)
    assert occupancy.update(0, 0) is None
    assert occupancy.update(1, 1000 * MS) is None
    assert occupancy.update(1, 1200 * MS) is None
    assert occupancy.count == 0
    assert occupancy.update(1, 1300 * MS) == OccupancyChange(1300 * MS, True, 1)
    assert occupancy.present
    assert occupancy.update(1, 5000 * MS) is None
    # One missed detection does not end presence.
    assert occupancy.update(0, 5100 * MS) is None
    assert occupancy.update(1, 5200 * MS) is None
    assert occupancy.update(0, 9000 * MS) is None
    assert occupancy.update(0, 9999 * MS) is None
    assert occupancy.update(0, 10_000 * MS) == OccupancyChange(10_000 * MS, False, 0)
    assert not occupancy.present


def test_occupancy_false_positive_in_one_frame() -> None:
    """It changes nothing, at any frame rate."""
    for period_ms in (10, 33, 299, 301, 2000):
        occupancy = OccupancyDetector(on_delay_ms=300)
        for frame in range(20):
            assert occupancy.update(int(frame == 7), frame * period_ms * MS) is None
            assert occupancy.tick((frame * period_ms + period_ms - 1) * MS) is None


def test_occupancy_tick() -> None:
    """Time without frames can lower the count, but not raise it."""
    occupancy = OccupancyDetector(on_delay_ms=300, off_delay_ms=1000)
    occupancy.update(1, 0)
    assert occupancy.tick(10_000 * MS) is None
    assert occupancy.update(1, 10_000 * MS) is not None
    # The last frame had a person; a gap without frames does not mean that the person left.
    assert occupancy.tick(60_000 * MS) is None
    assert occupancy.update(0, 60_000 * MS) is None
    assert occupancy.tick(60_999 * MS) is None
    assert occupancy.tick(61_000 * MS) == OccupancyChange(61_000 * MS, False, 0)
    assert occupancy.tick(62_000 * MS) is None


def test_occupancy_lost_camera() -> None:
    """The count is zero at once, and can rise again."""
    occupancy = OccupancyDetector(on_delay_ms=0)
    assert occupancy.lost(0) is None
    assert occupancy.update(2, MS) == OccupancyChange(MS, True, 2)
    assert occupancy.lost(2 * MS) == OccupancyChange(2 * MS, False, 0)
    assert occupancy.lost(3 * MS) is None
    assert occupancy.update(1, 4 * MS) == OccupancyChange(4 * MS, True, 1)


def test_occupancy_lost_camera_discards_history() -> None:
    """Poses seen before the loss do not count afterwards."""
    occupancy = OccupancyDetector(on_delay_ms=300)
    occupancy.update(1, 0)
    occupancy.lost(100 * MS)
    assert occupancy.update(1, 400 * MS) is None


def test_occupancy_second_person() -> None:
    """The count rises and falls, with `count_interval_ms` between two changes."""
    occupancy = OccupancyDetector(on_delay_ms=300, off_delay_ms=1000, count_interval_ms=1000)
    occupancy.update(1, 0)
    assert occupancy.update(1, 300 * MS) == OccupancyChange(300 * MS, True, 1)
    assert occupancy.update(2, 400 * MS) is None
    # Seen for long enough, but the count changed less than a second ago.
    assert occupancy.update(2, 800 * MS) is None
    assert occupancy.update(2, 1299 * MS) is None
    assert occupancy.tick(1400 * MS) is None
    assert occupancy.update(2, 1400 * MS) == OccupancyChange(1400 * MS, None, 2)
    assert occupancy.update(1, 5000 * MS) is None
    assert occupancy.update(2, 5500 * MS) is None
    assert occupancy.update(1, 6000 * MS) is None
    assert occupancy.tick(7000 * MS) == OccupancyChange(7000 * MS, None, 1)


def test_occupancy_earlier_timestamp() -> None:
    """It counts as the latest timestamp."""
    occupancy = OccupancyDetector(on_delay_ms=300)
    occupancy.update(1, 1000 * MS)
    assert occupancy.update(1, 500 * MS) is None
    assert occupancy.update(1, 1300 * MS) is not None


def test_occupancy_invalid_arguments() -> None:
    """Negative delays and counts raise ValueError."""
    with pytest.raises(ValueError, match="0 ms or more"):
        OccupancyDetector(on_delay_ms=-1)
    with pytest.raises(ValueError, match="0 or more poses"):
        OccupancyDetector().update(-1, 0)


FRAMES = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 700)), max_size=120)


@given(FRAMES, st.integers(0, 800), st.integers(0, 1500))
def test_occupancy_random_frames(frames: list[tuple[int, int]], on_ms: int, off_ms: int) -> None:
    """Every change agrees with a plain evaluation of the whole history."""
    occupancy = OccupancyDetector(on_delay_ms=on_ms, off_delay_ms=off_ms, count_interval_ms=1000)
    seen: list[tuple[int, int]] = [(-10_000, 0)]
    now_ms, published, changed_ms = 0, 0, -10_000
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
        change = occupancy.update(count, now_ms * MS)
        if change is None:
            # Presence itself is not delayed by the interval.
            assert published > 0 or min(counts(on_ms)) == 0
            assert published == 0 or max(counts(off_ms)) > 0
            continue
        assert change.timestamp_ns == now_ms * MS
        assert change.count != published
        if change.count > published:
            assert published < change.count <= count
            gaps_ms = [gap for gap, seen_count in sightings if seen_count >= change.count]
            # Time counts from the first sighting.
            first_ms = 0 if seen_at_change >= change.count or not on_ms else gaps_ms[0]
            assert sum(gaps_ms) - first_ms >= on_ms
        else:
            assert change.count == max(counts(off_ms))
        assert change.present == (
            None if bool(published) == bool(change.count) else change.count > 0
        )
        if published and change.count:
            assert now_ms - changed_ms >= 1000
        published, changed_ms = change.count, now_ms
        assert occupancy.count == published
        assert occupancy.present == (published > 0)


@pytest.mark.parametrize("fps", [5, 10, 15, 30])
@given(st.integers(0, 2**32))
def test_occupancy_noisy_detections(fps: int, seed: int) -> None:
    """Presence is right except for 1.5 s after each change of the truth.

    Up to every fifth frame misses the person; false positives are seconds apart. One in the second
    after a person left would keep presence on, as a real pose would.
    """
    random = Random(seed)
    occupancy = OccupancyDetector()
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
        occupancy.update(int(there != wrong), round(at_s * 1e9))
        if all(not 0 <= at_s - edge <= 1.5 for stretch in TRUTH for edge in stretch):
            assert occupancy.present == there, at_s


TRUTH = ((6.0, 20.1), (22.7, 45.2))


def test_occupancy_flickering_detection() -> None:
    """A person detected in two of three frames becomes present and stays so."""
    occupancy = OccupancyDetector()
    changes = [occupancy.update(int(frame % 3 > 0), frame * 33 * MS) for frame in range(300)]
    published = [change for change in changes if change is not None]
    assert [(change.present, change.count) for change in published] == [(True, 1)]
    assert published[0].timestamp_ns < 1500 * MS
