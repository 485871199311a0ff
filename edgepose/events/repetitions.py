"""Repetitions of an exercise, counted by the angle at a joint."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import atan2, degrees, hypot
from typing import Final

from edgepose.datatypes import Event, TrackedFrame
from edgepose.events.angles import JOINTS, Points, joint_angle
from edgepose.skeleton import LEFT_HIP, LEFT_SHOULDER, RIGHT_HIP, RIGHT_SHOULDER

MIN_SCORE: Final = 0.25
"""Keypoints with a lower score have no part in an angle: 46% of such elbows are 25 degrees off."""
MIN_KNEE_DEG: Final = 30.0
"""No knee bends further: a smaller angle is that of an ankle found at the hip."""
MIN_HOLD_NS: Final = 150_000_000
"""How long an angle stays near a limit before it counts: a frame or two alone are errors."""
MAX_TURNED_NS: Final = 10_000_000_000
"""A person who stays bent for longer, on a chair for example, does not exercise."""
MEMORY_NS: Final = 2_000_000_000
"""How long a repetition survives without its angle, or its track without a pose."""
PUBLISH_INTERVAL_NS: Final = 1_000_000_000
MAX_HANGING_DEG: Final = 60.0

TorsoRange = tuple[float, float]
BODIES: Final[Mapping[str, TorsoRange | None]] = {
    "any": None,
    "upright": (0, 60),
    "horizontal": (40, 140),
}
"""By how many degrees the torso may be turned from upright, for each direction of the body."""


@dataclass(frozen=True, slots=True)
class Movement:
    """An exercise: a joint goes from `start_angle` to `turn_angle`, in degrees, and back.

    `joint` is `knee`, `elbow`, `hip` or `shoulder`. The angles of both sides are averaged, unless
    `each_side` counts them apart. It only counts while the torso is turned from upright by `torso`,
    and with `arm_hangs` while the upper arm is at the torso.
    """

    name: str
    joint: str
    start_angle: float
    turn_angle: float
    torso: TorsoRange | None = None
    each_side: bool = False
    arm_hangs: bool = False


MOVEMENTS: Final = {
    movement.name: movement
    for movement in (
        Movement("squat", "knee", 150, 120, BODIES["upright"]),
        Movement("push_up", "elbow", 140, 105, BODIES["horizontal"]),
        # Not as far as a push-up seen from a corner, whose elbows move alike.
        Movement("curl", "elbow", 140, 105, (0, 40), each_side=True, arm_hangs=True),
    )
}
"""The exercises that need no configuration, by name."""


class _Cycle:
    """One joint on its way from the start to the turn and back."""

    __slots__ = ("_at_start", "_beyond_ns", "_reached", "_seen_ns", "_turned_ns")

    def __init__(self) -> None:
        self._at_start = self._reached = False
        self._seen_ns = 0
        # When the angle passed the middle between both limits: last, and on the way to the turn.
        self._beyond_ns: int | None = None
        self._turned_ns: int | None = None

    def update(self, movement: Movement, angle: float, now_ns: int) -> tuple[int, int] | None:
        """Add an angle; return when a repetition turned and ended, if it is complete."""
        if now_ns - self._seen_ns > MEMORY_NS:
            # It begins at its start: a person who is bent at first may get up from a chair.
            self._at_start, self._beyond_ns, self._turned_ns = False, None, None
        self._seen_ns = now_ns
        limit, other = movement.turn_angle, movement.start_angle
        if not self._at_start:
            limit, other = other, limit
        sign = 1.0 if limit > other else -1.0
        if sign * (angle - (limit + other) / 2) < 0:
            self._beyond_ns, self._reached = None, False
            return None
        if self._beyond_ns is None:
            self._beyond_ns = now_ns
        self._reached |= sign * (angle - limit) >= 0
        if not self._reached or now_ns - self._beyond_ns < MIN_HOLD_NS:
            return None
        passed_ns, self._beyond_ns, self._reached = self._beyond_ns, None, False
        self._at_start = not self._at_start
        if not self._at_start:
            self._turned_ns = passed_ns
        elif self._turned_ns is not None and passed_ns - self._turned_ns <= MAX_TURNED_NS:
            return self._turned_ns, passed_ns
        return None


class _Counter:
    """The repetitions of one movement by one person."""

    __slots__ = ("_cycles", "_joints", "_latest", "movement")

    def __init__(self, movement: Movement) -> None:
        self.movement = movement
        self._joints = [
            (JOINTS[f"{side}_{movement.joint}"], JOINTS[f"{side}_shoulder"])
            for side in ("left", "right")
        ]
        self._cycles = (_Cycle(), _Cycle())
        self._latest = [(0, 0), (0, 0)]

    def update(
        self, points: Points, scores: Sequence[float], torso_deg: float | None, now_ns: int
    ) -> bool:
        """Add a pose; return whether a repetition is complete with it."""
        movement = self.movement
        if movement.torso is not None:
            least, most = movement.torso
            if torso_deg is None or not least <= torso_deg <= most:
                return False
        angles = [self._angle(points, scores, side) for side in (0, 1)]
        if not movement.each_side:
            mean = _mean(angles)
            return mean is not None and self._cycles[0].update(movement, mean, now_ns) is not None
        complete = False
        for side, (angle, _) in enumerate(angles):
            done = None if angle is None else self._cycles[side].update(movement, angle, now_ns)
            if done is not None:
                self._latest[side] = done
                # Both arms at the same time are one repetition.
                complete |= not _overlap(done, self._latest[1 - side])
        return complete

    def _angle(
        self, points: Points, scores: Sequence[float], side: int
    ) -> tuple[float | None, float]:
        """Return the angle of a side, and how visible it is."""
        joint, shoulder = self._joints[side]
        angle = joint_angle(points, scores, joint, MIN_SCORE)
        if angle is None:
            return None, 0.0
        if self.movement.joint == "knee" and angle < MIN_KNEE_DEG:
            return None, 0.0
        if self.movement.arm_hangs:
            raised = joint_angle(points, scores, shoulder, MIN_SCORE)
            if raised is None or raised > MAX_HANGING_DEG:
                return None, 0.0
        return angle, min(scores[keypoint] for keypoint in joint)


@dataclass(slots=True)
class _Person:
    """What is known of one track."""

    counters: tuple[_Counter, ...]
    seen_ns: int = 0
    torso: tuple[float, float] = (0.0, 0.0)
    torso_px: float = 0.0


class RepetitionDetector:
    """Counts the repetitions of some movements, of all persons of a camera together.

    Each joint has two limits: a repetition is complete when the angle went beyond the turn and is
    back beyond the start, each for two frames and `MIN_HOLD_NS`. So neither jitter around one limit
    nor a movement that stops half way counts. With several movements the state is that of the last
    one repeated. A new track close to where another was lost goes on with its repetition.
    """

    def __init__(self, movements: Sequence[Movement] = ()) -> None:
        self._persons: dict[int, _Person] = {}
        self._movements: tuple[Movement, ...] = ()
        self._counts: dict[str, int] = {}
        self._exercise: str | None = None
        self._other: str | None = None
        self._state = self._encoded()
        self._published_ns = -PUBLISH_INTERVAL_NS
        self.set_movements(movements)

    def set_movements(self, movements: Sequence[Movement]) -> None:
        """Count these movements; if they are others than before, from 0."""
        if tuple(movements) == self._movements:
            return
        self._movements = tuple(movements)
        self._persons.clear()
        self._counts = {movement.name: 0 for movement in movements}
        self._exercise = movements[0].name if len(movements) == 1 else None
        self._other = None
        self._state = self._encoded()

    @property
    def states(self) -> Mapping[str, str]:
        """The exercise and its count as JSON; changes once a second at most."""
        return {"repetitions": self._state}

    def update(self, frame: TrackedFrame) -> list[Event]:
        """Add the next frame; return an event for each repetition."""
        now_ns = frame.timestamp_ns
        poses = frame.smoothed.poses
        events = []
        ids = frame.smoothed.track_ids.tolist()
        for track_id, points, scores in zip(
            ids, poses.keypoints.tolist(), poses.keypoint_scores.tolist(), strict=True
        ):
            torso = _torso(points, scores)
            person = self._persons.get(track_id) or self._new_person(track_id, ids, torso)
            person.seen_ns = now_ns
            torso_deg = None
            if torso is not None:
                x, y, along_x, along_y = torso
                person.torso, person.torso_px = (x, y), hypot(along_x, along_y)
                torso_deg = degrees(atan2(abs(along_x), along_y))
            for counter in person.counters:
                name = counter.movement.name
                complete = counter.update(points, scores, torso_deg, now_ns)
                for _ in range(self._confirmed(name) if complete else 0):
                    self._counts[name] += 1
                    events.append(
                        Event(
                            "repetition",
                            track_id,
                            now_ns,
                            exercise=name,
                            count=self._counts[name],
                        )
                    )
        self._publish(now_ns)
        return events

    def tick(self, timestamp_ns: int) -> list[Event]:
        """Forget tracks that are gone, and let the state change if it may; returns no events."""
        for track_id, person in list(self._persons.items()):
            if timestamp_ns - person.seen_ns > MEMORY_NS:
                del self._persons[track_id]
        self._publish(timestamp_ns)
        return []

    def lost(self, timestamp_ns: int) -> list[Event]:
        """Forget repetitions that are not complete; the counts stay."""
        self._persons.clear()
        return self.tick(timestamp_ns)

    def _confirmed(self, name: str) -> int:
        """Return how many repetitions count, now that one of an exercise is complete.

        Of several exercises, another one begins with its second repetition: a hand that is raised
        between squats is no curl.
        """
        if name == self._exercise:
            self._other = None
            return 1
        if name != self._other:
            self._other = name
            return 0
        self._exercise, self._other = name, None
        return 2

    def _publish(self, now_ns: int) -> None:
        """Let the state follow the count, a second after its last change at the earliest."""
        if now_ns - self._published_ns >= PUBLISH_INTERVAL_NS:
            state = self._encoded()
            if state != self._state:
                self._state, self._published_ns = state, now_ns

    def _encoded(self) -> str:
        count = 0 if self._exercise is None else self._counts[self._exercise]
        return json.dumps({"exercise": self._exercise, "count": count})

    def _new_person(
        self, track_id: int, ids: Sequence[int], torso: tuple[float, float, float, float] | None
    ) -> _Person:
        """Return a new person, or the one who was lost at the same place under another id."""
        found = None
        if torso is not None:
            found = min(
                (
                    (distance, lost_id)
                    for lost_id, lost in self._persons.items()
                    if lost_id not in ids
                    and (distance := hypot(lost.torso[0] - torso[0], lost.torso[1] - torso[1]))
                    < lost.torso_px
                ),
                default=None,
            )
        if found is not None:
            person = self._persons.pop(found[1])
        else:
            person = _Person(tuple(_Counter(movement) for movement in self._movements))
        self._persons[track_id] = person
        return person


def _torso(points: Points, scores: Sequence[float]) -> tuple[float, float, float, float] | None:
    """Return the middle of the torso in px, and the way from the shoulders to the hips."""
    ends = []
    for left, right in ((LEFT_SHOULDER, RIGHT_SHOULDER), (LEFT_HIP, RIGHT_HIP)):
        seen = [points[keypoint] for keypoint in (left, right) if scores[keypoint] >= MIN_SCORE]
        if not seen:
            return None
        ends.append((sum(p[0] for p in seen) / len(seen), sum(p[1] for p in seen) / len(seen)))
    (top_x, top_y), (end_x, end_y) = ends
    return (top_x + end_x) / 2, (top_y + end_y) / 2, end_x - top_x, end_y - top_y


def _mean(angles: Sequence[tuple[float | None, float]]) -> float | None:
    """Return the mean angle of both sides, in which the more visible one counts more.

    By the square of the score: that of a hidden limb is a third of a visible one's, and its angle
    a guess.
    """
    total = weights = 0.0
    for angle, score in angles:
        if angle is not None:
            total += angle * score * score
            weights += score * score
    return total / weights if weights else None


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two intervals share more than half of the shorter one."""
    shared = min(one[1], other[1]) - max(one[0], other[0])
    return 2 * shared > min(one[1] - one[0], other[1] - other[0])
