"""Presence, number of persons, enter and leave, of the frame and of its zones."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgepose.datatypes import Event, TrackedFrame
from edgepose.events.visits import Delays, Visits
from edgepose.events.zones import Zone, ZoneMembership


class PresenceDetector:
    """Detects who is there: states `presence` and `count`, events `enter` and `leave`.

    Each zone has the same under `zones/<zone>/`, and zone events. There too the delays are those of
    presence, but a person must be in the zone for its `dwell_ms` if that is longer. So who is in a
    zone is present.
    """

    def __init__(self) -> None:
        self._membership = ZoneMembership(())
        self._visits: dict[str | None, Visits] = {None: Visits()}
        self._ended: list[Event] = []
        self._now_ns = 0

    def configure(self, delays: Delays, zones: Sequence[Zone] = ()) -> None:
        """Change delays and zones; visits stay, but those of a zone that is removed end."""
        dwells_ms: dict[str | None, float] = {None: 0, **{z.name: z.dwell_ms for z in zones}}
        for name in self._visits.keys() - dwells_ms:
            self._ended += self._visits[name].lost(self._now_ns)
        self._visits = {name: self._visits.get(name) or Visits(name) for name in dwells_ms}
        for name, dwell_ms in dwells_ms.items():
            self._visits[name].set_delays(replace(delays, on_ms=max(delays.on_ms, dwell_ms)))
        self._membership.set_zones(zones)

    @property
    def states(self) -> Mapping[str, str]:
        """`count`, and `presence` `ON` or `OFF`, of the frame and of each zone."""
        states: dict[str, str] = {}
        for visits in self._visits.values():
            states.update(visits.states)
        return states

    def update(self, frame: TrackedFrame) -> Sequence[Event]:
        """Add the next frame; return the events."""
        self._now_ns = now_ns = frame.timestamp_ns
        track_ids = frame.smoothed.track_ids.tolist()
        events = self._take_ended() + self._visits[None].update(track_ids, now_ns)
        for name, inside in self._membership.update(frame).items():
            events += self._visits[name].update(inside, now_ns, track_ids)
        return events

    def tick(self, timestamp_ns: int) -> Sequence[Event]:
        """Advance the time without a frame; return the events."""
        ticked = [event for v in self._visits.values() for event in v.tick(timestamp_ns)]
        return self._take_ended() + ticked

    def lost(self, timestamp_ns: int) -> Sequence[Event]:
        """End all visits at once."""
        ended = [event for v in self._visits.values() for event in v.lost(timestamp_ns)]
        return self._take_ended() + ended

    def _take_ended(self) -> list[Event]:
        ended, self._ended = self._ended, []
        return ended
