"""Presence, number of persons, enter and leave of one camera."""

from collections.abc import Mapping, Sequence

from edgepose.datatypes import Event, TrackedFrame
from edgepose.events.visits import Delays, Visits


class PresenceDetector:
    """Detects who is there: states `presence` and `count`, events `enter` and `leave`."""

    def __init__(self) -> None:
        self._visits = Visits()

    def set_delays(self, delays: Delays) -> None:
        """Change the delays; states and tracks stay."""
        self._visits.set_delays(delays)

    @property
    def states(self) -> Mapping[str, str]:
        """`count`, and `presence` `ON` or `OFF`."""
        return self._visits.states

    def update(self, frame: TrackedFrame) -> Sequence[Event]:
        """Add the next frame; return the events."""
        return self._visits.update(frame.smoothed.track_ids.tolist(), frame.timestamp_ns)

    def tick(self, timestamp_ns: int) -> Sequence[Event]:
        """Advance the time without a frame; return the events."""
        return self._visits.tick(timestamp_ns)

    def lost(self, timestamp_ns: int) -> Sequence[Event]:
        """End all visits at once."""
        return self._visits.lost(timestamp_ns)
