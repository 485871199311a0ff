"""The contract of every event detector, on injected timestamps."""

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.datatypes import Event
from edgepose.events.falls import FallDetector
from edgepose.events.posture_detector import PostureDetector
from edgepose.events.presence import PresenceDetector
from edgepose.events.repetitions import RepetitionDetector
from edgepose.events.visits import Delays
from edgepose.events.zones import Zone
from edgepose.messages import event_message
from edgepose.mqtt.topics import state_owner
from edgepose.protocols import EventDetector
from tests.bodies import MS, at
from tests.builders import tracked_frame


def _zones() -> PresenceDetector:
    detector = PresenceDetector()
    whole = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    left = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0))
    detector.configure(Delays(), [Zone("room", whole), Zone("bed", left, place="torso")])
    return detector


DETECTORS: Mapping[str, Callable[[], EventDetector]] = {
    "presence": PresenceDetector,
    "zones": _zones,
    "repetitions": RepetitionDetector,
    "posture": PostureDetector,
    "falls": FallDetector,
}

every_detector = pytest.mark.parametrize("make", DETECTORS.values(), ids=DETECTORS)


@every_detector
def test_event_detector_protocol(make: Callable[[], EventDetector]) -> None:
    """It implements the EventDetector protocol."""
    assert isinstance(make(), EventDetector)


@every_detector
def test_event_detector_states_have_known_topics(make: Callable[[], EventDetector]) -> None:
    """What a detector leaves behind at the broker is found when it is off."""
    states = make().states
    assert states
    for topic, payload in states.items():
        assert state_owner("edgepose/gym", f"edgepose/gym/main/{topic}") == "main"
        assert payload


FRAMES = st.lists(
    st.tuples(st.dictionaries(st.integers(1, 3), st.integers(-40, 590)), st.integers(0, 900)),
    max_size=30,
)


@every_detector
@given(FRAMES)
def test_event_detector_random_frames(
    make: Callable[[], EventDetector], frames: list[tuple[dict[int, int], int]]
) -> None:
    """Its topics stay, no event is of the future, and after a loss all is as at the begin."""
    detector = make()
    first = dict(detector.states)
    now_ms = 5000

    def check(events: list[Event]) -> None:
        assert detector.states.keys() == first.keys()
        for event in events:
            assert event.time_ns <= now_ms * MS
            assert event_message(event, 1, node="gym", camera="main").type == event.type

    for persons, gap_ms in frames:
        now_ms += gap_ms
        check([*detector.update(tracked_frame(now_ms, {n: at(x) for n, x in persons.items()}))])
        # The clock is ahead of the frames by what inference takes, and at times far behind.
        check([*detector.tick((now_ms + 100) * MS), *detector.tick((now_ms - 2000) * MS)])
    check([*detector.lost(now_ms * MS)])
    assert detector.states == first
    assert [*detector.lost(now_ms * MS)] == []
