"""The persons whom a single-pose model follows or may follow, from crop to crop."""

from typing import Final

from edgepose.datatypes import CropRegion, Poses
from edgepose.imaging.crop import upright_turns
from edgepose.tracking.similarity import MIN_KEYPOINT_SCORE, nearness, pose_similarity
from edgepose.tracking.track import Track, bodies

MIN_OKS: Final = 0.5
"""From this object keypoint similarity to the expected pose on, a pose is of the same person."""
MIN_OKS_SLOW: Final = 0.3
SLOW_NS: Final = 1_000_000_000 // 15
"""After a longer time a person may have moved so far that MIN_OKS_SLOW must do."""
MIN_NEARNESS: Final = 0.0
"""One who was or is turned, as after a fall, is within a body of the last or expected place."""


class Subject:
    """The last pose of a person, where it is expected next, and the angle of the body.

    `region` is the crop region around the last pose, None for the whole frame; `turns` are the
    clockwise quarter turns that put the body upright.
    """

    __slots__ = ("_pose", "_track", "region", "turns")

    def __init__(
        self, pose: Poses, region: CropRegion | None, turns: int, timestamp_ns: int
    ) -> None:
        self._track = Track(0, bodies(pose)[0], timestamp_ns)
        self._set(pose, region, turns)

    @property
    def seen_ns(self) -> int:
        """Timestamp of the last pose."""
        return self._track.seen_ns

    def follow(self, pose: Poses, region: CropRegion | None, turns: int, timestamp_ns: int) -> None:
        """Add the next pose, which was found at an angle of `turns`."""
        self._track.update(bodies(pose)[0], timestamp_ns)
        self._set(pose, region, turns)

    def _set(self, pose: Poses, region: CropRegion | None, turns: int) -> None:
        self._pose, self.region = pose, region
        self.turns = upright_turns(pose.keypoint_list[0], pose.keypoint_score_list[0], turns)

    def similarity(
        self, pose: Poses, timestamp_ns: int, min_score: float = MIN_KEYPOINT_SCORE
    ) -> float:
        """Return the object keypoint similarity of a pose to the expected one."""
        shift_xy = self._track.shift_xy(timestamp_ns)
        return pose_similarity(pose, self._pose, min_score, shift_xy)

    def is_continued_by(
        self, pose: Poses, turns: int, timestamp_ns: int, other: "Subject | None" = None
    ) -> bool:
        """Return whether a pose, found at an angle of `turns`, is of this person, not the other."""
        similarity = self.similarity(pose, timestamp_ns)
        if other is not None and other.similarity(pose, timestamp_ns) > similarity:
            return False
        slow = timestamp_ns - self.seen_ns > SLOW_NS
        if similarity >= (MIN_OKS_SLOW if slow else MIN_OKS):
            return True
        if turns == self.turns:
            return False
        x, y = self._track.shift_xy(timestamp_ns)
        left, top, right, bottom = self._pose.box_list[0]
        expected = left + x, top + y, right + x, bottom + y
        return nearness(pose.box_list[0], expected) >= MIN_NEARNESS

    def expected_region(self, timestamp_ns: int) -> CropRegion | None:
        """Return the crop region around the place where the person is expected."""
        if self.region is None:
            return None
        x, y = self._track.shift_xy(timestamp_ns)
        region = self.region
        return CropRegion(region.x_min + x, region.y_min + y, region.x_max + x, region.y_max + y)
