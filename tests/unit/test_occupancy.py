"""OccupancyDetector, on injected timestamps."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.events.occupancy import OccupancyDetector

MS = 1_000_000


def test_occupancy_one_visit() -> None:
    """Presence follows a person who enters and leaves, delayed by on and off delay."""
    occupancy = OccupancyDetector(on_delay_ms=300, off_delay_ms=1000)
    assert not occupancy.update(0, 0)
    assert not occupancy.update(1, 1000 * MS)
    assert not occupancy.update(1, 1200 * MS)
    assert occupancy.count == 0
    assert occupancy.update(1, 1300 * MS)
    assert occupancy.count == 1
    assert occupancy.present
    assert not occupancy.update(1, 5000 * MS)
    # One missed detection does not end presence.
    assert not occupancy.update(0, 5100 * MS)
    assert not occupancy.update(1, 5200 * MS)
    assert not occupancy.update(0, 9000 * MS)
    assert not occupancy.update(0, 9999 * MS)
    assert occupancy.update(0, 10_000 * MS)
    assert occupancy.count == 0
    assert not occupancy.present


def test_occupancy_false_positive_in_one_frame() -> None:
    """It changes nothing, at any frame rate."""
    for period_ms in (10, 33, 299, 301, 2000):
        occupancy = OccupancyDetector(on_delay_ms=300)
        for frame in range(20):
            assert not occupancy.update(int(frame == 7), frame * period_ms * MS)
            assert not occupancy.tick((frame * period_ms + period_ms - 1) * MS)


def test_occupancy_tick() -> None:
    """Time without frames can lower the count, but not raise it."""
    occupancy = OccupancyDetector(on_delay_ms=300, off_delay_ms=1000)
    occupancy.update(1, 0)
    assert not occupancy.tick(10_000 * MS)
    assert occupancy.update(1, 10_000 * MS)
    # The last frame had a person; a gap without frames does not mean that the person left.
    assert not occupancy.tick(60_000 * MS)
    assert not occupancy.update(0, 60_000 * MS)
    assert not occupancy.tick(60_999 * MS)
    assert occupancy.tick(61_000 * MS)
    assert occupancy.count == 0
    assert not occupancy.tick(62_000 * MS)


def test_occupancy_lost_camera() -> None:
    """The count is zero at once, and can rise again."""
    occupancy = OccupancyDetector(on_delay_ms=0)
    assert not occupancy.lost(0)
    assert occupancy.update(2, MS)
    assert occupancy.count == 2
    assert occupancy.lost(2 * MS)
    assert occupancy.count == 0
    assert not occupancy.lost(3 * MS)
    assert occupancy.update(1, 4 * MS)
    assert occupancy.count == 1


def test_occupancy_lost_camera_discards_history() -> None:
    """Poses seen before the loss do not count afterwards."""
    occupancy = OccupancyDetector(on_delay_ms=300)
    occupancy.update(1, 0)
    occupancy.lost(100 * MS)
    assert not occupancy.update(1, 400 * MS)


def test_occupancy_second_person() -> None:
    """The count rises and falls, with a second between two changes."""
    occupancy = OccupancyDetector(on_delay_ms=300, off_delay_ms=1000)
    occupancy.update(1, 0)
    assert occupancy.update(1, 300 * MS)
    assert occupancy.count == 1
    assert not occupancy.update(2, 400 * MS)
    # Seen for long enough, but the count changed less than a second ago.
    assert not occupancy.update(2, 800 * MS)
    assert not occupancy.update(2, 1299 * MS)
    assert not occupancy.tick(1400 * MS)
    assert occupancy.update(2, 1400 * MS)
    assert occupancy.count == 2
    assert not occupancy.update(1, 5000 * MS)
    assert not occupancy.update(2, 5500 * MS)
    assert not occupancy.update(1, 6000 * MS)
    assert occupancy.tick(7000 * MS)
    assert occupancy.count == 1


def test_occupancy_earlier_timestamp() -> None:
    """It counts as the latest timestamp."""
    occupancy = OccupancyDetector(on_delay_ms=300)
    occupancy.update(1, 1000 * MS)
    assert not occupancy.update(1, 500 * MS)
    assert occupancy.update(1, 1300 * MS)


FRAMES = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 700)), max_size=120)


@given(FRAMES, st.integers(0, 800), st.integers(0, 1500))
def test_occupancy_random_frames(frames: list[tuple[int, int]], on_ms: int, off_ms: int) -> None:
    """Every change agrees with a plain evaluation of the whole history."""
    occupancy = OccupancyDetector(on_delay_ms=on_ms, off_delay_ms=off_ms)
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
        if not occupancy.update(count, now_ms * MS):
            # Presence itself is not delayed by the interval.
            assert published > 0 or min(counts(on_ms)) == 0
            assert published == 0 or max(counts(off_ms)) > 0
            continue
        new = occupancy.count
        assert new != published
        assert occupancy.present == (new > 0)
        if new > published:
            assert new <= count
            gaps_ms = [gap for gap, seen_count in sightings if seen_count >= new]
            # Time counts from the first sighting.
            first_ms = 0 if seen_at_change >= new or not on_ms else gaps_ms[0]
            assert sum(gaps_ms) - first_ms >= on_ms
        else:
            assert new == max(counts(off_ms))
        if published and new:
            assert now_ms - changed_ms >= 1000
        published, changed_ms = new, now_ms


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
    changes_ms = [
        33 * frame for frame in range(300) if occupancy.update(int(frame % 3 > 0), 33 * frame * MS)
    ]
    assert len(changes_ms) == 1
    assert changes_ms[0] < 1500
    assert occupancy.count == 1
