"""Suspected falls: a person who was upright came to lie quickly, and stays there.

A suspicion, not a diagnosis: it misses falls that the camera does not see well, and some who lie
down quickly did not fall.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import hypot, inf
from statistics import median
from typing import Final

from edgepose.datatypes import Event, Posture, TrackedFrame
from edgepose.events.place import torso
from edgepose.events.posture_features import Points, middle
from edgepose.events.zones import Zone
from edgepose.protocols import MAX_RESULT_DELAY_NS
from edgepose.skeleton import LEFT_HIP, LEFT_SHOULDER, RIGHT_HIP, RIGHT_SHOULDER
from edgepose.util.polygon import Point

MIN_UPRIGHT: Final = 0.6
"""The probability of standing or sitting from which on a person is upright."""
MIN_HIP_DROP: Final = 0.3
"""In lengths of the upright torso: who bends keeps the hips up, who lies back sat down before."""
MIN_SHOULDER_DROP: Final = 0.5
DOWN_PART: Final = 0.7
"""The middle part of the way down whose time is measured: where it begins and ends is unclear."""
QUICK_PART: Final = 0.45
"""The part of the time of a fall that this may take. It is about 0.4 of a motion with a soft begin
and end: 0.6 to 0.8 s of one of 2 s, 0.9 to 1.7 s of one of 4 s."""
LYING_PART: Final = 0.5
"""The part of the time on the floor in which the posture must be recognized as lying."""
MAX_MOVE: Final = 1.5
"""Who moves further than this, in lengths of the torso, does not stay: a crawling child."""
MAX_NEW_TRACK_DISTANCE: Final = 5.0
"""A body that falls is up to 3.3 lengths of its torso away from where its centre was, and the last
pose before may be wrong."""
SIZE_WEIGHT: Final = 0.2
"""The weight of a frame in the mean length of the torso."""
MAX_STEP_NS: Final = 500_000_000
"""A longer time without a pose counts as this: models lose a body that falls for a while."""
LEVEL_NS: Final = 1_000_000_000
"""The time over which the height of a lying body is measured, and how long a person must be upright
not to lie, as long as no fall is reported."""
SETTLE_NS: Final = 3_000_000_000
"""How long after it is seen as lying a body may still come down."""
KEEP_NS: Final = 3_000_000_000
"""How long a person without a pose is remembered."""
KEEP_LYING_NS: Final = 30_000_000_000
"""The same for one who lies, whom models find less often."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """Heights of a body, downwards, and the length of its torso in px, after some seen time."""

    seen_ns: int
    shoulder_y: float
    hip_y: float
    torso: float


@dataclass(slots=True)
class _Lying:
    """A person who came to lie: since when and where, and what happened since, in seen time."""

    since_ns: int
    down_seen_ns: int
    still_seen_ns: int
    x: float
    y: float
    lying_ns: int = 0
    upright_ns: int = 0
    fell: bool = False
    reported: bool = False


@dataclass(slots=True)
class _Person:
    """A track; `seen_ns` is how long it was seen, `size` the length of its torso when upright."""

    last_ns: int
    x: float
    y: float
    size: float
    seen_ns: int = 0
    upright_seen_ns: int | None = None
    lying: _Lying | None = None
    history: deque[_Moment] = field(default_factory=deque)


class FallDetector:
    """Detects suspected falls: state `fall`, event `fall`.

    A person was upright and lies within `fall_ms`, the way down was as quick, and the person then
    lies for `lying_ms` in the same place. It is over once the person was upright for `recovery_ms`,
    or was not seen for 30 s. A person in one of the `zones` did not fall. A new track near one that
    was just lost continues it, because poses change quickly in a fall; but an upright person, who
    may be a helper, never continues one who lies.
    """

    def __init__(
        self,
        *,
        fall_ms: float = 2000,
        lying_ms: float = 5000,
        recovery_ms: float = 3000,
        zones: Iterable[Zone] = (),
    ) -> None:
        self.configure(fall_ms=fall_ms, lying_ms=lying_ms, recovery_ms=recovery_ms, zones=zones)
        self._persons: dict[int, _Person] = {}

    def configure(
        self, *, fall_ms: float, lying_ms: float, recovery_ms: float, zones: Iterable[Zone]
    ) -> None:
        """Change the settings; falls that were detected stay."""
        self._fall_ns = round(fall_ms * 1e6)
        self._lying_ns = round(lying_ms * 1e6)
        self._recovery_ns = round(recovery_ms * 1e6)
        self._zones = tuple(zones)

    @property
    def states(self) -> Mapping[str, str]:
        """`fall`: `ON` while a person lies who has fallen, else `OFF`."""
        fallen = any(p.lying is not None and p.lying.reported for p in self._persons.values())
        return {"fall": "ON" if fallen else "OFF"}

    def update(self, frame: TrackedFrame) -> Sequence[Event]:
        """Add the next frame, with its postures; return the events."""
        poses, now_ns = frame.raw.poses, frame.timestamp_ns
        track_ids = frame.raw.track_ids.tolist()
        events = []
        for track_id, posture, points, scores, box in zip(
            track_ids,
            frame.postures,
            poses.keypoint_list,
            poses.keypoint_score_list,
            poses.box_list,
            strict=True,
        ):
            upright = posture.upright >= MIN_UPRIGHT
            lost_ids = () if track_id in self._persons else self._lost(track_ids, upright=upright)
            person, step_ns = self._seen(track_id, lost_ids, points, scores, now_ns)
            if posture.name == "lying" and self._is_excluded(
                torso(points, scores, box), frame.size_wh
            ):
                person.lying = person.upright_seen_ns = None
            elif self._has_fallen(person, posture, step_ns, now_ns) and person.lying:
                events.append(Event("fall", track_id, person.lying.since_ns))
        self._forget(now_ns)
        return events

    def tick(self, timestamp_ns: int) -> Sequence[Event]:
        """Advance the time without a frame; there are no events."""
        self._forget(timestamp_ns - MAX_RESULT_DELAY_NS)
        return ()

    def lost(self, timestamp_ns: int) -> Sequence[Event]:  # noqa: ARG002
        """Forget everybody: the camera is closed or failed."""
        self._persons.clear()
        return ()

    def _seen(
        self,
        track_id: int,
        lost_ids: Sequence[int],
        points: Points,
        scores: Sequence[float],
        now_ns: int,
    ) -> tuple[_Person, int]:
        """Return the person of a track, and the time since its last pose, at most MAX_STEP_NS.

        A new track may be the person of one of the lost ones.
        """
        shoulder_x, shoulder_y, _ = middle(points, scores, LEFT_SHOULDER, RIGHT_SHOULDER)
        hip_x, hip_y, _ = middle(points, scores, LEFT_HIP, RIGHT_HIP)
        x, y = (shoulder_x + hip_x) / 2, (shoulder_y + hip_y) / 2
        length = hypot(shoulder_x - hip_x, shoulder_y - hip_y)
        person = self._persons.get(track_id)
        if person is None:
            former_id = self._nearest(x, y, lost_ids)
            if former_id is None:
                person = _Person(now_ns, x, y, length)
            else:
                person = self._persons.pop(former_id)
            self._persons[track_id] = person
        step_ns = max(0, min(now_ns - person.last_ns, MAX_STEP_NS))
        person.last_ns, person.x, person.y = max(now_ns, person.last_ns), x, y
        person.seen_ns += step_ns
        person.history.append(_Moment(person.seen_ns, shoulder_y, hip_y, length))
        oldest_ns = person.seen_ns - self._fall_ns - LEVEL_NS - SETTLE_NS
        while person.history[0].seen_ns < oldest_ns:
            person.history.popleft()
        return person, step_ns

    def _lost(self, track_ids: Sequence[int], *, upright: bool) -> list[int]:
        """Return the tracks without a pose in this frame that a new person may continue."""
        return [
            track_id
            for track_id, person in self._persons.items()
            if track_id not in track_ids and not (upright and person.lying)
        ]

    def _nearest(self, x: float, y: float, track_ids: Sequence[int]) -> int | None:
        """Return the nearest track, if it is near enough."""
        persons = ((track_id, self._persons[track_id]) for track_id in track_ids)
        distances = {
            track_id: hypot(person.x - x, person.y - y) / max(person.size, 1.0)
            for track_id, person in persons
        }
        nearest = min(distances, key=distances.__getitem__, default=None)
        if nearest is None or distances[nearest] > MAX_NEW_TRACK_DISTANCE:
            return None
        return nearest

    def _is_excluded(self, place: Point, size_wh: tuple[int, int]) -> bool:
        x, y = place[0] / size_wh[0], place[1] / size_wh[1]
        return any(zone.contains(x, y) for zone in self._zones)

    def _has_fallen(self, person: _Person, posture: Posture, step_ns: int, now_ns: int) -> bool:
        """Advance the state of a person; return whether the suspicion has just been confirmed."""
        lying, upright = person.lying, posture.upright >= MIN_UPRIGHT
        if lying is None:
            if upright:
                person.upright_seen_ns = person.seen_ns
                torso_px = person.history[-1].torso
                # The torso of who sits, or begins to fall, may point to the camera.
                if posture.name == "standing" or torso_px > person.size:
                    person.size += SIZE_WEIGHT * (torso_px - person.size)
            elif posture.name == "lying" and self._was_upright(person):
                person.lying = _Lying(now_ns, person.seen_ns, person.seen_ns, person.x, person.y)
            return False
        if posture.name == "lying":
            lying.lying_ns += step_ns
            lying.upright_ns = 0
        elif upright:
            lying.upright_ns += step_ns
            if lying.upright_ns >= (self._recovery_ns if lying.reported else LEVEL_NS):
                person.lying, person.upright_seen_ns = None, person.seen_ns
                return False
        if lying.reported:
            return False
        down_ns = person.seen_ns - lying.down_seen_ns
        if not lying.fell and down_ns >= min(SETTLE_NS, self._lying_ns):
            since_ns = lying.down_seen_ns - self._fall_ns
            lying.fell = _down_ns(person, since_ns) <= self._fall_ns * QUICK_PART
            if not lying.fell:
                person.lying = person.upright_seen_ns = None
                return False
        if hypot(person.x - lying.x, person.y - lying.y) > MAX_MOVE * person.size:
            lying.x, lying.y = person.x, person.y
            lying.still_seen_ns, lying.lying_ns = person.seen_ns, 0
        still_ns = person.seen_ns - lying.still_seen_ns
        lying.reported = (
            lying.fell and still_ns >= self._lying_ns and lying.lying_ns >= still_ns * LYING_PART
        )
        return lying.reported

    def _was_upright(self, person: _Person) -> bool:
        upright_ns = person.upright_seen_ns
        return upright_ns is not None and person.seen_ns - upright_ns <= self._fall_ns

    def _forget(self, now_ns: int) -> None:
        """Forget the persons that were not seen for too long."""
        for track_id, person in list(self._persons.items()):
            if now_ns - person.last_ns > (KEEP_NS if person.lying is None else KEEP_LYING_NS):
                del self._persons[track_id]


def _down_ns(person: _Person, since_ns: int) -> float:
    """Return how long the middle part of the way down took; infinite if it was too short a way.

    The way leads from where the body was highest since a time to where it is now.
    """
    moments = [moment for moment in person.history if moment.seen_ns >= since_ns]
    now = [moment for moment in moments if moment.seen_ns >= person.seen_ns - LEVEL_NS]
    hip_drop = median(m.hip_y for m in now) - _highest([m.hip_y for m in moments])
    top = _highest([m.shoulder_y for m in moments])
    drop = median(m.shoulder_y for m in now) - top
    if hip_drop < MIN_HIP_DROP * person.size or drop < MIN_SHOULDER_DROP * person.size:
        return inf
    first, last = (top + drop * (1 - sign * DOWN_PART) / 2 for sign in (1, -1))
    start_ns = end_ns = inf
    for earlier, later in pairwise(moments):
        if earlier.shoulder_y < first <= later.shoulder_y:
            start_ns, end_ns = _crossing_ns(earlier, later, first), inf
        if start_ns < end_ns == inf and earlier.shoulder_y < last <= later.shoulder_y:
            end_ns = _crossing_ns(earlier, later, last)
    return inf if end_ns == inf else end_ns - start_ns


def _highest(heights: list[float]) -> float:
    """Return the height that a tenth of some heights, downwards, lie above: one may be wrong."""
    return sorted(heights)[len(heights) // 10]


def _crossing_ns(earlier: _Moment, later: _Moment, height: float) -> float:
    """Return when the shoulders were at a height between two moments."""
    part = (height - earlier.shoulder_y) / (later.shoulder_y - earlier.shoulder_y)
    return earlier.seen_ns + part * (later.seen_ns - earlier.seen_ns)
