"""The posture of the person who has been there longest, without flicker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgepose.datatypes import Event, TrackedFrame
from edgepose.protocols import MAX_RESULT_DELAY_NS

NOBODY: Final = "nobody"
UNCLEAR: Final = "unclear"
STATES: Final = ("standing", "sitting", "lying", UNCLEAR, NOBODY)
MIN_INTERVAL_NS: Final = 1_000_000_000


@dataclass(slots=True)
class _Track:
    """A track; `missing_ns` is the first frame without it since it was last seen."""

    first_ns: int
    missing_ns: int | None = None


class PostureDetector:
    """Detects the posture of one person, the longest seen: state `posture`, one of STATES.

    A posture counts once it lasted for `dwell_ms`, and bending is unclear. A person without a pose
    for `off_delay_ms` is gone. The state changes once a second at most.
    """

    def __init__(self, *, dwell_ms: float = 1000, off_delay_ms: float = 1000) -> None:
        self.set_delays(dwell_ms=dwell_ms, off_delay_ms=off_delay_ms)
        self._tracks: dict[int, _Track] = {}
        self._state = self._next = NOBODY
        self._next_since_ns = self._changed_ns = 0

    def set_delays(self, *, dwell_ms: float, off_delay_ms: float) -> None:
        """Change the delays; the state stays."""
        self._dwell_ns = round(dwell_ms * 1e6)
        self._off_delay_ns = round(off_delay_ms * 1e6)

    @property
    def states(self) -> Mapping[str, str]:
        """`posture`: one of STATES."""
        return {"posture": self._state}

    def update(self, frame: TrackedFrame) -> Sequence[Event]:
        """Add the next frame, with its postures; there are no events."""
        now_ns = frame.timestamp_ns
        postures = dict(zip(frame.raw.track_ids.tolist(), frame.postures, strict=True))
        for track_id in postures:
            self._tracks.setdefault(track_id, _Track(now_ns)).missing_ns = None
        if len(self._tracks) > len(postures):
            for track_id, track in self._tracks.items():
                if track_id not in postures and track.missing_ns is None:
                    track.missing_ns = now_ns
        self._forget(now_ns)
        longest = min(self._tracks, key=lambda each: self._tracks[each].first_ns, default=None)
        if longest in postures:
            name = postures[longest].name
            self._advance(name if name in STATES else UNCLEAR, now_ns, self._dwell_ns)
        return ()

    def tick(self, timestamp_ns: int) -> Sequence[Event]:
        """Advance the time without a frame; there are no events."""
        self._forget(timestamp_ns - MAX_RESULT_DELAY_NS)
        return ()

    def lost(self, timestamp_ns: int) -> Sequence[Event]:
        """Forget everybody at once: the camera is closed or failed."""
        self._tracks.clear()
        self._state = self._next = NOBODY
        self._changed_ns = timestamp_ns
        return ()

    def _forget(self, now_ns: int) -> None:
        """Forget the persons who are gone."""
        for track_id, track in list(self._tracks.items()):
            if track.missing_ns is not None and now_ns - track.missing_ns >= self._off_delay_ns:
                del self._tracks[track_id]
        if not self._tracks:
            self._advance(NOBODY, now_ns, 0)

    def _advance(self, state: str, now_ns: int, dwell_ns: int) -> None:
        """Change the state to one that lasts for long enough."""
        if state != self._next:
            self._next, self._next_since_ns = state, now_ns
        if (
            state != self._state
            and now_ns - self._next_since_ns >= dwell_ns
            and now_ns - self._changed_ns >= MIN_INTERVAL_NS
        ):
            self._state, self._changed_ns = state, now_ns
