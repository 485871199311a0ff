"""PresenceDetector: the frame and its zones, on injected timestamps."""

from collections.abc import Mapping

import pytest

from edgepose.datatypes import Event
from edgepose.events.presence import PresenceDetector
from edgepose.events.visits import Delays
from edgepose.events.zones import Zone
from tests.bodies import MS, standing
from tests.builders import tracked_frame

# In frames of 640 x 480 px: from x = 64 to 256, y = 240 to 480, and y = 96 to 240.
DOOR = Zone("door", ((0.1, 0.5), (0.4, 0.5), (0.4, 1.0), (0.1, 1.0)))
SOFA = Zone("sofa", ((0.1, 0.2), (0.4, 0.2), (0.4, 0.5), (0.1, 0.5)), place="torso")


def detector_of(*zones: Zone, on_ms: int = 300) -> PresenceDetector:
    """Return a detector with zones."""
    detector = PresenceDetector()
    detector.configure(Delays(on_ms), zones)
    return detector


def walk(detector: PresenceDetector, places: Mapping[int, tuple[float, float]]) -> list[Event]:
    """Return the zone events of track 7 at a place in each frame, 100 ms apart."""
    return [
        event
        for at_ms, place in places.items()
        for event in detector.update(tracked_frame(at_ms, {7: standing(*place)}))
        if event.zone is not None
    ]


def test_presence_zone_person_who_walks_through() -> None:
    """One enter and one leave, with the times of the first and the last frame inside."""
    detector = detector_of(DOOR)
    # 10 px a frame: inside from x = 70 to 256, and the margin of 18 px.
    path = {at_ms: (at_ms / 10, 300.0) for at_ms in range(0, 6000, 100)}
    assert walk(detector, path) == [
        Event("zone_enter", 7, 700 * MS, zone="door"),
        Event("zone_leave", 7, 2700 * MS, zone="door"),
    ]


def test_presence_zone_states() -> None:
    """Each zone has a count and presence, beside those of the frame."""
    detector = detector_of(DOOR, SOFA, on_ms=0)
    detector.update(tracked_frame(0, {1: standing(160, 470), 2: standing(200, 300)}))
    assert detector.states == {
        "count": "2",
        "presence": "ON",
        "zones/door/count": "2",
        "zones/door/presence": "ON",
        "zones/sofa/count": "1",
        "zones/sofa/presence": "ON",
    }
    assert [e.type for e in detector.lost(MS)] == ["leave"] * 2 + ["zone_leave"] * 3
    assert set(detector.states.values()) == {"0", "OFF"}


def test_presence_zone_jitter_at_the_outline() -> None:
    """Feet that move over the line in every other frame enter once."""
    detector = detector_of(DOOR)
    path = {at_ms: (256.0 + (4 if at_ms % 200 else -4), 300.0) for at_ms in range(0, 9000, 100)}
    assert [event.type for event in walk(detector, path)] == ["zone_enter"]


def test_presence_zone_dwell() -> None:
    """Who walks through faster than the dwell time is not in the zone."""
    zone = Zone(DOOR.name, DOOR.polygon, dwell_ms=3000)
    path = {at_ms: (at_ms / 10, 300.0) for at_ms in range(0, 9000, 100)}
    assert walk(detector_of(zone), path) == []
    stays = {at_ms: (min(160.0, at_ms / 10), 300.0) for at_ms in range(0, 9000, 100)}
    assert walk(detector_of(zone), stays) == [Event("zone_enter", 7, 700 * MS, zone="door")]


def test_presence_zone_person_who_is_missed() -> None:
    """In the zone, a track that is lost leaves as it leaves the frame."""
    detector = detector_of(DOOR)
    walk(detector, dict.fromkeys(range(0, 1000, 100), (160.0, 300.0)))
    events = [
        (at_ms, event.type)
        for at_ms in range(1000, 5000, 100)
        for event in detector.update(tracked_frame(at_ms, {}))
    ]
    assert events == [(2000, "leave"), (2000, "zone_leave")]


@pytest.mark.parametrize("moved", [False, True])
def test_presence_zone_changed_zones(moved: bool) -> None:
    """A zone that stays keeps its visits, one that is removed ends them with the next tick."""
    detector = detector_of(DOOR, SOFA, on_ms=0)
    detector.update(tracked_frame(0, {1: standing(160, 300)}))
    polygon = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)) if moved else DOOR.polygon
    detector.configure(Delays(on_ms=0), [Zone("door", polygon)])
    assert detector.tick(MS) == [Event("zone_leave", 1, 0, zone="sofa")]
    assert detector.states == {
        "count": "1",
        "presence": "ON",
        "zones/door/count": "1",
        "zones/door/presence": "ON",
    }
    assert detector.tick(2 * MS) == []
    events = detector.update(tracked_frame(1000, {1: standing(160, 470)}))
    assert events == []
