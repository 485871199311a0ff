"""The pipeline, with fakes that count."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from edgepose.datatypes import Frame, Posture, TrackedPoses
from edgepose.detection.crop_state import CropState
from edgepose.errors import AcceleratorLostError
from edgepose.events.angles import JOINTS
from edgepose.events.posture import LogisticPostures
from edgepose.inference.failover import SingleModel
from edgepose.messages import PostureEntry, boot_id
from edgepose.protocols import Tensor
from edgepose.smoothing.no_smoother import NoSmoother
from edgepose.tracking.oks_tracker import OksTracker
from tests.builders import SECOND_NS, frame_of
from tests.fakes.pipeline import (
    FakeInterpreter,
    FakeModels,
    FakePoseModel,
    PipelineRig,
    loaded_model,
)


class Fixed(NoSmoother):
    """Puts all keypoints at a quarter of the frame."""

    def apply(self, tracked: TrackedPoses, timestamp_ns: int) -> TrackedPoses:
        keypoints = np.tile(np.array([16, 12], np.float32), (len(tracked), 17, 1))
        poses = msgspec.structs.replace(tracked.poses, keypoints=keypoints)
        return msgspec.structs.replace(tracked, poses=poses)


class FixedPostures(LogisticPostures):
    """Finds everybody sitting."""

    def update(self, tracked: TrackedPoses, timestamp_ns: int) -> tuple[Posture, ...]:
        return (Posture("sitting", 0.87456),) * len(tracked)


def test_pipeline_confirms_a_pose_in_two_crops() -> None:
    rig = PipelineRig(FakePoseModel(0.6, 0.9))
    assert [len(rig.process().tracked) for _ in range(4)] == [0, 0, 1, 1]
    assert rig.model.cropped == [False, True, True, True]


def test_pipeline_false_positive_is_not_reported_nor_cropped() -> None:
    rig = PipelineRig(FakePoseModel(0.6, 0.3))
    assert [len(rig.process().tracked) for _ in range(4)] == [0, 0, 0, 0]
    assert rig.model.cropped == [False, True, False, True]
    assert rig.sink.messages == []


def test_pipeline_without_cropping_reports_the_first_detection() -> None:
    assert len(PipelineRig(FakePoseModel(0.6, 0.0, crops=False)).process().tracked) == 1
    assert len(PipelineRig(FakePoseModel(0.4, 0.0, crops=False)).process().tracked) == 0


def test_pipeline_confirms_a_still_frame_by_itself() -> None:
    """Each one begins with the whole frame and leaves the crop region of a sequence alone."""
    rig = PipelineRig(FakePoseModel(0.3, 0.9))
    assert len(rig.process(still=True).tracked) == 1
    assert len(rig.process().tracked) == 0
    assert len(rig.process(still=True).tracked) == 1
    assert [len(rig.process().tracked) for _ in range(2)] == [0, 1]
    assert rig.model.cropped == [False, True, False, False, True, True, True]


def test_pipeline_keeps_a_pose_too_large_for_a_crop() -> None:
    """A person who comes so close that the whole frame is needed stays confirmed."""
    rig = PipelineRig(FakePoseModel(0.6, 0.9))
    for _ in range(3):
        rig.process()
    for first, last in ((7, 48), (3, 56), (0, 64)):
        rig.model.points = np.linspace(first, last, 34).reshape(17, 2)
        assert len(rig.process().tracked) == 1
    assert len(rig.process().tracked) == 1
    assert rig.model.cropped == [False, True, True, True, True, False, False]


def test_pipeline_another_person_has_another_id() -> None:
    """Also in the very box of the person before, where the tracker would go on with the old id."""
    rig = PipelineRig(FakePoseModel(0.6, 0.9))
    rig.pipeline.tracker = OksTracker()
    first = [rig.process().tracked.track_ids.tolist() for _ in range(4)]
    rig.model.points = rig.model.points[::-1].copy()
    second = [rig.process().tracked.track_ids.tolist() for _ in range(6)]
    assert first == [[], [], [1], [1]]
    assert second == [[], [], [], [2], [2], [2]]


def test_pipeline_searches_the_region_of_the_frame() -> None:
    """Also after a reload, from the next frame on."""
    rig = PipelineRig(FakePoseModel(0.6, 0.9))
    rig.pipeline.region = (0.0, 0.0, 0.5, 0.5)
    rig.process()
    rig.pipeline.region = (0.0, 0.0, 1.0, 1.0)
    rig.pipeline.reset()
    rig.process()
    # Half of the frame is 32 px wide, as a crop may be.
    assert rig.model.cropped == [True, False]


def test_publish_sends_one_empty_message_after_the_last_pose() -> None:
    rig = PipelineRig(FakePoseModel(0.6, 0.9))
    for _ in range(4):
        rig.process()
    rig.model.scores = {False: 0.0, True: 0.0}
    for _ in range(3):
        rig.process()
    assert [len(message.poses) for message in rig.sink.messages] == [1, 1, 0]


def test_publish_sends_every_frame_if_configured() -> None:
    rig = PipelineRig(FakePoseModel(0.0, 0.0), every_frame=True)
    for _ in range(3):
        rig.process()
    assert [len(message.poses) for message in rig.sink.messages] == [0, 0, 0]


def test_publish_raw_keypoints_if_configured() -> None:
    """Those before smoothing are beside the smoothed ones."""
    rig = PipelineRig(FakePoseModel(0.6, 0.9))
    rig.pipeline.smoother, rig.pipeline.publish_raw = Fixed(), True
    rig.process()
    rig.process()
    (pose,) = rig.process().message.poses
    assert pose.keypoints == [(0.25, 0.25, 0.9)] * 17
    assert isinstance(pose.raw_keypoints, list)
    assert pose.raw_keypoints[0] == pytest.approx((10 / 64, (10 + 30 / 33) / 48, 0.9), abs=1e-4)
    assert pose.raw_keypoints[16] == pytest.approx(((40 - 30 / 33) / 64, 40 / 48, 0.9), abs=1e-4)


def test_publish_postures_and_angles_if_configured() -> None:
    """Poses have them if they are enabled, and detectors of events get the postures."""
    rig = PipelineRig(FakePoseModel(0.6, 0.9))
    for _ in range(3):
        rig.process()
    (plain,) = rig.process().message.poses
    assert (plain.posture, plain.angles) == (msgspec.UNSET, msgspec.UNSET)
    rig.pipeline.postures, rig.pipeline.publish_angles = FixedPostures(), True
    result = rig.process()
    (pose,) = result.message.poses
    assert pose.posture == PostureEntry("sitting", 0.875)
    # All keypoints are on one line, elbow and hip on the same side of the shoulder.
    assert pose.angles == {name: 0.0 if "shoulder" in name else 180.0 for name in JOINTS}
    assert result.tracked_frame.postures == (Posture("sitting", 0.87456),)


def test_publish_empty_once_and_start_with_the_whole_frame() -> None:
    rig = PipelineRig(FakePoseModel(0.6, 0.9))
    for _ in range(3):
        rig.process()
    rig.pipeline.publish_empty()
    rig.pipeline.publish_empty()
    assert [len(message.poses) for message in rig.sink.messages] == [1, 0]
    assert rig.sink.messages[-1].published_at >= rig.sink.messages[0].published_at
    rig.process()
    assert rig.model.cropped[-1] is False


def test_detect_keeps_the_crop_of_each_stream_apart() -> None:
    rig = PipelineRig(FakePoseModel(0.6, 0.9))
    first, second = CropState(), CropState()
    rig.pipeline.detect(frame_of(sequence=0), first)
    rig.pipeline.detect(frame_of(sequence=1), first)
    rig.pipeline.detect(frame_of(sequence=0), second)
    assert rig.model.cropped == [False, True, False]


def test_pipeline_begins_again_with_frames_of_another_size() -> None:
    """Crop region, tracks and filters are in px: as in a stream of that size from its start."""
    rig = PipelineRig(FakePoseModel(0.6, 0.9))
    rig.pipeline.tracker = OksTracker()
    frames = [
        Frame(np.zeros((height, 64, 3), np.uint8), k * SECOND_NS, k)
        for k, height in enumerate((48, 48, 48, 32, 32, 32), 1)
    ]
    ids = [rig.pipeline.process(frame).tracked.track_ids.tolist() for frame in frames]
    assert rig.model.cropped == [False, True, True, False, True, True]
    assert ids == [[], [], [1], [], [], [2]]
    assert [message.frame.height for message in rig.sink.messages] == [48, 32, 32]


def test_detect_exchanges_left_and_right_in_a_mirrored_frame() -> None:
    rig = PipelineRig(FakePoseModel(0.6, 0.0, crops=False))
    plain = rig.process().tracked.poses.keypoints[0]
    image = np.zeros((48, 64, 3), np.uint8)
    mirrored = rig.pipeline.process(Frame(image, 9 * SECOND_NS, 9, mirrored=True))
    exchanged = mirrored.tracked.poses.keypoints[0]
    assert exchanged[0] == pytest.approx(plain[0])
    assert exchanged[5] == pytest.approx(plain[6])
    assert exchanged[16] == pytest.approx(plain[15])


def test_publish_reports_the_timings_of_all_stages() -> None:
    rig = PipelineRig(FakePoseModel(0.6, 0.0, crops=False))
    result = rig.process()
    timings = result.message.timings_ms
    stages = timings.preprocess + timings.invoke + timings.decode + timings.track + timings.smooth
    assert timings.total == pytest.approx(stages, abs=0.003)
    assert result.timings.total_ns > 0
    assert result.publish_ns > 0


class DyingInterpreter(FakeInterpreter):
    """Is lost at its second invoke."""

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        super().invoke(tensor)
        if self.invoked > 1:
            raise AcceleratorLostError("unplugged")
        return [tensor]


def test_detect_runs_the_fallback_on_the_frame_that_lost_the_accelerator() -> None:
    rig = PipelineRig(FakePoseModel(0.6, 0.9))
    primary = replace(loaded_model(DyingInterpreter(), rig.model), name="tpu", device="edgetpu")
    fallback = replace(loaded_model(rig.interpreter, rig.model), name="cpu", degraded=True)
    rig.pipeline.models = FakeModels(primary, fallback)
    results = [rig.process() for _ in range(4)]
    assert [len(result.tracked) for result in results] == [0, 0, 1, 1]
    assert [(m.sequence, m.model, m.degraded) for m in rig.sink.messages] == [
        (3, "cpu", True),
        (4, "cpu", True),
    ]
    first = results[0].message
    assert (first.model, first.accelerator, first.degraded) == ("tpu", "edgetpu", False)


def test_detect_without_a_model_raises() -> None:
    rig = PipelineRig(FakePoseModel(0.6, 0.9))
    rig.pipeline.models = FakeModels()
    with pytest.raises(AcceleratorLostError, match="no model"):
        rig.pipeline.detect(frame_of(), CropState())


def test_pipeline_takes_its_turn_except_to_invoke() -> None:
    """Publishing can go on while a model runs, and never competes with the rest of `detect`."""
    rig = PipelineRig(FakePoseModel(0.6, 0.9, crops=False))
    held: dict[str, bool] = {}

    def observe(name: str, part: Any) -> Any:
        original = getattr(part, name)

        def observed(*arguments: Any) -> Any:
            held[name] = rig.pipeline.turn.locked()
            return original(*arguments)

        return observed

    with pytest.MonkeyPatch.context() as patch:
        for name, part in (
            ("invoke", rig.interpreter),
            ("decode", rig.model),
            ("publish", rig.sink),
        ):
            patch.setattr(part, name, observe(name, part))
        rig.process()
    assert held == {"invoke": False, "decode": True, "publish": True}
    assert not rig.pipeline.turn.locked()


def test_pipeline_uses_each_sequence_number_once() -> None:
    """The empty message repeated the last number, and a source opened again began with 0."""
    rig = PipelineRig(FakePoseModel(0.6, 0.9, crops=False))
    crop = CropState()

    def publish(sequence: int) -> None:
        frame = frame_of(timestamp_ns=(sequence + 1) * SECOND_NS, sequence=sequence)
        rig.pipeline.publish(rig.pipeline.detect(frame, crop))

    for sequence in (0, 2):
        publish(sequence)
    rig.pipeline.publish_empty()
    # The source goes on: what was lost is only the model.
    for sequence in (3, 4):
        publish(sequence)
    rig.pipeline.publish_empty()
    # The source was opened again.
    for sequence in (0, 1, 5):
        publish(sequence)
    assert [m.sequence for m in rig.sink.messages] == [0, 2, 3, 4, 5, 6, 7, 8, 12]
    assert {m.boot for m in rig.sink.messages} == {boot_id()}
    assert len(boot_id()) == 8


def rig_with_verifier(score: float) -> tuple[PipelineRig, FakeInterpreter]:
    """Return a pipeline without cropping, and the interpreter of a verifier with a fixed score."""
    rig, interpreter = PipelineRig(FakePoseModel(0.6, 0.6, crops=False)), FakeInterpreter()
    verifier = loaded_model(interpreter, FakePoseModel(score, score))
    model = replace(loaded_model(rig.interpreter, rig.model), verifier=verifier)
    rig.pipeline.models = SingleModel(model)
    return rig, interpreter


def test_pipeline_verifies_new_poses() -> None:
    """Two inferences of the verifier, on different frames, and none after them."""
    rig, interpreter = rig_with_verifier(0.27)
    assert [len(rig.process().tracked) for _ in range(4)] == [0, 1, 1, 1]
    assert (interpreter.invoked, rig.pipeline.verifications) == (2, 2)


def test_pipeline_does_not_report_poses_that_are_refused() -> None:
    rig, interpreter = rig_with_verifier(0.1)
    assert [len(rig.process().tracked) for _ in range(4)] == [0, 0, 0, 0]
    assert rig.pipeline.verifications == interpreter.invoked > 0
    assert rig.sink.messages == []


@pytest.mark.parametrize(("score", "count"), [(0.9, 1), (0.1, 0)])
def test_pipeline_verifies_a_still_frame_at_once(score: float, count: int) -> None:
    rig, interpreter = rig_with_verifier(score)
    assert len(rig.process(still=True).tracked) == count
    assert interpreter.invoked == 1


def test_pipeline_verifier_goes_on_when_the_accelerator_is_lost() -> None:
    """What was verified before stays verified with the fallback."""
    rig, interpreter = rig_with_verifier(0.27)
    verifier = rig.pipeline.models.current.verifier
    lost = replace(loaded_model(DyingInterpreter(), rig.model), verifier=verifier)
    fallback = replace(loaded_model(rig.interpreter, rig.model), verifier=verifier)
    rig.pipeline.models = FakeModels(lost, fallback)
    assert [len(rig.process().tracked) for _ in range(3)] == [0, 1, 1]
    assert interpreter.invoked == 2
