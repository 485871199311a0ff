"""Repetitions, counted in the keypoints of a body of known motion."""

import json
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from edgepose.datatypes import Event, TrackedFrame, TrackedPoses
from edgepose.events.exercises import MOVEMENTS, Movement
from edgepose.events.repetitions import RepetitionDetector
from tests.builders import SECOND_NS, tracked_of
from tests.exercises import NEAR, Angles, Motion, curl, push_up, repeated, squat, walk
from tests.kinematics import Points

EXERCISES: dict[str, tuple[Motion, float, float]] = {
    "squat": (squat, 172, 80),
    "push_up": (push_up, 165, 70),
    "curl": (curl, 165, 45),
}
"""The motion of each exercise, and the angle at its top and bottom."""
HEADINGS = {"right": 90.0, "left": -90.0, "towards": 45.0, "away": 135.0}
NOISE_PX = 2.0


class Gym:
    """A camera before which persons exercise; time goes on with every frame."""

    def __init__(self, *exercises: str, fps: float = 10, movement: Movement | None = None) -> None:
        movements = [movement] if movement else [MOVEMENTS[name] for name in exercises]
        self.detector = RepetitionDetector(movements)
        self.fps = fps
        self.events: list[Event] = []
        self._random = np.random.default_rng(7)
        self._frames = 0

    @property
    def now_ns(self) -> int:
        return SECOND_NS + round(self._frames * 1e9 / self.fps)

    @property
    def state(self) -> dict[str, object]:
        state: dict[str, object] = json.loads(self.detector.states["repetitions"])
        return state

    def see(self, bodies: dict[int, Points], scores: dict[int, float] | None = None) -> None:
        """Add a frame with some persons, by track id, with noise; `scores` are by keypoint."""
        noisy = [body + self._random.normal(0, NOISE_PX, body.shape) for body in bodies.values()]
        tracked = TrackedPoses(tracked_of(*noisy).poses, np.array(list(bodies), np.int64))
        for keypoint, score in (scores or {}).items():
            tracked.poses.keypoint_scores[:, keypoint] = score
        self.events += self.detector.update(TrackedFrame(self.now_ns, (640, 480), tracked, tracked))
        self._frames += 1

    def exercise(self, motion: Motion, angles: Iterable[Angles], *, heading: float = 90.0) -> None:
        """Add the frames of one person whose joints have these angles."""
        for each in angles:
            self.see({1: NEAR.project(motion(each, heading))})

    def counted(self) -> list[tuple[str | None, int | None]]:
        return [(event.exercise, event.count) for event in self.events]


def moved(body: Points, x: float) -> Points:
    """Return a body further to the right."""
    return np.add(body, (x, 0.0))


def both(angles: Iterable[float]) -> list[Angles]:
    return [(angle, angle) for angle in angles]


def up_to(count: int, name: str) -> list[tuple[str, int]]:
    return [(name, number) for number in range(1, count + 1)]


@pytest.mark.parametrize("fps", [5, 10, 30])
@pytest.mark.parametrize("heading", HEADINGS.values(), ids=HEADINGS)
@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("seconds", [1.5, 3.0])
def test_repetitions_are_counted_exactly(
    name: str, heading: float, fps: float, seconds: float
) -> None:
    """Ten of each exercise, from the sides and diagonally, at three frame rates and speeds."""
    motion, top, bottom = EXERCISES[name]
    gym = Gym(name, fps=fps)
    gym.exercise(
        motion,
        both(repeated(10, seconds=seconds, top=top, bottom=bottom, fps=fps)),
        heading=heading,
    )
    assert gym.counted() == up_to(10, name)


@pytest.mark.parametrize("name", EXERCISES)
def test_repetitions_with_pauses(name: str) -> None:
    """Long pauses at the top do not matter, and those at the bottom up to ten seconds."""
    motion, top, bottom = EXERCISES[name]
    gym = Gym(name)
    for pause_s in (0, 7, 60):
        gym.exercise(motion, both(repeated(1, seconds=3, top=top, bottom=bottom, fps=10)))
        gym.exercise(motion, both([top] * (10 * pause_s)))
    down = [top + (bottom - top) * step / 10 for step in range(11)]
    gym.exercise(motion, both(down + [bottom] * 80 + down[::-1] + [top] * 10))
    assert gym.counted() == up_to(4, name)


@pytest.mark.parametrize("name", EXERCISES)
def test_repetitions_that_are_partial_do_not_count(name: str) -> None:
    """Neither one that turns too early, nor the pulses of one that never returns to the start."""
    motion, top, bottom = EXERCISES[name]
    limits = MOVEMENTS[name]
    gym = Gym(name, fps=30)
    shallow = limits.turn_angle + 20
    gym.exercise(motion, both(repeated(5, seconds=2, top=top, bottom=shallow, fps=30)))
    assert gym.counted() == []
    middle = limits.start_angle - 20
    down = [top + (bottom - top) * step / 30 for step in range(31)]
    pulses = [bottom + (middle - bottom) * abs(np.sin(step / 15)) for step in range(150)]
    gym.exercise(motion, both([*down, *pulses, *down[::-1], *[top] * 30]))
    assert gym.counted() == up_to(1, name)


def test_repetitions_of_a_person_who_sits_down_do_not_count() -> None:
    """To get up from a chair is no squat, however long ago the person sat down."""
    gym = Gym("squat")
    rising = [80 + 9 * step for step in range(11)]
    gym.exercise(squat, both([80] * 50 + rising + [170] * 20))
    gym.exercise(squat, both(rising[::-1] + [80] * 200 + rising + [170] * 20))
    assert gym.counted() == []


@pytest.mark.parametrize("fps", [5, 10, 30])
def test_repetitions_of_a_person_who_walks_through_do_not_count(fps: float) -> None:
    """Knees bend by 60 degrees in turn while walking, elbows swing."""
    gym = Gym(*MOVEMENTS, fps=fps)
    for frame in range(round(20 * fps)):
        phase = 2 * np.pi * frame / fps
        knees = [175 - 60 * max(0.0, np.sin(phase + half)) for half in (0, np.pi)]
        gym.see({1: moved(NEAR.project(walk((knees[0], knees[1]))), frame * 100 / fps - 1000)})
    assert gym.counted() == []


@pytest.mark.parametrize("fps", [5, 10, 30])
def test_repetitions_one_wrong_frame_counts_nothing_and_loses_nothing(fps: float) -> None:
    """A frame with the legs of another pose, at the top and at the bottom."""
    gym = Gym("squat", fps=fps)
    for number in range(20):
        gym.exercise(squat, both([170] * 5))
        gym.exercise(squat, both([80]))
        assert gym.counted() == [], number
    second = round(fps)
    gym.exercise(squat, both([170] * second + [120, 100] + [80] * second))
    gym.exercise(squat, both([172]))
    gym.exercise(squat, both([80] * second + [100, 120] + [170] * second))
    assert gym.counted() == up_to(1, "squat")


def test_repetitions_of_one_arm_and_of_alternating_arms_count_each() -> None:
    gym = Gym("curl", fps=10)
    one = list(repeated(3, seconds=2, top=165, bottom=45, fps=10))
    gym.exercise(curl, [(angle, 165) for angle in one])
    assert gym.counted() == up_to(3, "curl")
    single = list(repeated(1, seconds=2, top=165, bottom=45, fps=10))[10:-10]
    for _ in range(3):
        gym.exercise(curl, [(angle, 165) for angle in single])
        gym.exercise(curl, [(165, angle) for angle in single])
    gym.exercise(curl, both([165] * 10))
    assert gym.counted() == up_to(9, "curl")


@pytest.mark.parametrize("shift", [-3, -1, 0, 1, 3])
def test_repetitions_of_both_arms_together_count_once(shift: int) -> None:
    """Also if one arm is up to 0.3 s behind."""
    gym = Gym("curl", fps=10)
    angles = list(repeated(5, seconds=2, top=165, bottom=45, fps=10))
    late = np.roll(angles, shift).tolist()
    gym.exercise(curl, list(zip(angles, late, strict=True)))
    assert gym.counted() == up_to(5, "curl")


def test_repetitions_curl_needs_a_hanging_upper_arm() -> None:
    """To scratch one's head from raised arms, or to wave, is no curl."""
    gym = Gym("curl")
    body = NEAR.project(curl((165, 165)))
    for angle in repeated(5, seconds=2, top=165, bottom=45, fps=10):
        waving = body.copy()
        for elbow, wrist, shoulder in ((7, 9, 5), (8, 10, 6)):
            turn = np.radians(180 - angle)
            waving[elbow] = waving[shoulder] + (-70, 0)
            waving[wrist] = waving[elbow] + (-55 * np.cos(turn), -55 * np.sin(turn))
        gym.see({1: waving})
    assert gym.counted() == []


def test_repetitions_hidden_side_has_no_part() -> None:
    """The far leg of a side view, with a score below 0.25 and at a place of chance."""
    gym = Gym("squat")
    random = np.random.default_rng(3)
    for angle in repeated(5, seconds=2, top=172, bottom=80, fps=10):
        body = NEAR.project(squat((angle, angle)))
        body[[14, 16]] = random.uniform(0, 480, (2, 2))
        gym.see({1: body}, {14: 0.2, 16: 0.2})
    assert gym.counted() == up_to(5, "squat")


def test_repetitions_ankle_at_the_hip_has_no_part() -> None:
    """A knee of 2 degrees is none; of a standing person seen from the side, the far leg had it."""
    gym = Gym("squat")
    for angle in repeated(5, seconds=2, top=172, bottom=80, fps=10):
        body = NEAR.project(squat((angle, angle)))
        if angle > 160:
            body[15] = body[11] + (1, 2)
        gym.see({1: body}, {13: 0.35, 15: 0.35})
    assert gym.counted() == up_to(5, "squat")


def test_repetitions_weak_keypoints_count_nothing() -> None:
    gym = Gym("squat")
    for angle in repeated(5, seconds=2, top=172, bottom=80, fps=10):
        gym.see({1: NEAR.project(squat((angle, angle)))}, {13: 0.24, 14: 0.24})
    assert gym.counted() == []


def test_repetitions_gap_within_a_repetition() -> None:
    """A second without keypoints loses nothing; after five, a repetition begins anew."""
    for gap_frames, expected in ((10, 1), (50, 0)):
        gym = Gym("squat")
        gym.exercise(squat, both([170] * 10 + [120, 100, 80, 80, 80]))
        for _ in range(gap_frames):
            gym.see({})
        gym.exercise(squat, both([80, 80, 100, 120] + [170] * 10))
        assert len(gym.counted()) == expected


def test_repetitions_survive_a_lost_id() -> None:
    """The id changes at every bottom, at the same place; elsewhere a repetition begins anew."""
    gym = Gym("squat")
    angles = list(repeated(6, seconds=2, top=172, bottom=80, fps=10))
    for frame, angle in enumerate(angles):
        gym.see({1 + frame // 20: NEAR.project(squat((angle, angle)))})
    assert gym.counted() == up_to(6, "squat")
    assert [event.track_id for event in gym.events] == [2, 3, 4, 5, 6, 7]
    for frame, angle in enumerate(repeated(6, seconds=2, top=172, bottom=80, fps=10)):
        gym.see({100 + frame // 20: moved(NEAR.project(squat((angle, angle))), frame // 20 * 200)})
    assert len(gym.counted()) == 6


def test_repetitions_of_two_persons_are_one_count() -> None:
    """Two persons side by side, one twice as fast; a third one walks through."""
    gym = Gym("squat")
    slow = list(repeated(4, seconds=4, top=172, bottom=80, fps=10))
    fast = list(repeated(8, seconds=2, top=172, bottom=80, fps=10))
    for frame, (one, other) in enumerate(zip(slow, fast, strict=True)):
        bodies = {
            1: NEAR.project(squat((one, one))),
            2: moved(NEAR.project(squat((other, other))), 300),
        }
        if frame % 50 < 25:
            bodies[3 + frame // 50] = moved(NEAR.project(walk((175, 130))), frame % 50 * 40 - 500)
        gym.see(bodies)
    assert len(gym.events) == 12
    assert sorted(event.track_id for event in gym.events) == [1] * 4 + [2] * 8
    assert [event.count for event in gym.events] == list(range(1, 13))


def test_repetitions_auto_counts_each_exercise_as_what_it_is() -> None:
    gym = Gym(*MOVEMENTS, fps=10)
    assert gym.state == {"exercise": None, "count": 0}
    for name, (motion, top, bottom) in EXERCISES.items():
        for heading in HEADINGS.values():
            angles = repeated(3, seconds=2, top=top, bottom=bottom, fps=10)
            gym.exercise(motion, both(angles), heading=heading)
        assert gym.state == {"exercise": name, "count": 12}
    expected = [each for name in EXERCISES for each in up_to(12, name)]
    assert gym.counted() == expected


def test_repetitions_auto_another_exercise_begins_with_its_second() -> None:
    """A hand that is raised once between squats is no curl; a second time it is, and both count."""
    gym = Gym(*MOVEMENTS)

    def do(name: str, count: int) -> None:
        motion, top, bottom = EXERCISES[name]
        gym.exercise(motion, both(repeated(count, seconds=2, top=top, bottom=bottom, fps=10)))

    do("curl", 1)
    do("squat", 2)
    do("curl", 1)
    do("squat", 1)
    do("curl", 1)
    assert gym.counted() == up_to(3, "squat")
    do("curl", 1)
    assert gym.counted() == up_to(3, "squat") + up_to(2, "curl")
    assert gym.state == {"exercise": "curl", "count": 2}


def test_repetitions_of_an_exercise_whose_angle_rises() -> None:
    """Arms that are raised: the shoulder's angle goes up and returns."""
    raise_arms = Movement("raise", "shoulder", start_angle=40, turn_angle=80)
    gym = Gym(movement=raise_arms)
    body = NEAR.project(curl((170, 170), 0))
    for angle in repeated(5, seconds=2, top=10, bottom=95, fps=10):
        out = np.radians(angle)
        raised = body.copy()
        for elbow, wrist, shoulder, sign in ((7, 9, 5, 1), (8, 10, 6, -1)):
            raised[elbow] = raised[shoulder] + (sign * 70 * np.sin(out), 70 * np.cos(out))
            raised[wrist] = raised[shoulder] + (sign * 125 * np.sin(out), 125 * np.cos(out))
        gym.see({1: raised})
    assert gym.counted() == up_to(5, "raise")


def test_repetitions_state_changes_once_a_second_at_most() -> None:
    """Two repetitions within a second; the state reaches the count without another frame."""
    gym = Gym("curl", fps=30)
    states = [gym.detector.states["repetitions"]]
    changed_ns = []
    quick = list(repeated(8, seconds=0.7, top=165, bottom=45, fps=30))
    for angle in quick:
        gym.exercise(curl, [(angle, angle)])
        if gym.detector.states["repetitions"] != states[-1]:
            states.append(gym.detector.states["repetitions"])
            changed_ns.append(gym.now_ns)
    gym.detector.tick(gym.now_ns + SECOND_NS)
    assert gym.state == {"exercise": "curl", "count": 8}
    assert len(gym.events) == 8
    steps = np.diff(changed_ns)
    assert (steps >= SECOND_NS - 1).all()
    assert len(steps) < 7


def test_repetitions_lost_camera_keeps_the_count() -> None:
    """What was half done is forgotten, as nothing is known of the time between."""
    gym = Gym("squat")
    gym.exercise(squat, both(repeated(3, seconds=2, top=172, bottom=80, fps=10)))
    gym.exercise(squat, both([170, 120, 80, 80, 80]))
    assert gym.detector.lost(gym.now_ns) == []
    gym.exercise(squat, both([80, 80, 120, 170, 170, 170]))
    assert gym.state == {"exercise": "squat", "count": 3}
    gym.exercise(squat, both(repeated(1, seconds=2, top=172, bottom=80, fps=10)))
    assert gym.state == {"exercise": "squat", "count": 4}


def test_repetitions_tick_is_ahead_of_the_frames() -> None:
    """The clock of the daemon is ahead of the frames by the time of an inference."""
    gym = Gym("squat")
    for angle in repeated(5, seconds=2, top=172, bottom=80, fps=10):
        gym.exercise(squat, [(angle, angle)])
        events: Sequence[Event] = gym.detector.tick(gym.now_ns + 900_000_000)
        assert events == []
    assert gym.counted() == up_to(5, "squat")
