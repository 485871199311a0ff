"""Coming and going, told frame by frame on a clock of the test's own."""

from hypothesis import given
from hypothesis import strategies as st

from edgepose.events.track_events import TrackEvent, TrackEventDetector

MS = 1_000_000


def test_somebody_comes_and_goes() -> None:
    entrances = TrackEventDetector(on_delay_ms=300, off_delay_ms=1000)
    heard = [
        (at, event)
        for at in range(1000, 3000, 100)
        for event in entrances.update([7] if 1200 <= at <= 1800 else [], at * MS)
    ]
    assert heard == [
        (1500, TrackEvent("enter", 7, 1200 * MS)),
        (2800, TrackEvent("leave", 7, 1800 * MS)),
    ]


def test_a_ghost_neither_comes_nor_goes() -> None:
    """Two sightings 800 ms apart once counted as 800 ms of presence."""
    entrances = TrackEventDetector(on_delay_ms=300, off_delay_ms=1000)
    shown = {1000, 1800, 2600}
    heard = [
        event
        for at in range(1000, 5000, 100)
        for event in entrances.update([1] if at in shown else [], at * MS)
    ]
    assert heard == []


def test_a_flickering_body_comes_later_but_comes() -> None:
    entrances = TrackEventDetector(on_delay_ms=300, off_delay_ms=1000)
    heard = [
        (at, event.kind)
        for at in range(1000, 2500, 100)
        for event in entrances.update([1] if at % 300 else [], at * MS)
    ]
    assert [kind for _, kind in heard] == ["enter"]
    assert heard[0][0] > 1300


def test_without_a_delay_the_first_frame_counts_and_the_next_ends_it() -> None:
    entrances = TrackEventDetector(on_delay_ms=0, off_delay_ms=0)
    assert entrances.update([1, 2], 5 * MS) == [
        TrackEvent("enter", 1, 5 * MS),
        TrackEvent("enter", 2, 5 * MS),
    ]
    assert entrances.update([2], 6 * MS) == [TrackEvent("leave", 1, 5 * MS)]


def test_time_alone_lets_somebody_leave() -> None:
    entrances = TrackEventDetector(on_delay_ms=0, off_delay_ms=1000)
    entrances.update([3], 1000 * MS)
    assert entrances.tick(1999 * MS) == []
    assert entrances.tick(2000 * MS) == [TrackEvent("leave", 3, 1000 * MS)]
    assert entrances.tick(9000 * MS) == []


def test_a_lost_camera_lets_everybody_leave_who_had_come() -> None:
    entrances = TrackEventDetector(on_delay_ms=300, off_delay_ms=1000)
    entrances.update([1], 1000 * MS)
    entrances.update([1, 2], 1400 * MS)
    assert entrances.lost() == [TrackEvent("leave", 1, 1400 * MS)]
    assert entrances.lost() == []


@given(
    st.lists(st.sets(st.integers(1, 4), max_size=4), max_size=40),
    st.sampled_from((0, 50, 300)),
    st.sampled_from((0, 100, 1000)),
)
def test_nobody_leaves_twice_or_without_having_come(
    frames: list[set[int]], on_delay_ms: int, off_delay_ms: int
) -> None:
    entrances = TrackEventDetector(on_delay_ms=on_delay_ms, off_delay_ms=off_delay_ms)
    here: set[int] = set()
    heard = [
        event
        for number, ids in enumerate(frames)
        for event in entrances.update(ids, (1000 + 100 * number) * MS)
    ]
    for event in heard + entrances.lost():
        assert (event.track_id in here) == (event.kind == "leave")
        here ^= {event.track_id}
    assert not here
