"""Which poses count: those that are found again on crops around them."""

import numpy as np
import pytest

from edgepose.datatypes import CropRegion, Poses
from edgepose.detection.crop_state import CropState
from edgepose.protocols import LoadedModel
from tests.builders import frame_of, poses_of
from tests.fakes.pipeline import CROP, FakeInterpreter, FakePoseModel, loaded_model

BODY = np.linspace(10, 40, 34).reshape(17, 2)
"""A body 30 px tall."""
ELSEWHERE = BODY + 60


@pytest.fixture
def model() -> LoadedModel:
    """A model whose poses count from a score of 0.5."""
    return loaded_model(FakeInterpreter(), FakePoseModel(0, 0))


def found(crop: CropState, model: LoadedModel, *candidates: Poses) -> list[tuple[int, bool]]:
    """Return how many poses each update reports, and whether a crop follows."""
    steps = []
    for candidate in candidates:
        poses = crop.update(candidate, model, frame_of())
        steps.append((len(poses), crop.region is not None))
    return steps


def test_crop_state_reports_a_pose_found_on_two_crops(model: LoadedModel) -> None:
    """Also if its score in the whole frame is too low."""
    crop = CropState()
    low, high = poses_of(BODY, score=0.3), poses_of(BODY + 1, score=0.6)
    assert found(crop, model, low, high, high, high) == [(0, True), (0, True), (1, True), (1, True)]


def test_crop_state_pose_that_moves_elsewhere_on_the_crop(model: LoadedModel) -> None:
    """A person stays in place; a false positive often does not, however high it scores."""
    crop, there, elsewhere = CropState(), poses_of(BODY), poses_of(ELSEWHERE)
    steps = found(crop, model, there, elsewhere, there, elsewhere)
    assert steps == [(0, True), (0, False), (0, True), (0, False)]


def test_crop_state_pose_that_moves_on_the_second_crop(model: LoadedModel) -> None:
    there, elsewhere = poses_of(BODY), poses_of(ELSEWHERE)
    assert found(CropState(), model, there, there, elsewhere)[-1] == (0, False)


def test_crop_state_reported_pose_may_move(model: LoadedModel) -> None:
    """At a low frame rate, a person is elsewhere in the next frame."""
    there, elsewhere = poses_of(BODY), poses_of(ELSEWHERE)
    assert found(CropState(), model, there, there, there, elsewhere)[-1] == (1, True)


def test_crop_state_lost_pose_is_confirmed_again(model: LoadedModel) -> None:
    there, low = poses_of(BODY), poses_of(BODY, score=0.3)
    steps = found(CropState(), model, there, there, there, low, there, there, there)
    assert [reported for reported, _ in steps] == [0, 0, 1, 0, 0, 0, 1]
    assert steps[3] == (0, False)


def test_crop_state_confirming_score_in_a_video(model: LoadedModel) -> None:
    """From 1.2 times the threshold of 0.5; the threshold is sufficient from then on."""
    weak, strong = poses_of(BODY, score=0.59), poses_of(BODY, score=0.61)
    assert [reported for reported, _ in found(CropState(), model, *[weak] * 4)] == [0, 0, 0, 0]
    steps = found(CropState(), model, strong, strong, strong, weak)
    assert [reported for reported, _ in steps] == [0, 0, 1, 1]
    assert found(CropState(still=True), model, weak, weak)[-1][0] == 1


def test_crop_state_of_a_still_frame_needs_one_crop(model: LoadedModel) -> None:
    there, elsewhere = poses_of(BODY), poses_of(ELSEWHERE)
    assert found(CropState(still=True), model, there, there)[-1][0] == 1
    assert found(CropState(still=True), model, there, elsewhere)[-1][0] == 0


def test_crop_state_few_keypoints_in_common_are_no_agreement(model: LoadedModel) -> None:
    """Three keypoints in the same place are not the same pose."""
    scores = np.full((1, 17), 0.1, np.float32)
    scores[0, :3] = 0.9
    pose = poses_of(BODY)
    few = Poses(pose.keypoints, scores, pose.scores, pose.boxes_xyxy)
    assert found(CropState(still=True), model, few, few)[-1][0] == 0


def test_crop_state_without_a_region_reports_at_once(model: LoadedModel) -> None:
    """Of a body as large as the frame there is no crop."""
    large = loaded_model(FakeInterpreter(), FakePoseModel(0, 0, crops=False))
    assert found(CropState(), large, poses_of(BODY), poses_of(ELSEWHERE)) == [(1, False)] * 2


def test_crop_state_regions_of_another_frame_size(model: LoadedModel) -> None:
    crop = CropState()
    crop.region_for(frame_of())
    found(crop, model, *[poses_of(BODY)] * 3)
    assert crop.region_for(frame_of()) == CropRegion(0, 0, 32, 32) == CROP
    assert crop.region_for(frame_of((32, 24))) is None
    assert found(crop, model, poses_of(BODY)) == [(0, True)]
