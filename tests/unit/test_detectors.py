"""Detectors of a camera together: one world of presence, zones and events."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from edgepose.build_events import apply_detectors, build_detectors
from edgepose.config.people import PresenceConfig, ZoneConfig
from edgepose.config.schema import CameraConfig, Config, TrackingConfig
from edgepose.datatypes import Event
from edgepose.events.detectors import Detectors
from tests.bodies import at
from tests.builders import tracked_frame

MS = 1_000_000
LEFT = ZoneConfig(name="left", polygon=((0, 0), (0.5, 0), (0.5, 1), (0, 1)))
RIGHT = ZoneConfig(name="right", polygon=((0.5, 0), (1, 0), (1, 1), (0.5, 1)))
MIRROR = ZoneConfig(name="right", polygon=RIGHT.polygon, exclude="all")
X_LEFT, X_RIGHT = 100, 500


def detectors_of(*zones: ZoneConfig, on_delay_ms: int = 300) -> Detectors:
    """Return the detectors of a camera with zones."""
    config = Config(presence=PresenceConfig(on_delay_ms=on_delay_ms))
    return build_detectors(config, CameraConfig(zones=zones))


def test_detectors_person_in_a_mirror() -> None:
    """It is in no count, zone or event, and the person beside it is."""
    detectors = detectors_of(LEFT, MIRROR)
    events: list[Event] = []
    for at_ms in range(0, 1000, 100):
        events += detectors.update(tracked_frame(at_ms, {1: at(X_LEFT), 2: at(X_RIGHT)}))
    assert [(event.type, event.track_id) for event in events] == [("enter", 1), ("zone_enter", 1)]
    assert detectors.states == {
        "count": "1",
        "presence": "ON",
        "zones/left/count": "1",
        "zones/left/presence": "ON",
    }


def test_detectors_reload_adds_and_removes_zones() -> None:
    """Presence stays; the visits of a zone that is removed end."""
    detectors = detectors_of(LEFT, on_delay_ms=0)
    detectors.update(tracked_frame(0, {1: at(X_LEFT)}))
    config = Config(presence=PresenceConfig(on_delay_ms=0))
    apply_detectors(detectors, config, CameraConfig(zones=(LEFT, RIGHT)))
    assert detectors.update(tracked_frame(100, {1: at(X_LEFT)})) == []
    assert detectors.states["zones/right/count"] == "0"
    apply_detectors(detectors, config, CameraConfig())
    assert detectors.tick(200 * MS) == [Event("zone_leave", 1, 100 * MS, zone="left")]
    assert detectors.states == {"count": "1", "presence": "ON"}


def test_detectors_decided() -> None:
    """With presence, or once the on delay and a second have passed since the first frame."""
    detectors = detectors_of()
    assert detectors.tick(5000 * MS) == []
    assert not detectors.decided
    detectors.update(tracked_frame(6000, {}))
    detectors.update(tracked_frame(7299, {}))
    assert not detectors.decided
    detectors.update(tracked_frame(7300, {}))
    assert detectors.decided


def test_detectors_decided_again_after_a_loss() -> None:
    """After the first frame, time alone is enough once no frame can be on its way any more."""
    detectors = detectors_of()
    detectors.update(tracked_frame(0, {}))
    detectors.lost(6400 * MS)
    detectors.tick(6900 * MS)
    assert not detectors.decided
    detectors.update(tracked_frame(7000, {1: at(X_LEFT)}))
    detectors.tick(8299 * MS)
    assert not detectors.decided
    detectors.tick(8300 * MS)
    assert detectors.decided


def test_detectors_not_decided_while_a_person_appears() -> None:
    """It takes some frames to confirm the first pose; `OFF` until then would be wrong."""
    detectors = detectors_of()
    for at_ms in range(0, 500, 100):
        detectors.update(tracked_frame(at_ms, {}))
    for at_ms in range(500, 800, 100):
        detectors.update(tracked_frame(at_ms, {1: at(X_LEFT)}))
        detectors.tick((at_ms + 99) * MS)
        assert not detectors.decided
    detectors.update(tracked_frame(800, {1: at(X_LEFT)}))
    assert detectors.decided
    assert detectors.states["presence"] == "ON"


FRAMES = st.lists(
    st.tuples(st.dictionaries(st.integers(1, 3), st.integers(-40, 590)), st.integers(0, 900)),
    max_size=40,
)


@given(FRAMES, st.sampled_from((0, 300, 700)), st.sampled_from((0, 1000)))
def test_detectors_consistent_world(
    frames: Sequence[tuple[dict[int, int], int]], on_ms: int, off_ms: int
) -> None:
    """Whatever comes: present are those who entered, and who is in a zone is in the frame."""
    config = Config(
        presence=PresenceConfig(on_delay_ms=on_ms, off_delay_ms=off_ms),
        tracking=TrackingConfig(max_age_ms=500),
    )
    zones = (LEFT, ZoneConfig(name="right", polygon=RIGHT.polygon, dwell_ms=400))
    detectors = build_detectors(config, CameraConfig(zones=zones))
    inside: dict[str | None, set[int]] = {None: set(), "left": set(), "right": set()}

    def check(events: Sequence[Event]) -> None:
        for event in events:
            there = inside[event.zone]
            assert (event.track_id in there) == event.type.endswith("leave")
            there.symmetric_difference_update({event.track_id})
        states = detectors.states
        for zone, there in inside.items():
            folder = "" if zone is None else f"zones/{zone}/"
            present = states[f"{folder}presence"] == "ON"
            assert present == (states[f"{folder}count"] != "0")
            assert present == bool(there)
            assert there <= inside[None]
            assert states["presence"] == "ON" or not present

    now_ms = 1000
    for persons, gap_ms in frames:
        now_ms += gap_ms
        check(detectors.update(tracked_frame(now_ms, {n: at(x) for n, x in persons.items()})))
        check(detectors.tick(now_ms * MS))
    check(detectors.lost(now_ms * MS))
    assert not any(inside.values())
