"""Presence, head count, enter and leave of one camera."""

from collections.abc import Mapping, Sequence

from edgepose.datatypes import Event, TrackedFrame
from edgepose.events.occupancy import OccupancyDetector
from edgepose.events.track_events import TrackEventDetector
from edgepose.protocols import MAX_RESULT_DELAY_NS


class PresenceDetector:
    """Detects who is there: states `presence` and `count`, events `enter` and `leave`."""

    def __init__(
        self, *, on_delay_ms: float = 300, off_delay_ms: float = 1000, leave_delay_ms: float = 2000
    ) -> None:
        self._occupancy = OccupancyDetector()
        self._tracks = TrackEventDetector()
        self.set_delays(
            on_delay_ms=on_delay_ms, off_delay_ms=off_delay_ms, leave_delay_ms=leave_delay_ms
        )

    def set_delays(self, *, on_delay_ms: float, off_delay_ms: float, leave_delay_ms: float) -> None:
        """Change the delays; states and tracks stay."""
        self._occupancy.set_delays(on_delay_ms=on_delay_ms, off_delay_ms=off_delay_ms)
        self._tracks.set_delays(on_delay_ms=on_delay_ms, off_delay_ms=leave_delay_ms)

    @property
    def states(self) -> Mapping[str, str]:
        """`count`, and `presence` `ON` or `OFF`."""
        occupancy = self._occupancy
        return {"count": str(occupancy.count), "presence": "ON" if occupancy.present else "OFF"}

    def update(self, frame: TrackedFrame) -> Sequence[Event]:
        """Add the next frame; return the events."""
        tracked = frame.smoothed
        self._occupancy.update(len(tracked), frame.timestamp_ns)
        return self._tracks.update(tracked.track_ids.tolist(), frame.timestamp_ns)

    def tick(self, timestamp_ns: int) -> Sequence[Event]:
        """Advance the time without a frame; return the events."""
        self._occupancy.tick(timestamp_ns)
        # A frame captured by then may still be published and continue a track.
        return self._tracks.tick(timestamp_ns - MAX_RESULT_DELAY_NS)

    def lost(self, timestamp_ns: int) -> Sequence[Event]:
        """Let everyone leave at once."""
        self._occupancy.lost(timestamp_ns)
        return self._tracks.lost()
