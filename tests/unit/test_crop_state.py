"""Which part of a frame is detected, at which angle, and which poses are reported."""

import numpy as np
import pytest

from edgepose.datatypes import CropRegion, Frame, InputSpec, Poses
from edgepose.detection.crop_state import CropState
from tests.bodies import MS, at, lying, turned
from tests.builders import poses_of
from tests.fakes.pipeline import FakeInterpreter, FakePoseModel, loaded_model

SPEC = InputSpec((192, 192), np.dtype(np.uint8))
WHOLE = CropRegion(0, -80, 640, 560)
PLACE = at(200, 100)
ELSEWHERE = at(400, 100)
NOTHING = poses_of(PLACE, score=0.1)


class Stream:
    """Frames of 640x480, 10 a second; a pose counts from a score of 0.5."""

    def __init__(self, *, crops: bool = True, still: bool = False, every_ms: int = 100) -> None:
        self.crop = CropState(still=still)
        self.regions: list[CropRegion] = []
        self.size_wh = (640, 480)
        self._model = loaded_model(FakeInterpreter(), FakePoseModel(0, 0, crops=crops))
        self._every_ns = every_ms * MS
        self._now_ns = 0

    def find(self, *poses: Poses) -> list[int]:
        """Return how many poses are reported in the next frames, if these are found there."""
        reported = []
        for pose in poses:
            self._now_ns += self._every_ns
            image = np.zeros((*self.size_wh[::-1], 3), np.uint8)
            frame = Frame(image, self._now_ns, 0)
            self.regions.append(self.crop.region_for(frame, SPEC))
            reported.append(len(self.crop.update(pose, self._model, frame)))
        return reported

    @property
    def turns(self) -> list[int]:
        return [region.turns for region in self.regions]

    @property
    def whole(self) -> list[bool]:
        return [region.x_max - region.x_min == 640 for region in self.regions]


def edges(region: CropRegion) -> tuple[float, float, float, float]:
    return region.x_min, region.y_min, region.x_max, region.y_max


def following(pose: Poses, *, every_ms: int = 100) -> Stream:
    """Return a stream that follows a pose since its third frame."""
    stream = Stream(every_ms=every_ms)
    assert stream.find(pose, pose, pose) == [0, 0, 1]
    assert stream.crop.new_subject
    return stream


def test_crop_state_reports_a_pose_found_on_two_crops() -> None:
    """Also if its score in the whole frame is too low."""
    stream = Stream()
    low, high = poses_of(PLACE, score=0.3), poses_of(PLACE, score=0.6)
    assert stream.find(low, high, high, high) == [0, 0, 1, 1]
    assert stream.whole == [True, False, False, False]
    # The square around the hips, of 1.2 times their distance to the ankles.
    assert edges(stream.regions[1]) == pytest.approx((136, 81, 364, 309))


def test_crop_state_pose_that_moves_elsewhere_on_the_crop() -> None:
    """A person stays in place; a false positive often does not."""
    stream, there, elsewhere = Stream(), poses_of(PLACE), poses_of(ELSEWHERE, score=0.69)
    assert stream.find(there, elsewhere, there, there, elsewhere) == [0, 0, 0, 0, 0]
    assert stream.whole == [True, False, True, False, False]
    assert stream.turns == [0, 0, 0, 0, 0]


def test_crop_state_another_person_in_the_crop() -> None:
    """From 1.4 times the threshold of 0.5 on, the pose in the crop is the candidate, once."""
    there, other = poses_of(PLACE), poses_of(ELSEWHERE, score=0.71)
    stream = Stream()
    assert stream.find(there, other, other, other) == [0, 0, 0, 1]
    assert stream.whole == [True, False, False, False]
    assert Stream(still=True).find(there, other, other) == [0, 0, 1]
    stream = Stream()
    assert stream.find(there, other, there, other) == [0, 0, 0, 0]
    assert stream.whole == [True, False, False, True]


def test_crop_state_few_keypoints_in_common_are_no_agreement() -> None:
    """Three keypoints in the same place are not the same pose."""
    pose = poses_of(PLACE)
    scores = np.full((1, 17), 0.1, np.float32)
    scores[0, :3] = 0.9
    few = Poses(pose.keypoints, scores, pose.scores, pose.boxes_xyxy)
    assert Stream().find(few, few, few) == [0, 0, 0]


def test_crop_state_body_as_large_as_the_frame() -> None:
    """There is no smaller region around it: it is reported at once, and followed."""
    stream, large = Stream(), poses_of((PLACE - (250, 195)) * 3 + (420, 240))
    assert stream.find(large, large) == [1, 1]
    assert stream.whole == [True, True]


def test_crop_state_reports_all_poses_of_a_model_without_crops() -> None:
    stream = Stream(crops=False)
    several = poses_of(PLACE, ELSEWHERE)
    assert stream.find(several, NOTHING, several) == [2, 0, 2]
    assert stream.regions == [WHOLE] * 3


def test_crop_state_search_tries_other_angles_every_400_ms() -> None:
    """Each other angle every 0.8 s; more often would only find more false positives."""
    stream = Stream()
    nothing = poses_of(np.full((17, 2), 50.0), score=0.0)
    assert stream.find(*[nothing] * 14) == [0] * 14
    assert stream.turns == [0, 1, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 3]
    assert all(stream.whole)


def test_crop_state_search_at_a_low_frame_rate_is_upright_half_of_the_time() -> None:
    stream = Stream(every_ms=1000)
    nothing = poses_of(np.full((17, 2), 50.0), score=0.0)
    stream.find(*[nothing] * 6)
    assert stream.turns == [0, 1, 0, 3, 0, 1]


def test_crop_state_finds_a_body_on_the_floor() -> None:
    """In crops that are turned as the frame was."""
    stream = Stream()
    low, pose = poses_of(lying(200, 200), score=0.2), poses_of(lying(200, 200))
    assert stream.find(low, pose, pose, pose, pose) == [0, 0, 0, 1, 1]
    assert stream.turns == [0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("score", "every_ms", "frames"),
    [(0.59, 33, 6), (0.51, 99, 6), (0.51, 100, 3), (0.61, 33, 2), (0.61, 500, 2)],
)
def test_crop_state_low_score_needs_more_crops(score: float, every_ms: int, frames: int) -> None:
    """From 1.2 times the threshold of 0.5 on, two are sufficient at every frame rate."""
    reported = Stream(every_ms=every_ms).find(*[poses_of(PLACE, score=score)] * 8)
    assert reported == [0] * frames + [1] * (8 - frames)


def test_crop_state_score_below_the_threshold_is_not_confirmed() -> None:
    assert Stream().find(*[poses_of(PLACE, score=0.49)] * 8) == [0] * 8


def test_crop_state_whole_frame_with_a_very_low_score() -> None:
    """From half of the threshold on a pose is a candidate, of which a crop follows."""
    stream = Stream()
    stream.find(poses_of(PLACE, score=0.26), NOTHING, poses_of(PLACE, score=0.24), NOTHING)
    assert stream.whole == [True, False, True, True]


def test_crop_state_turned_still_image() -> None:
    """Its threshold is 1.1 times that of 0.5."""
    low = poses_of(lying(200, 200), score=0.1)
    weak, sufficient = (poses_of(lying(200, 200), score=score) for score in (0.54, 0.56))
    stream = Stream(still=True, every_ms=0)
    assert stream.find(low, *[weak] * 4) == [0] * 5
    assert stream.turns == [0, 1, 1, 3, 3]
    assert stream.crop.decided
    assert Stream(still=True, every_ms=0).find(low, *[sufficient] * 7) == [0] * 7 + [1]


def test_crop_state_follows_a_person_who_moves() -> None:
    """80 px a second, at 10 frames a second; the crop goes ahead."""
    stream = Stream()
    ways = [poses_of(at(100 + 8 * index, 100)) for index in range(30)]
    assert stream.find(*ways) == [0, 0] + [1] * 28
    assert stream.turns == [0] * 30
    # The hips are expected 8 px further than in the last frame; the crop may be 10% off.
    assert stream.regions[-1].x_min == pytest.approx(100 + 8 * 29 + 50 - 114, abs=0.1 * 228)


def test_crop_state_eases_the_crop() -> None:
    """The crop of a person at rest moves less than the keypoints, and reaches a new place."""
    stream = following(poses_of(PLACE))
    rest = stream.regions[-1]
    stream.find(*(poses_of(at(200 + x, 100)) for x in (3, -3, 3, -3)))
    assert [region.x_min for region in stream.regions[3:]] == pytest.approx([rest.x_min] * 4, abs=2)
    stream.find(*[poses_of(at(214, 100))] * 15)
    assert edges(stream.regions[-1]) == pytest.approx(
        [side + step for side, step in zip(edges(rest), (14, 0, 14, 0), strict=True)], abs=1
    )


def test_crop_state_does_not_report_another_body_once() -> None:
    stream = following(poses_of(PLACE))
    assert stream.find(poses_of(ELSEWHERE), poses_of(PLACE), poses_of(PLACE)) == [0, 1, 1]
    assert not stream.crop.new_subject
    assert {edges(region) for region in stream.regions[2:]} == {edges(stream.regions[2])}


def test_crop_state_goes_on_with_another_person_who_stays() -> None:
    """After 0.3 s without the subject, if two frames agree."""
    stream = following(poses_of(PLACE))
    assert stream.find(*[poses_of(ELSEWHERE)] * 2) == [0, 0]
    assert stream.find(poses_of(ELSEWHERE)) == [1]
    assert stream.crop.new_subject
    assert stream.find(poses_of(ELSEWHERE)) == [1]
    assert not stream.crop.new_subject


def test_crop_state_at_30_frames_a_second_waits_for_the_subject() -> None:
    stream = following(poses_of(PLACE), every_ms=33)
    assert stream.find(*[poses_of(ELSEWHERE)] * 11) == [0] * 9 + [1] * 2


def test_crop_state_another_person_who_comes_to_the_place_is_a_new_one() -> None:
    """The pose is more similar to what is expected of that one than of the subject."""
    stream = following(poses_of(PLACE))
    assert stream.find(poses_of(at(260, 100)), poses_of(at(235, 100))) == [0, 0]
    assert stream.find(poses_of(at(222, 100))) == [1]
    assert stream.crop.new_subject


def test_crop_state_another_body_is_remembered_for_a_second() -> None:
    """Then one frame is not enough to go on with it."""
    stream = following(poses_of(PLACE))
    stream.find(poses_of(ELSEWHERE), *[poses_of(PLACE)] * 8)
    assert stream.find(NOTHING, NOTHING, poses_of(ELSEWHERE)) == [0, 0, 0]


def test_crop_state_lost_subject_is_expected_at_its_place() -> None:
    """The crop stays for 0.4 s, at the same angle and then at the others; then it is searched."""
    stream = following(poses_of(PLACE))
    assert stream.find(*[NOTHING] * 7) == [0] * 7
    assert stream.turns[3:] == [0, 0, 1, 3, 0, 0, 0]
    assert stream.whole[3:9] == [False, False, False, False, False, True]
    assert {edges(region) for region in stream.regions[2:8]} == {edges(stream.regions[2])}


def test_crop_state_subject_found_again_is_no_new_one() -> None:
    stream = following(poses_of(PLACE))
    stream.find(*[NOTHING] * 6)
    assert 1 in stream.find(*[poses_of(PLACE)] * 4)
    assert not stream.crop.new_subject


def test_crop_state_person_found_elsewhere_is_a_new_one() -> None:
    stream = following(poses_of(PLACE))
    stream.find(*[NOTHING] * 6)
    news = []
    for _ in range(5):
        stream.find(poses_of(ELSEWHERE))
        news.append(stream.crop.new_subject)
    assert news.count(True) == 1


def test_crop_state_subject_is_forgotten_after_two_seconds() -> None:
    stream = following(poses_of(PLACE))
    nothing = poses_of(np.full((17, 2), 50.0), score=0.0)
    stream.find(*[nothing] * 20)
    news = []
    for _ in range(5):
        stream.find(poses_of(PLACE))
        news.append(stream.crop.new_subject)
    assert news.count(True) == 1


def test_crop_state_subject_found_on_the_floor_is_no_new_one() -> None:
    """A fall between two frames: the keypoints are elsewhere, the body is not."""
    stream = following(poses_of(PLACE))
    stream.find(NOTHING, NOTHING)
    fallen = poses_of(lying(155, 190))
    assert stream.find(fallen, fallen, fallen) == [0, 1, 1]
    assert not stream.crop.new_subject
    assert stream.turns[-3:] == [1, 1, 1]


@pytest.mark.parametrize(("degrees", "turns"), [(65, 0), (75, 1), (-65, 0), (-75, 3)])
def test_crop_state_turns_the_crop_with_the_torso(degrees: float, turns: int) -> None:
    """Beyond 70 degrees, and back beyond 70 degrees from there."""
    stream = following(poses_of(PLACE))
    steps = np.linspace(0, degrees, 8).tolist()
    leaning = [poses_of(turned(PLACE, step)) for step in steps]
    assert stream.find(*leaning, leaning[-1]) == [1] * 9
    assert stream.turns[-1] == turns
    assert not stream.crop.new_subject
    upright = [poses_of(turned(PLACE, step)) for step in reversed(steps)]
    assert stream.find(*upright, upright[-1]) == [1] * 9
    assert stream.turns[-1] == 0


def test_crop_state_begins_again_with_frames_of_another_size() -> None:
    stream = following(poses_of(PLACE))
    stream.size_wh = (320, 240)
    assert stream.find(NOTHING) == [0]
    assert edges(stream.regions[-1]) == (0, -40, 320, 280)


def test_crop_state_of_a_still_frame_needs_one_upright_crop() -> None:
    stream = Stream(still=True)
    assert stream.find(poses_of(PLACE), poses_of(PLACE)) == [0, 1]
    assert stream.crop.decided


def test_crop_state_of_a_still_frame_tries_every_angle_once() -> None:
    """Turned, it needs as many crops as in a video."""
    stream = Stream(still=True)
    body = poses_of(lying(200, 200))
    assert stream.find(poses_of(PLACE, score=0.3), NOTHING) == [0, 0]
    undecided = not stream.crop.decided
    assert undecided
    assert stream.find(body, body, body) == [0, 0, 1]
    assert stream.crop.decided
    assert stream.turns == [0, 0, 1, 1, 1]


def test_crop_state_of_an_empty_still_frame_comes_to_an_end() -> None:
    stream = Stream(still=True)
    nothing = poses_of(np.full((17, 2), 50.0), score=0.0)
    assert stream.find(nothing, nothing) == [0, 0]
    undecided = not stream.crop.decided
    assert undecided
    assert stream.find(nothing) == [0]
    assert stream.crop.decided
    assert stream.turns == [0, 1, 3]


def test_crop_state_searches_a_part_of_the_frame() -> None:
    """The region of interest, padded to a square within the frame."""
    crop = CropState()
    frame = Frame(np.zeros((480, 640, 3), np.uint8), 0, 0)
    region = crop.region_for(frame, SPEC, (0.5, 0.0, 1.0, 0.25))
    assert edges(region) == (320, 0, 640, 320)
