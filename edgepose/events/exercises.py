"""Exercises, and the count of their repetitions by one person."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgepose.events.angles import JOINTS, Points, joint_angle

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


class MovementCounter:
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
