"""Zones: who is inside, with a margin and delays; frames of 640 x 480 px."""

from collections.abc import Mapping

import numpy as np
import pytest

from edgepose.datatypes import Event
from edgepose.events.visits import Delays
from edgepose.events.zones import Zone, ZoneDetector, ZoneMembership
from tests.bodies import Body, at
from tests.builders import tracked_frame

MS = 1_000_000
DOOR = Zone("door", ((0.1, 0.5), (0.4, 0.5), (0.4, 1.0), (0.1, 1.0)))
"""From x = 64 to 256 px and y = 240 to 480."""
SOFA = Zone("sofa", ((0.1, 0.2), (0.4, 0.2), (0.4, 0.5), (0.1, 0.5)), place="torso")
FEET = (50, 190)
"""Where the body of tests/bodies.py stands."""


def standing(x: float, y: float) -> Body:
    """Return a body whose feet are at a point; its box is 183 px high."""
    return at(x - FEET[0], y - FEET[1])


def test_zone_contains() -> None:
    """A point in fractions of the frame."""
    assert DOOR.contains(0.2, 0.9)
    assert not DOOR.contains(0.5, 0.9)
    assert not DOOR.contains(0.2, 0.4)


def members(
    zones: ZoneMembership, persons: Mapping[int, Body], size_wh: tuple[int, int] = (640, 480)
) -> list[set[int]]:
    """Return the tracks in each zone in the next frame."""
    return zones.update(tracked_frame(0, persons, size_wh))


def test_zone_membership_by_place() -> None:
    """Feet in a zone on the floor, the torso in front of a sofa."""
    zones = ZoneMembership([DOOR, SOFA])
    assert members(zones, {}) == [set(), set()]
    # Its torso is at y = 125 less than its feet.
    assert members(zones, {5: standing(160, 300)}) == [{5}, {5}]
    assert members(zones, {5: standing(160, 470)}) == [{5}, set()]
    assert members(zones, {5: standing(160, 200), 6: standing(500, 300)}) == [set(), set()]


def test_zone_membership_margin() -> None:
    """Who was inside still is a tenth of the body outside; who was not is not."""
    zones = ZoneMembership([DOOR])
    assert members(zones, {1: standing(260, 300)}) == [set()]
    assert members(zones, {1: standing(250, 300)}) == [{1}]
    assert members(zones, {1: standing(256 + 18, 300)}) == [{1}]
    assert members(zones, {1: standing(256 + 19, 300)}) == [set()]
    assert members(zones, {1: standing(256 + 18, 300)}) == [set()]


def test_zone_membership_feet_below_the_frame() -> None:
    """They are on its last row: a zone to the lower side of the frame contains them."""
    zones = ZoneMembership([DOOR])
    assert members(zones, {1: standing(160, 900)}) == [{1}]
    assert members(zones, {2: standing(400, 900)}) == [set()]


def test_zone_membership_of_another_frame_size() -> None:
    """Corners are fractions of whatever frame comes."""
    zones = ZoneMembership([DOOR])
    assert members(zones, {1: standing(160, 300)}) == [{1}]
    assert members(zones, {1: standing(160, 300)}, (320, 240)) == [set()]
    assert members(zones, {1: standing(100, 200)}, (320, 240)) == [{1}]


def test_zone_membership_without_those_inside() -> None:
    """A reflection is taken out of the frame, raw and smoothed."""
    mirror = ZoneMembership([DOOR])
    frame = tracked_frame(0, {3: standing(160, 300), 4: standing(500, 300)})
    seen = mirror.without(frame)
    assert seen.raw.track_ids.tolist() == seen.smoothed.track_ids.tolist() == [4]
    np.testing.assert_array_equal(seen.raw.poses.keypoints[0], standing(500, 300))
    assert mirror.without(tracked_frame(0, {3: standing(160, 300)})).raw.track_ids.size == 0
    nobody = tracked_frame(0, {})
    assert mirror.without(nobody) is nobody
    assert ZoneMembership([]).without(frame) is frame


def detector_of(*zones: Zone, on_ms: int = 300) -> ZoneDetector:
    """Return a detector of zones."""
    detector = ZoneDetector()
    detector.set_zones(zones, Delays(on_ms))
    return detector


def walk(detector: ZoneDetector, places: Mapping[int, tuple[float, float]]) -> list[Event]:
    """Return the events of track 7 at a place in each frame, 100 ms apart."""
    return [
        event
        for at_ms, place in places.items()
        for event in detector.update(tracked_frame(at_ms, {7: standing(*place)}))
    ]


def test_zone_detector_person_who_walks_through() -> None:
    """One enter and one leave, with the times of the first and the last frame inside."""
    detector = detector_of(DOOR)
    # 10 px a frame: inside from x = 70 to 256, and the margin of 18 px.
    path = {at_ms: (at_ms / 10, 300.0) for at_ms in range(0, 6000, 100)}
    assert walk(detector, path) == [
        Event("zone_enter", 7, 700 * MS, zone="door"),
        Event("zone_leave", 7, 2700 * MS, zone="door"),
    ]


def test_zone_detector_states() -> None:
    """Each zone has a count and presence of its own."""
    detector = detector_of(DOOR, SOFA, on_ms=0)
    detector.update(tracked_frame(0, {1: standing(160, 470), 2: standing(200, 300)}))
    assert detector.states == {
        "zones/door/count": "2",
        "zones/door/presence": "ON",
        "zones/sofa/count": "1",
        "zones/sofa/presence": "ON",
    }
    assert [event.type for event in detector.lost(MS)] == ["zone_leave"] * 3
    assert set(detector.states.values()) == {"0", "OFF"}


def test_zone_detector_jitter_at_the_outline() -> None:
    """Feet that move over the line in every other frame enter once."""
    detector = detector_of(DOOR)
    path = {at_ms: (256.0 + (4 if at_ms % 200 else -4), 300.0) for at_ms in range(0, 9000, 100)}
    assert [event.type for event in walk(detector, path)] == ["zone_enter"]


def test_zone_detector_dwell() -> None:
    """Who walks through faster than the dwell time is not in the zone."""
    zone = Zone(DOOR.name, DOOR.polygon, dwell_ms=3000)
    path = {at_ms: (at_ms / 10, 300.0) for at_ms in range(0, 9000, 100)}
    assert walk(detector_of(zone), path) == []
    stays = {at_ms: (min(160.0, at_ms / 10), 300.0) for at_ms in range(0, 9000, 100)}
    assert walk(detector_of(zone), stays) == [Event("zone_enter", 7, 700 * MS, zone="door")]


def test_zone_detector_person_who_is_missed() -> None:
    """In the zone, a track that is lost leaves as it leaves the frame."""
    detector = detector_of(DOOR)
    walk(detector, dict.fromkeys(range(0, 1000, 100), (160.0, 300.0)))
    events = [
        (at_ms, event.type)
        for at_ms in range(1000, 5000, 100)
        for event in detector.update(tracked_frame(at_ms, {}))
    ]
    assert events == [(3000, "zone_leave")]


@pytest.mark.parametrize("moved", [False, True])
def test_zone_detector_changed_zones(moved: bool) -> None:
    """A zone that stays keeps its visits, one that is removed ends them with the next tick."""
    detector = detector_of(DOOR, SOFA, on_ms=0)
    detector.update(tracked_frame(0, {1: standing(160, 300)}))
    polygon = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)) if moved else DOOR.polygon
    detector.set_zones([Zone("door", polygon)], Delays(on_ms=0))
    assert detector.tick(MS) == [Event("zone_leave", 1, 0, zone="sofa")]
    assert detector.states == {"zones/door/count": "1", "zones/door/presence": "ON"}
    assert detector.tick(2 * MS) == []
    events = detector.update(tracked_frame(1000, {1: standing(160, 470)}))
    assert events == []
