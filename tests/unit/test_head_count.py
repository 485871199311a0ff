"""HeadCount, on injected timestamps."""

from hypothesis import given
from hypothesis import strategies as st

from edgepose.events.head_count import HeadCount

MS = 1_000_000


def test_head_count_rises_at_once_and_falls_later() -> None:
    """It falls after the off delay, counted from the first frame with fewer persons."""
    persons = HeadCount(1000 * MS)
    persons.update(1, 0)
    assert persons.value == 1
    # One missed detection changes nothing.
    persons.update(0, 5000 * MS)
    persons.update(1, 5100 * MS)
    persons.update(0, 9000 * MS)
    persons.update(0, 9999 * MS)
    assert persons.value == 1
    persons.update(0, 10_000 * MS)
    assert persons.value == 0


def test_head_count_second_person() -> None:
    """Between two changes above zero is at least a second."""
    persons = HeadCount(1000 * MS)
    persons.update(1, 0)
    persons.update(2, 999 * MS)
    assert persons.value == 1
    persons.tick(1500 * MS)
    assert persons.value == 1, "only a frame can raise it"
    persons.update(2, 1500 * MS)
    assert persons.value == 2
    persons.update(1, 5000 * MS)
    persons.update(2, 5500 * MS)
    persons.update(1, 6000 * MS)
    persons.tick(6999 * MS)
    assert persons.value == 2
    persons.tick(7000 * MS)
    assert persons.value == 1


def test_head_count_gap_without_frames() -> None:
    """The last frame had a person; a gap does not mean that the person left."""
    persons = HeadCount(1000 * MS)
    persons.update(1, 0)
    persons.tick(60_000 * MS)
    assert persons.value == 1
    persons.update(0, 60_000 * MS)
    persons.tick(60_999 * MS)
    assert persons.value == 1
    persons.tick(61_000 * MS)
    assert persons.value == 0


def test_head_count_clear() -> None:
    """It is zero at once, nothing before counts, and the next frame may raise it."""
    persons = HeadCount(1000 * MS)
    persons.update(2, 0)
    persons.clear()
    assert persons.value == 0
    persons.tick(MS)
    assert persons.value == 0
    persons.update(1, 2 * MS)
    assert persons.value == 1


FRAMES = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 700)), max_size=120)


@given(FRAMES, st.integers(0, 1500))
def test_head_count_random_frames(frames: list[tuple[int, int]], off_ms: int) -> None:
    """It falls to the most persons of the last frames, and rises to those of the newest one."""
    persons = HeadCount(off_ms * MS)
    seen = [(-10_000, 0)]
    now_ms, before, changed_ms = 0, 0, -10_000
    for number, gap_ms in frames:
        now_ms += gap_ms
        seen.append((now_ms, number))
        persons.update(number, now_ms * MS)
        # The newest frame, and all that ended after the delay's begin.
        start = max(i for i, (at_ms, _) in enumerate(seen) if at_ms <= now_ms - off_ms)
        highest = max(count for _, count in seen[start:])
        expected = highest if highest < before else max(before, number)
        waits = before and expected and now_ms - changed_ms < 1000
        assert persons.value == (before if waits else expected)
        if persons.value != before:
            before, changed_ms = persons.value, now_ms
