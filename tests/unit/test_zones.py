"""Zones: who is inside."""

from edgepose.events.zones import Zone

DOOR = Zone("door", ((0.1, 0.5), (0.4, 0.5), (0.4, 1.0), (0.1, 1.0)))


def test_zone_contains() -> None:
    """A point in fractions of the frame."""
    assert DOOR.contains(0.2, 0.9)
    assert not DOOR.contains(0.5, 0.9)
    assert not DOOR.contains(0.2, 0.4)
