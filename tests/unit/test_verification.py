"""Which poses of a stream are verified, and on which frames the verifying model runs."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from msgspec.structs import replace

from edgepose.datatypes import CropRegion, Frame, Image, Poses
from edgepose.detection.verification import (
    REFUTED_BELOW,
    SURE_THRESHOLD,
    THRESHOLD,
    Verification,
    surroundings,
)
from tests.bodies import BODY, Body, at
from tests.builders import poses_of

IMAGE = np.zeros((480, 640, 3), np.uint8)
PERSON, GHOST = THRESHOLD + 0.01, THRESHOLD - 0.01
POSE_THRESHOLD = 0.4


class Stream:
    """Frames at a rate, with a verifying model whose score depends on the place.

    It finds the first body, or its keypoints in other places.
    """

    def __init__(self, score: Callable[[float], float] = lambda _: PERSON, fps: float = 30) -> None:
        self.verification = Verification()
        self.fps = fps
        self.elsewhere = False
        self.regions: list[tuple[int, CropRegion]] = []
        self._score = score
        self._count = 0

    def frame(
        self,
        *bodies: Body,
        scores: Sequence[float] = (),
        image: Image = IMAGE,
        still: bool = False,
    ) -> list[float]:
        """Return the x of the left edge of each verified body of the next frame."""
        self._count += 1
        time_ns = round(self._count * 1e9 / self.fps)

        def detect(region: CropRegion) -> Poses:
            self.regions.append((self._count, region))
            score = self._score((region.x_min + region.x_max) / 2)
            found = poses_of(at(region.x_min, region.y_min) if self.elsewhere else bodies[0])
            return replace(found, scores=np.array([score], np.float32))

        frame = Frame(image, time_ns, self._count, still=still)
        detected = poses_of(*bodies)
        if scores:
            detected = replace(detected, scores=np.array(scores, np.float32))
        poses = self.verification.update(detected, POSE_THRESHOLD, frame, detect)
        return [float(x) for x in poses.boxes_xyxy[:, 0]]

    def frames(self, count: int, *bodies: Body) -> list[int]:
        """Return how many bodies are verified in each of some equal frames."""
        return [len(self.frame(*bodies)) for _ in range(count)]

    @property
    def inferences(self) -> list[int]:
        """The frames, from 1, in which the model ran."""
        return [count for count, _ in self.regions]


def test_verification_two_inferences_confirm_a_pose() -> None:
    """They are a tenth of a second apart; none follows."""
    stream = Stream()
    assert stream.frames(60, at(0)) == [0] * 3 + [1] * 57
    assert stream.inferences == [1, 4]


def test_verification_one_inference_that_finds_the_same_keypoints() -> None:
    stream = Stream(lambda _: SURE_THRESHOLD + 0.01)
    assert stream.frames(60, at(0)) == [1] * 60
    assert stream.inferences == [1]


def test_verification_one_inference_that_finds_other_keypoints() -> None:
    """With whatever score, a second one must confirm it."""
    stream = Stream(lambda _: 0.9)
    stream.elsewhere = True
    assert stream.frames(60, at(0)) == [0] * 3 + [1] * 57
    assert stream.inferences == [1, 4]


def test_verification_refused_pose_is_tried_again_after_longer_pauses() -> None:
    """At 8 frames a second: after 0.25 s, 0.5, 1, 2, 4 and 4 s."""
    stream = Stream(lambda _: GHOST, fps=8)
    assert stream.frames(110, at(0)) == [0] * 110
    assert stream.inferences == [1, 3, 7, 15, 31, 63, 95]


def test_verification_pose_that_is_confirmed_later() -> None:
    """A person who enters is seen half at first."""
    scores = iter((GHOST, PERSON, PERSON))
    stream = Stream(lambda _: next(scores), fps=8)
    assert stream.frames(6, at(0)) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("missed", "expected"), [(9, [1, 1, 1, 1, 1, 1, 1, 1]), (10, [0, 0, 0, 1, 1, 1, 1, 1])]
)
def test_verification_inferences_in_a_row(missed: int, expected: list[int]) -> None:
    """What was missed for more than 0.3 s begins again, as bottles that pass one place."""
    stream = Stream()
    stream.frame(at(0))
    stream.frames(missed)
    assert stream.frames(8, at(0)) == expected


@pytest.mark.parametrize(("missed", "shown"), [(10, 1), (89, 1), (91, 0)])
def test_verification_person_who_is_missed(missed: int, shown: int) -> None:
    """For three seconds, as by the tracker, the place is remembered."""
    stream = Stream()
    stream.frames(4, at(0))
    stream.frames(missed)
    assert stream.frames(1, at(5)) == [shown]


def test_verification_still_six_persons() -> None:
    """Two inferences each, one a frame; a check each in four seconds."""
    stream = Stream()
    counts = stream.frames(1000, *(at(150 * k) for k in range(6)))
    assert counts[0] == 0
    assert counts[11:] == [6] * 989
    assert stream.inferences[:12] == list(range(1, 13))
    assert len(set(stream.inferences)) == len(stream.inferences) <= 12 + 6 * 1000 / 30 / 4


def test_verification_two_inferences_in_a_frame_at_a_low_rate() -> None:
    """Three persons, at 5 frames a second."""
    stream = Stream(fps=5)
    assert stream.frames(5, *(at(150 * k) for k in range(3))) == [0, 2, 2, 3, 3]
    assert stream.inferences == [1, 1, 2, 2, 3, 4]


def test_verification_goes_on_at_a_lower_score() -> None:
    """With a verified body, not with another one, and not in a still frame."""
    stream = Stream(lambda x: PERSON if x < 200 else GHOST)
    weak = 0.8 * POSE_THRESHOLD
    stream.frames(4, at(0), at(300))
    assert stream.frame(at(2), at(300), at(600), scores=(weak, weak, weak)) == [26.0]
    assert stream.inferences == [1, 2, 4]
    assert stream.frame(at(2), scores=(weak,), still=True) == []


def test_verification_lower_score_is_matched_last() -> None:
    """A second pose of a body does not take its place, though it is nearer."""
    stream = Stream()
    stream.frames(4, at(0))
    weak = 0.8 * POSE_THRESHOLD
    assert stream.frame(at(0), at(10), scores=(weak, 0.9)) == [34.0]


def test_verification_ghosts_in_every_frame_take_an_eighth_of_the_frames() -> None:
    """They are in another place each time, so that each is a new one."""
    stream = Stream(lambda _: GHOST)
    for index in range(800):
        assert stream.frame(at(300 * (index % 7)), at(300 * (index % 7), 900)) == []
    assert len(stream.inferences) <= 12 + 800 / 8


def test_verification_body_that_two_checks_refute_is_no_longer_verified() -> None:
    """A coat where a person was: after four seconds and one more."""
    scores = iter([PERSON] * 2 + [REFUTED_BELOW - 0.01] * 9)
    stream = Stream(lambda _: next(scores), fps=10)
    assert stream.frames(80, at(0)) == [0] + [1] * 50 + [0] * 29
    assert stream.inferences[:4] == [1, 2, 42, 52]


def test_verification_person_whom_one_check_refutes_stays_verified() -> None:
    """Somewhat hidden, for a moment."""
    scores = iter([PERSON] * 2 + [REFUTED_BELOW - 0.01, REFUTED_BELOW] * 9)
    stream = Stream(lambda _: next(scores), fps=10)
    assert stream.frames(300, at(0)) == [0] + [1] * 299


def test_verification_new_person_is_verified_before_refused_poses() -> None:
    stream = Stream(lambda x: PERSON if x > 1000 else GHOST)
    ghosts = [at(150 * k) for k in range(5)]
    stream.frames(200, *ghosts)
    assert stream.frames(5, *ghosts, at(1500))[-1] == 1


def test_verification_ghost_beside_a_person() -> None:
    """Only the person is reported, wherever both are in the list."""
    stream = Stream(lambda x: PERSON if x < 200 else GHOST)
    stream.frames(8, at(0), at(300))
    assert stream.frame(at(0), at(300)) == [24.0]
    assert stream.frame(at(300), at(0)) == [24.0]


@pytest.mark.parametrize("fps", [1, 5, 30])
def test_verification_person_who_walks_stays_verified(fps: int) -> None:
    """At a height a second, two persons, who pass each other."""
    stream = Stream(fps=fps)
    step = 190 / fps
    counts = [
        len(stream.frame(at(step * k), at(1500 - step * k, 20))) for k in range(round(6 * fps))
    ]
    verified = counts.index(2)
    assert verified <= max(4, 0.2 * fps)
    assert set(counts[verified:]) == {2}


@pytest.mark.parametrize(
    ("score", "expected"), [(PERSON, [True, True, True, False, False]), (GHOST, [False] * 5)]
)
def test_verification_has_a_candidate_until_it_is_decided(
    score: float, expected: list[bool]
) -> None:
    """A pose that was refused once is none, though it is tried again later."""
    stream = Stream(lambda _: score)
    seen = []
    for _ in expected:
        stream.frame(at(0))
        seen.append(stream.verification.has_candidate)
    assert seen == expected


def test_verification_refused_pose_that_is_confirmed_is_a_candidate() -> None:
    scores = iter((GHOST, PERSON))
    stream = Stream(lambda _: next(scores), fps=4)
    seen = []
    for bodies in ([at(0)], [at(0)], []):
        stream.frame(*bodies)
        seen.append(stream.verification.has_candidate)
    assert seen == [False, True, False]


def test_verification_begins_again_with_frames_of_another_size() -> None:
    stream = Stream()
    stream.frames(4, at(0))
    assert stream.frame(at(0), image=np.zeros((240, 320, 3), np.uint8)) == []


def test_verification_still_frames_are_verified_at_once() -> None:
    """Each pose once, without a part in the stream."""
    stream = Stream(lambda x: PERSON if x < 200 else GHOST)
    assert stream.frame(at(0), at(300), at(100), still=True) == [24.0, 124.0]
    assert len(stream.regions) == 3
    assert stream.frame(at(0)) == []


def test_verification_without_poses_returns_none() -> None:
    stream = Stream()
    assert stream.frame() == []
    assert stream.frame(still=True) == []


def turned(turns: int) -> Poses:
    """Return a body turned counterclockwise by quarter turns about (100, 100)."""
    body = BODY - 100
    for _ in range(turns):
        body = np.stack((body[:, 1], -body[:, 0]), axis=1)
    return poses_of(body + 100)


@pytest.mark.parametrize(("turns", "expected"), [(0, 0), (1, 1), (2, 0), (3, 3)])
def test_surroundings_are_a_square_turned_upright(turns: int, expected: int) -> None:
    """1.25 times the larger side; clockwise is back from a body turned counterclockwise.

    Upside down are bottles more often than persons.
    """
    poses = turned(turns)
    region = surroundings(poses, 0)
    assert region.turns == expected
    x_min, y_min, x_max, y_max = poses.boxes_xyxy[0].tolist()
    assert region.x_min + region.x_max == pytest.approx(x_min + x_max)
    assert region.y_min + region.y_max == pytest.approx(y_min + y_max)
    side = 1.25 * (190 - 7)
    assert region.x_max - region.x_min == pytest.approx(side)
    assert region.y_max - region.y_min == pytest.approx(side)


def test_surroundings_of_a_point_have_a_size() -> None:
    region = surroundings(poses_of(np.full((17, 2), 50.0)), 0)
    assert region == CropRegion(45.0, 45.0, 55.0, 55.0)
