"""TrackEventDetector, on injected timestamps."""

from hypothesis import given
from hypothesis import strategies as st

from edgepose.datatypes import Event
from edgepose.events.track_events import TrackEventDetector

MS = 1_000_000


def test_track_events_enter_and_leave() -> None:
    """The events carry the first and the last time of the track."""
    detector = TrackEventDetector(on_delay_ms=300, off_delay_ms=1000)
    events = [
        (at, event)
        for at in range(1000, 3000, 100)
        for event in detector.update([7] if 1200 <= at <= 1800 else [], at * MS)
    ]
    assert events == [
        (1500, Event("enter", 7, 1200 * MS)),
        (2800, Event("leave", 7, 1800 * MS)),
    ]


def test_track_events_false_positives() -> None:
    """Single frames 800 ms apart cause no event."""
    detector = TrackEventDetector(on_delay_ms=300, off_delay_ms=1000)
    shown = {1000, 1800, 2600}
    events = [
        event
        for at in range(1000, 5000, 100)
        for event in detector.update([1] if at in shown else [], at * MS)
    ]
    assert events == []


def test_track_events_flickering_track() -> None:
    """A track seen in two of three frames enters later."""
    detector = TrackEventDetector(on_delay_ms=300, off_delay_ms=1000)
    events = [
        (at, event.type)
        for at in range(1000, 2500, 100)
        for event in detector.update([1] if at % 300 else [], at * MS)
    ]
    assert [kind for _, kind in events] == ["enter"]
    assert events[0][0] > 1300


def test_track_events_without_delays() -> None:
    """The first frame is an enter event, the next frame without the track a leave event."""
    detector = TrackEventDetector(on_delay_ms=0, off_delay_ms=0)
    assert detector.update([1, 2], 5 * MS) == [
        Event("enter", 1, 5 * MS),
        Event("enter", 2, 5 * MS),
    ]
    assert detector.update([2], 6 * MS) == [Event("leave", 1, 5 * MS)]


def test_track_events_tick() -> None:
    """A track leaves by time alone, once."""
    detector = TrackEventDetector(on_delay_ms=0, off_delay_ms=1000)
    detector.update([3], 1000 * MS)
    assert detector.tick(1999 * MS) == []
    assert detector.tick(2000 * MS) == [Event("leave", 3, 1000 * MS)]
    assert detector.tick(9000 * MS) == []


def test_track_events_lost_camera() -> None:
    """All tracks that had entered leave."""
    detector = TrackEventDetector(on_delay_ms=300, off_delay_ms=1000)
    detector.update([1], 1000 * MS)
    detector.update([1, 2], 1400 * MS)
    assert detector.lost() == [Event("leave", 1, 1400 * MS)]
    assert detector.lost() == []


@given(
    st.lists(st.sets(st.integers(1, 4), max_size=4), max_size=40),
    st.sampled_from((0, 50, 300)),
    st.sampled_from((0, 100, 1000)),
)
def test_track_events_random_frames(
    frames: list[set[int]], on_delay_ms: int, off_delay_ms: int
) -> None:
    """Enter and leave alternate for each track, and every track leaves in the end."""
    detector = TrackEventDetector(on_delay_ms=on_delay_ms, off_delay_ms=off_delay_ms)
    entered: set[int] = set()
    events = [
        event
        for number, ids in enumerate(frames)
        for event in detector.update(ids, (1000 + 100 * number) * MS)
    ]
    for event in events + detector.lost():
        assert (event.track_id in entered) == (event.type == "leave")
        entered ^= {event.track_id}
    assert not entered
