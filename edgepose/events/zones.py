"""Zones of the frame: who is in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from edgepose.datatypes import Event, TrackedFrame
from edgepose.events.place import PLACES, in_frame
from edgepose.events.visits import Delays, Visits
from edgepose.util.polygon import Point, contains, outline_distance

MARGIN: Final = 0.1
"""How far outside, in sizes of the body's box, a person who was in a zone still is: feet that are
guessed are off by 0.06 to 0.09."""


@dataclass(frozen=True)
class Zone:
    """A polygon in fractions of the frame, and what it is for.

    `place` is what of a person must be inside. `exclude` is `falls` if who lies there did not fall,
    as in a bed, and `all` if who is there is no person of the scene, as in a mirror. A person
    enters the zone after `dwell_ms` in it.
    """

    name: str
    polygon: tuple[Point, ...]
    place: Literal["feet", "torso"] = "feet"
    exclude: Literal["none", "falls", "all"] = "none"
    dwell_ms: float = 0.0

    def contains(self, x: float, y: float) -> bool:
        """Return whether a point is inside, in fractions of the frame."""
        return contains(self.polygon, x, y)


class ZoneMembership:
    """Which tracks are in which zone; one that was inside still is within MARGIN of the outline."""

    def __init__(self, zones: Sequence[Zone]) -> None:
        self.set_zones(zones)

    def set_zones(self, zones: Sequence[Zone]) -> None:
        """Change the zones."""
        self.zones = zones
        self._places = {zone.place for zone in zones}
        self._inside: list[set[int]] = [set() for _ in zones]
        self._size_wh = (0, 0)
        self._in_px: list[list[Point]] = []

    def update(self, frame: TrackedFrame) -> list[set[int]]:
        """Return the track ids in each zone in the next frame."""
        if frame.size_wh != self._size_wh:
            self._size_wh = width, height = frame.size_wh
            self._in_px = [[(x * width, y * height) for x, y in z.polygon] for z in self.zones]
            self._inside = [set() for _ in self.zones]
        inside: list[set[int]] = [set() for _ in self.zones]
        poses = frame.smoothed.poses
        for track_id, keypoints, scores, box in zip(
            frame.smoothed.track_ids.tolist(),
            poses.keypoints.tolist(),
            poses.keypoint_scores.tolist(),
            poses.boxes_xyxy.tolist(),
            strict=True,
        ):
            margin_px = MARGIN * max(box[2] - box[0], box[3] - box[1])
            places = {
                name: in_frame(PLACES[name](keypoints, scores, box), frame.size_wh)
                for name in self._places
            }
            for number, (zone, polygon) in enumerate(zip(self.zones, self._in_px, strict=True)):
                x, y = places[zone.place]
                if contains(polygon, x, y) or (
                    track_id in self._inside[number] and outline_distance(polygon, x, y) < margin_px
                ):
                    inside[number].add(track_id)
        self._inside = inside
        return inside

    def without(self, frame: TrackedFrame) -> TrackedFrame:
        """Return the frame without the poses in any of the zones."""
        if not self.zones or not len(frame.smoothed):
            return frame
        excluded = set().union(*self.update(frame))
        if not excluded:
            return frame
        track_ids = frame.smoothed.track_ids.tolist()
        kept = np.array([n for n, track in enumerate(track_ids) if track not in excluded], np.intp)
        return TrackedFrame(
            frame.timestamp_ns, frame.size_wh, frame.raw.select(kept), frame.smoothed.select(kept)
        )


class ZoneDetector:
    """Detects who is in which zone: states `zones/<zone>/presence` and `count`, and zone events.

    The delays are those of presence, but a person must be there for the zone's `dwell_ms` if that
    is longer. So who is in a zone is present.
    """

    def __init__(self) -> None:
        self._membership = ZoneMembership(())
        self._visits: dict[str, Visits] = {}
        self._ended: list[Event] = []
        self._now_ns = 0

    def set_zones(self, zones: Sequence[Zone], delays: Delays) -> None:
        """Change zones and delays; visits of a zone stay if one of its name does."""
        names = {zone.name for zone in zones}
        for name in self._visits.keys() - names:
            self._ended += self._visits.pop(name).lost(self._now_ns)
        self._membership.set_zones(zones)
        self._visits = {z.name: self._visits.get(z.name) or Visits(z.name) for z in zones}
        for zone in zones:
            on_ms = max(delays.on_ms, zone.dwell_ms)
            self._visits[zone.name].set_delays(replace(delays, on_ms=on_ms))

    @property
    def states(self) -> Mapping[str, str]:
        """`count` and `presence` of each zone."""
        return {t: payload for v in self._visits.values() for t, payload in v.states.items()}

    def update(self, frame: TrackedFrame) -> Sequence[Event]:
        """Add the next frame; return the events."""
        self._now_ns = frame.timestamp_ns
        track_ids = frame.smoothed.track_ids.tolist()
        events = self._take_ended()
        for zone, inside in zip(
            self._membership.zones, self._membership.update(frame), strict=True
        ):
            here = [track_id for track_id in track_ids if track_id in inside]
            events += self._visits[zone.name].update(here, frame.timestamp_ns, track_ids)
        return events

    def tick(self, timestamp_ns: int) -> Sequence[Event]:
        """Advance the time without a frame; return the events."""
        events = self._take_ended()
        for visits in self._visits.values():
            events += visits.tick(timestamp_ns)
        return events

    def lost(self, timestamp_ns: int) -> Sequence[Event]:
        """End all visits at once."""
        events = self._take_ended()
        for visits in self._visits.values():
            events += visits.lost(timestamp_ns)
        return events

    def _take_ended(self) -> list[Event]:
        ended, self._ended = self._ended, []
        return ended
