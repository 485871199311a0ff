"""Zones of the frame: who is in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from edgepose.datatypes import TrackedFrame
from edgepose.events.place import PLACES, in_frame
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
        self._use(zones)

    def set_zones(self, zones: Sequence[Zone]) -> None:
        """Change the zones, whose names differ; if they are the same, who is inside still is."""
        if zones != self._zones:
            self._use(zones)

    def _use(self, zones: Sequence[Zone]) -> None:
        self._zones = zones
        self._places = {zone.place for zone in zones}
        self._inside: dict[str, list[int]] = {zone.name: [] for zone in zones}
        self._size_wh = (0, 0)
        self._in_px: list[list[Point]] = []

    def update(self, frame: TrackedFrame) -> Mapping[str, Sequence[int]]:
        """Return the track ids in each zone in the next frame, by the name of the zone."""
        if not self._zones:
            return {}
        if frame.size_wh != self._size_wh:
            self._size_wh = width, height = frame.size_wh
            self._in_px = [[(x * width, y * height) for x, y in z.polygon] for z in self._zones]
        before = self._inside
        self._inside = {zone.name: [] for zone in self._zones}
        poses = frame.smoothed.poses
        for track_id, keypoints, scores, box in zip(
            frame.smoothed.track_ids.tolist(),
            poses.keypoint_list,
            poses.keypoint_score_list,
            poses.box_list,
            strict=True,
        ):
            margin_px = MARGIN * max(box[2] - box[0], box[3] - box[1])
            places = {
                name: in_frame(PLACES[name](keypoints, scores, box), frame.size_wh)
                for name in self._places
            }
            for zone, polygon in zip(self._zones, self._in_px, strict=True):
                x, y = places[zone.place]
                if contains(polygon, x, y) or (
                    track_id in before[zone.name] and outline_distance(polygon, x, y) < margin_px
                ):
                    self._inside[zone.name].append(track_id)
        return self._inside

    def without(self, frame: TrackedFrame) -> TrackedFrame:
        """Return the frame without the poses in any of the zones."""
        if not self._zones:
            return frame
        excluded = set().union(*self.update(frame).values())
        if not excluded:
            return frame
        track_ids = frame.smoothed.track_ids.tolist()
        return frame.select([n for n, track in enumerate(track_ids) if track not in excluded])
