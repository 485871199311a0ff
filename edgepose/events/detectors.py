"""All detectors of one camera."""

from collections.abc import Sequence
from typing import Final, TypeVar

from edgepose.datatypes import Event, TrackedFrame
from edgepose.events.zones import Zone, ZoneMembership
from edgepose.protocols import EventDetector

CONFIRMATION_NS: Final = 1_000_000_000
"""From the first frame to a confirmed pose, also if the next frames are delayed."""

D = TypeVar("D", bound=EventDetector)


class Detectors:
    """Passes each frame to every detector, without the persons in excluded zones.

    `decided` means that the states follow from enough frames: once a person is present, or a second
    and `on_delay_ms` after the first frame, since it takes some frames to confirm a pose.
    """

    def __init__(self) -> None:
        self._parts: Sequence[EventDetector] = ()
        self._excluded = ZoneMembership(())
        self._pending: list[Event] = []
        self._on_delay_ns = 0
        self._first_ns: int | None = None
        self._now_ns = 0
        self.decided = False

    def running(self, kind: type[D]) -> D:
        """Return the detector of a class that is running, else a new one."""
        return next((part for part in self._parts if isinstance(part, kind)), None) or kind()

    def replace(
        self, parts: Sequence[EventDetector], *, excluded: Sequence[Zone], on_delay_ms: float
    ) -> None:
        """Use other detectors from now on; those that are not among them end what they detected."""
        for part in self._parts:
            if part not in parts:
                self._pending += part.lost(self._now_ns)
        self._parts = parts
        self._excluded.set_zones(excluded)
        self._on_delay_ns = round(on_delay_ms * 1e6)

    @property
    def states(self) -> dict[str, str]:
        """The states of all detectors."""
        states: dict[str, str] = {}
        for part in self._parts:
            states.update(part.states)
        return states

    def update(self, frame: TrackedFrame) -> list[Event]:
        """Add the next frame; return the events."""
        frame = self._excluded.without(frame)
        if self._first_ns is None:
            self._first_ns = frame.timestamp_ns
        return self._advance(frame.timestamp_ns, [e for p in self._parts for e in p.update(frame)])

    def tick(self, timestamp_ns: int) -> list[Event]:
        """Advance the time without a frame; return the events."""
        return self._advance(timestamp_ns, [e for p in self._parts for e in p.tick(timestamp_ns)])

    def lost(self, timestamp_ns: int) -> list[Event]:
        """End everything at once, because the camera is closed or failed; return the events."""
        self._first_ns, self.decided = None, False
        return self._advance(timestamp_ns, [e for p in self._parts for e in p.lost(timestamp_ns)])

    def _advance(self, timestamp_ns: int, events: list[Event]) -> list[Event]:
        self._now_ns = max(self._now_ns, timestamp_ns)
        if not self.decided and self._first_ns is not None:
            self.decided = (
                self._now_ns - self._first_ns >= self._on_delay_ns + CONFIRMATION_NS
                or self.states.get("presence") == "ON"
            )
        if self._pending:
            events, self._pending = self._pending + events, []
        return events
