"""Visits, on injected timestamps."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.datatypes import Event
from edgepose.events.visits import Delays, Visits

MS = 1_000_000


def visits_of(on_ms: int = 300, off_ms: int = 1000, leave_ms: int = 2000) -> Visits:
    """Return visits with these delays."""
    return Visits(delays=Delays(on_ms, off_ms, leave_ms))


def test_visits_one_visit() -> None:
    """The events have the first and the last time of the track, and come with the count."""
    visits = visits_of()
    events, counts = [], [(0, 0)]
    for at in range(1000, 5000, 100):
        events += [(at, e) for e in visits.update([7] if 1200 <= at <= 1800 else [], at * MS)]
        if counts[-1][1] != visits.count:
            counts.append((at, visits.count))
    assert events == [
        (1500, Event("enter", 7, 1200 * MS)),
        (2900, Event("leave", 7, 1800 * MS)),
    ]
    assert counts == [(0, 0), (1500, 1), (2900, 0)]


def test_visits_states() -> None:
    """Presence is ON if the count is above zero; a zone has topics of its own."""
    visits = visits_of(on_ms=0)
    assert visits.states == {"count": "0", "presence": "OFF"}
    visits.update([1, 2], 0)
    assert visits.states == {"count": "2", "presence": "ON"}
    assert Visits("door").states == {"zones/door/count": "0", "zones/door/presence": "OFF"}


def test_visits_false_positive_in_one_frame() -> None:
    """It changes nothing, at any frame rate."""
    for period_ms in (10, 33, 299, 301, 2000):
        visits = visits_of()
        for frame in range(20):
            assert visits.update([1] if frame == 7 else [], frame * period_ms * MS) == []
            assert visits.tick((frame * period_ms + period_ms - 1) * MS) == []
            assert visits.count == 0


def test_visits_false_positives_of_one_track() -> None:
    """Single frames 800 ms apart cause no event."""
    visits = visits_of()
    events = [
        event
        for at in range(1000, 5000, 100)
        for event in visits.update([1] if at in {1000, 1800, 2600} else [], at * MS)
    ]
    assert events == []


def test_visits_flickering_detection() -> None:
    """A person detected in two of three frames enters later, once, and stays."""
    visits = visits_of()
    events = []
    for frame in range(300):
        at_ms = 33 * frame
        events += [(at_ms, e.type) for e in visits.update([1] if frame % 3 else [], at_ms * MS)]
        assert visits.count == len(events)
    ((at_ms, kind),) = events
    assert kind == "enter"
    assert 300 < at_ms < 1500


def test_visits_changed_id_is_one_person() -> None:
    """A person who is lost and found under another id counts once, without a gap."""
    visits = visits_of()
    counts, events = set(), []
    for at in range(0, 8000, 100):
        events += visits.update([1 if at < 4000 else 9], at * MS)
        if at >= 300:
            counts.add(visits.count)
    assert counts == {1}
    assert [(e.type, e.track_id) for e in events] == [("enter", 1), ("enter", 9), ("leave", 1)]


def test_visits_exchanged_persons() -> None:
    """One leaves while another enters: the count stays."""
    visits = visits_of()
    for at in range(0, 8000, 100):
        visits.update([1] * (at < 4000) + [2] * (at >= 3500), at * MS)
        if at == 3900:
            assert visits.count == 2
    assert visits.count == 1


def test_visits_second_person_missed_in_turn() -> None:
    """Two persons of whom each is missed now and then are two."""
    visits = visits_of()
    for frame in range(100):
        ids = {0: [1], 1: [1, 2], 2: [2]}[frame % 3]
        visits.update(ids, frame * 100 * MS)
        if frame > 20:
            assert visits.count == 2


def test_visits_track_that_comes_back() -> None:
    """After the off delay it must be seen for the on delay again, and enters again."""
    visits = visits_of(leave_ms=3000)
    events = []
    counts = {}
    for at in range(0, 6000, 100):
        events += visits.update([1] if not 1000 <= at < 2500 else [], at * MS)
        counts[at] = visits.count
    assert [event.type for event in events] == ["enter", "leave", "enter"]
    assert [at for at in counts if at and counts[at] != counts[at - 100]] == [300, 2000, 2800]


def test_visits_track_that_comes_back_to_another() -> None:
    """While another is there, a person who is hidden for longer than the off delay stays."""
    visits = visits_of(leave_ms=3000)
    events = []
    counts = {}
    for at in range(0, 9000, 100):
        ids = [2] if 1000 <= at < 2500 or at >= 5000 else [1, 2]
        events += [(at, e.type, e.track_id) for e in visits.update(ids, at * MS)]
        counts[at] = visits.count
    assert events == [(300, "enter", 1), (300, "enter", 2), (8000, "leave", 1)]
    changes = [at for at in counts if at and counts[at] != counts[at - 100]]
    assert changes == [300, 2000, 3000, 6000], "back at 2800, but a second after the change"


def test_visits_at_a_low_frame_rate() -> None:
    """A gap between frames is no absence: one missed detection at one frame a second is none."""
    visits = visits_of()
    events = [
        event.type
        for at in range(0, 20_000, 1030)
        for event in visits.update([] if at == 5150 else [1], at * MS)
    ]
    assert events == ["enter"]
    assert visits.count == 1


def test_visits_without_delays() -> None:
    """The first frame is an enter event, the next frame without the track a leave event."""
    visits = visits_of(0, 0, 0)
    assert visits.update([1, 2], 5 * MS) == [Event("enter", 1, 5 * MS), Event("enter", 2, 5 * MS)]
    assert visits.update([2], 6 * MS) == [Event("leave", 1, 5 * MS)]


def test_visits_seen_elsewhere() -> None:
    """A track that is in the frame but not here leaves with the off delay."""
    visits = visits_of()
    events = [
        (at, event.type)
        for at in range(0, 5000, 100)
        for event in visits.update([1] if at < 1000 else [], at * MS, in_frame=[1])
    ]
    assert events == [(300, "enter"), (2000, "leave")]


def test_visits_tick() -> None:
    """Visits end without frames, once, after a result that is late could have arrived."""
    visits = visits_of(0, 500, 1000)
    visits.update([3, 4], 1000 * MS)
    assert visits.tick(60_000 * MS) == []
    visits.update([4], 60_000 * MS)
    assert visits.tick(61_999 * MS) == []
    assert visits.count == 1
    assert visits.tick(62_000 * MS) == [Event("leave", 3, 1000 * MS)]
    visits.update([], 70_000 * MS)
    assert visits.tick(71_499 * MS) == []
    assert visits.tick(71_500 * MS) == [Event("leave", 4, 60_000 * MS)]
    assert visits.count == 0
    assert visits.tick(90_000 * MS) == []


def test_visits_lost_camera() -> None:
    """All that had entered leave at once, and nothing before counts afterwards."""
    visits = visits_of()
    visits.update([1], 1000 * MS)
    visits.update([1, 2], 1400 * MS)
    assert visits.count == 1
    assert visits.lost(1500 * MS) == [Event("leave", 1, 1400 * MS)]
    assert visits.count == 0
    assert visits.lost(1600 * MS) == []
    visits.update([2], 1700 * MS)
    assert visits.count == 0


def test_visits_earlier_timestamp() -> None:
    """It counts as the latest timestamp."""
    visits = visits_of()
    visits.update([1], 1000 * MS)
    assert visits.update([1], 500 * MS) == []
    assert visits.update([1], 1300 * MS) == [Event("enter", 1, 1000 * MS)]


@given(
    st.lists(st.tuples(st.sets(st.integers(1, 4)), st.integers(0, 700)), max_size=60),
    st.sampled_from((0, 50, 300, 700)),
    st.sampled_from((0, 100, 1000)),
    st.sampled_from((0, 1000, 2000)),
)
def test_visits_random_frames(
    frames: list[tuple[set[int], int]], on_ms: int, off_ms: int, leave_ms: int
) -> None:
    """Enter and leave alternate for each track; the count is zero if all have left, only then."""
    visits = visits_of(on_ms, off_ms, leave_ms)
    entered: set[int] = set()

    def check(events: list[Event]) -> None:
        for event in events:
            assert (event.track_id in entered) == (event.type == "leave")
            entered.symmetric_difference_update({event.track_id})
        assert bool(entered) == (visits.count > 0)

    now_ms = 1000
    for ids, gap_ms in frames:
        now_ms += gap_ms
        check(visits.update(sorted(ids), now_ms * MS))
        check(visits.tick(now_ms * MS))
    check(visits.lost(now_ms * MS))
    assert not entered


@pytest.mark.parametrize("fps", [5, 10, 15, 30])
@given(st.integers(0, 2**32))
def test_visits_noisy_detections(fps: int, seed: int) -> None:
    """Presence is right except for 1.5 s after each change of the truth.

    Up to every fifth frame misses the person; false positives are seconds apart.
    """
    random = Random(seed)
    visits = Visits()
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
        visits.update([1] if there != wrong else [], round(at_s * 1e9))
        if all(not 0 <= at_s - edge <= 1.5 for stretch in TRUTH for edge in stretch):
            assert visits.count == there, at_s


TRUTH = ((6.0, 20.1), (22.7, 45.2))
