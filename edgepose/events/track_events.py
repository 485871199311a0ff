"""Enter and leave events of tracks, debounced."""

from collections.abc import Iterable
from dataclasses import dataclass

from edgepose.datatypes import Event


@dataclass(slots=True)
class _Track:
    first_ns: int
    last_ns: int
    seen_ns: int = 0
    entered: bool = False


class TrackEventDetector:
    """Detects tracks that enter and leave.

    A track enters once it was seen for `on_delay_ms`; frames without it before then count against
    it by half, as in `OccupancyDetector`. It leaves when it was not seen for `off_delay_ms`, if it
    had entered. Timestamps are CLOCK_BOOTTIME ns and do not go back.
    """

    def __init__(self, *, on_delay_ms: float = 300, off_delay_ms: float = 1000) -> None:
        self.set_delays(on_delay_ms=on_delay_ms, off_delay_ms=off_delay_ms)
        self._tracks: dict[int, _Track] = {}
        self._now_ns = 0

    def set_delays(self, *, on_delay_ms: float, off_delay_ms: float) -> None:
        """Change the delays; tracks that entered stay so."""
        self._on_delay_ns = round(on_delay_ms * 1e6)
        self._off_delay_ns = round(off_delay_ms * 1e6)

    def update(self, track_ids: Iterable[int], timestamp_ns: int) -> list[Event]:
        """Add the next frame, with the ids of its tracks; return the events, leaves first."""
        before_ns, self._now_ns = self._now_ns, max(self._now_ns, timestamp_ns)
        now_ns, step_ns = self._now_ns, self._now_ns - before_ns
        seen = set(track_ids)
        entered = []
        for track_id in sorted(seen):
            track = self._tracks.get(track_id)
            if track is None:
                track = self._tracks[track_id] = _Track(now_ns, now_ns)
            else:
                track.seen_ns += step_ns
            track.last_ns = now_ns
            if not track.entered and track.seen_ns >= self._on_delay_ns:
                track.entered = True
                entered.append(Event("enter", track_id, track.first_ns))
        for track_id, track in list(self._tracks.items()):
            if track_id not in seen and not track.entered:
                track.seen_ns -= step_ns // 2
                if track.seen_ns <= 0:
                    del self._tracks[track_id]
        return self.tick(now_ns) + entered

    def tick(self, timestamp_ns: int) -> list[Event]:
        """Advance the time without a frame; return the events."""
        self._now_ns = max(self._now_ns, timestamp_ns)
        return self._leave(
            track_id
            for track_id, track in self._tracks.items()
            if self._now_ns - track.last_ns >= self._off_delay_ns and track.last_ns < self._now_ns
        )

    def lost(self) -> list[Event]:
        """End all tracks at once: the camera is closed or failed."""
        return self._leave(self._tracks)

    def _leave(self, track_ids: Iterable[int]) -> list[Event]:
        ended = [(track_id, self._tracks.pop(track_id)) for track_id in list(track_ids)]
        return [
            Event("leave", track_id, track.last_ns) for track_id, track in ended if track.entered
        ]
