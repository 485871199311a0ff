"""Zones: who is inside, with a margin; frames of 640 x 480 px."""

from collections.abc import Mapping

import numpy as np
from msgspec.structs import replace

from edgepose.datatypes import Posture
from edgepose.events.zones import Zone, ZoneMembership
from tests.bodies import Body, standing
from tests.builders import tracked_frame

DOOR = Zone("door", ((0.1, 0.5), (0.4, 0.5), (0.4, 1.0), (0.1, 1.0)))
"""From x = 64 to 256 px and y = 240 to 480."""
SOFA = Zone("sofa", ((0.1, 0.2), (0.4, 0.2), (0.4, 0.5), (0.1, 0.5)), place="torso")


def test_zone_contains() -> None:
    """A point in fractions of the frame."""
    assert DOOR.contains(0.2, 0.9)
    assert not DOOR.contains(0.5, 0.9)
    assert not DOOR.contains(0.2, 0.4)


def members(
    zones: ZoneMembership, persons: Mapping[int, Body], size_wh: tuple[int, int] = (640, 480)
) -> list[set[int]]:
    """Return the tracks in each zone in the next frame."""
    return [set(inside) for inside in zones.update(tracked_frame(0, persons, size_wh)).values()]


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


def test_zone_membership_same_zones_again() -> None:
    """A reload that changes something else does not move a person out of a zone."""
    zones = ZoneMembership([DOOR])
    assert members(zones, {1: standing(250, 300)}) == [{1}]
    zones.set_zones([DOOR])
    assert members(zones, {1: standing(256 + 18, 300)}) == [{1}]
    zones.set_zones([SOFA, DOOR])
    assert members(zones, {1: standing(256 + 18, 300)}) == [set(), set()]


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
    """A reflection is taken out of the frame, raw, smoothed and its posture."""
    mirror = ZoneMembership([DOOR])
    frame = tracked_frame(0, {3: standing(160, 300), 4: standing(500, 300)})
    postures = (Posture("sitting", 0.8), Posture("standing", 0.9))
    seen = mirror.without(replace(frame, postures=postures))
    assert seen.postures == postures[1:]
    assert seen.raw.track_ids.tolist() == seen.smoothed.track_ids.tolist() == [4]
    np.testing.assert_array_equal(seen.raw.poses.keypoints[0], standing(500, 300))
    assert mirror.without(tracked_frame(0, {3: standing(160, 300)})).raw.track_ids.size == 0
    nobody = tracked_frame(0, {})
    assert mirror.without(nobody) is nobody
    assert ZoneMembership([]).without(frame) is frame
