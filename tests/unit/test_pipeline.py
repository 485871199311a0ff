"""The straight line, told with fakes that count."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepose.datatypes import (
    CropRegion,
    Frame,
    InputSpec,
    Poses,
    TensorSpec,
    TensorToFrame,
)
from edgepose.errors import AcceleratorLostError
from edgepose.inference.failover import SingleModel
from edgepose.messages import PoseMessage
from edgepose.pipeline import MAX_DRIFT, Pipeline, Prepared, Step
from edgepose.protocols import Interpreter, LoadedModel, PoseModel, Tensor
from edgepose.smoothing.no_smoother import NoSmoother
from edgepose.tracking.no_tracker import NoTracker
from tests.helpers import SECOND_NS, frame_of, poses_of

CLOSER = CropRegion(0, 0, 32, 32)


class FakeInterpreter:
    """Counts and returns nothing of interest."""

    input = TensorSpec("in", (1, 8, 8, 3), np.dtype(np.uint8))
    outputs: tuple[TensorSpec, ...] = ()

    def __init__(self) -> None:
        self.invoked = 0

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        self.invoked += 1
        return [tensor]

    def close(self) -> None: ...


class FakeModel:
    """Sees a body with one score in the whole frame and another on a closer look."""

    input_spec = InputSpec((8, 8), np.dtype(np.uint8))

    def __init__(self, first: float, closer: float, *, crops: bool = True) -> None:
        self.scores = {False: first, True: closer}
        self.crops = crops
        self.looks: list[bool] = []

    def decode(self, outputs: Sequence[Tensor], to_frame: TensorToFrame) -> Poses:
        close = to_frame.scale_xy[0] < 8
        self.looks.append(close)
        points = np.linspace(10, 40, 34).reshape(17, 2)
        return poses_of(points, score=self.scores[close])

    def default_region(self, frame_size_wh: tuple[int, int]) -> CropRegion:
        return CropRegion(0, 0, 64, 64)

    def next_region(self, poses: Poses, frame_size_wh: tuple[int, int]) -> CropRegion | None:
        return CLOSER if self.crops and poses.scores[0] >= 0.2 else None


class Collector:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[PoseMessage] = []

    def publish(self, message: PoseMessage) -> None:
        self.messages.append(message)

    def close(self) -> None: ...


def loaded(interpreter: Interpreter, model: PoseModel) -> LoadedModel:
    """A model of fakes that takes a pose from half on."""
    return LoadedModel("fake", Path("fake"), "fake", "cpu", interpreter, model, 0.5, 0.3)


class Line:
    """A pipeline of fakes with its parts at hand."""

    def __init__(self, model: FakeModel, *, every_frame: bool = False) -> None:
        self.model = model
        self.sink = Collector()
        self.interpreter = FakeInterpreter()
        self.pipeline = Pipeline(
            SingleModel(loaded(self.interpreter, model)),
            NoTracker(),
            NoSmoother(),
            [self.sink],
            node="node",
            camera="cam",
            every_frame=every_frame,
        )
        self._count = 0

    def step(self, *, second_look: bool = False) -> Step:
        self._count += 1
        frame = frame_of(timestamp_ns=self._count * SECOND_NS, sequence=self._count)
        return self.pipeline.step(frame, second_look=second_look)


def test_a_body_is_believed_after_a_closer_look() -> None:
    line = Line(FakeModel(0.6, 0.9))
    assert [len(line.step().tracked) for _ in range(4)] == [0, 1, 1, 1]
    assert line.model.looks == [False, True, True, True]


def test_a_ghost_never_shows_and_never_holds_the_view() -> None:
    line = Line(FakeModel(0.6, 0.3))
    assert [len(line.step().tracked) for _ in range(4)] == [0, 0, 0, 0]
    assert line.model.looks == [False, True, False, True]
    assert line.sink.messages == []


def test_without_cropping_the_first_look_decides() -> None:
    assert [len(Line(FakeModel(0.6, 0.0, crops=False)).step().tracked)] == [1]
    assert [len(Line(FakeModel(0.4, 0.0, crops=False)).step().tracked)] == [0]


def test_a_still_picture_is_looked_at_twice_at_once() -> None:
    line = Line(FakeModel(0.3, 0.9))
    assert len(line.step(second_look=True).tracked) == 1
    assert line.interpreter.invoked == 2


def test_a_body_that_comes_too_close_for_a_crop_does_not_blink() -> None:
    line = Line(FakeModel(0.6, 0.9))
    line.step()
    line.step()
    line.model.crops = False
    assert len(line.step().tracked) == 1
    line.model.crops = True
    assert len(line.step().tracked) == 1
    assert line.model.looks == [False, True, True, False]


def test_one_empty_message_says_that_the_last_pose_left() -> None:
    line = Line(FakeModel(0.6, 0.9))
    for _ in range(3):
        line.step()
    line.model.scores = {False: 0.0, True: 0.0}
    for _ in range(3):
        line.step()
    assert [len(message.poses) for message in line.sink.messages] == [1, 1, 0]


def test_every_frame_is_published_where_asked() -> None:
    line = Line(FakeModel(0.0, 0.0), every_frame=True)
    for _ in range(3):
        line.step()
    assert [len(message.poses) for message in line.sink.messages] == [0, 0, 0]


def test_a_camera_that_closes_takes_its_poses_along() -> None:
    line = Line(FakeModel(0.6, 0.9))
    line.step()
    line.step()
    line.pipeline.leave()
    line.pipeline.leave()
    assert [len(message.poses) for message in line.sink.messages] == [1, 0]
    assert line.sink.messages[-1].published_at >= line.sink.messages[0].published_at
    line.step()
    assert line.model.looks[-1] is False


def test_in_a_mirrored_frame_left_and_right_change_places() -> None:
    line = Line(FakeModel(0.6, 0.0, crops=False))
    plain = line.step().tracked.poses.keypoints[0]
    image = np.zeros((48, 64, 3), np.uint8)
    mirrored = line.pipeline.step(Frame(image, 9 * SECOND_NS, 9, mirrored=True))
    swapped = mirrored.tracked.poses.keypoints[0]
    assert swapped[0] == pytest.approx(plain[0])
    assert swapped[5] == pytest.approx(plain[6])
    assert swapped[16] == pytest.approx(plain[15])


def test_the_message_says_what_the_stages_took() -> None:
    line = Line(FakeModel(0.6, 0.0, crops=False))
    step = line.step()
    timings = step.message.timings_ms
    stages = timings.preprocess + timings.invoke + timings.decode + timings.track + timings.smooth
    assert timings.total == pytest.approx(stages, abs=0.003)
    assert step.timings.total_ns > 0
    assert step.publish_ns > 0


def test_what_was_prepared_ahead_serves_while_the_region_hardly_moved() -> None:
    line = Line(FakeModel(0.6, 0.9))
    frame = frame_of(timestamp_ns=SECOND_NS, sequence=1)
    ahead = line.pipeline.prepare_ahead(frame)
    assert isinstance(ahead, Prepared)
    assert line.pipeline.prepare(ahead) is ahead
    # Now there is a body to look closer at: what shows the whole frame is of no use.
    line.pipeline.tell(line.pipeline.see(ahead))
    again = line.pipeline.prepare(ahead)
    assert again is not ahead
    assert again.frame is ahead.frame
    assert again.region == CLOSER
    assert line.pipeline.prepare(again) is again
    side = CLOSER.x_max - CLOSER.x_min
    for share, serves in ((0.9, True), (1.1, False)):
        by = share * MAX_DRIFT * side
        moved = CropRegion(CLOSER.x_min + by, CLOSER.y_min, CLOSER.x_max, CLOSER.y_max - by)
        drifted = replace(again, region=moved)
        assert (line.pipeline.prepare(drifted) is drifted) == serves


class Supply:
    """Models that come and go as the test says."""

    def __init__(self, *models: LoadedModel) -> None:
        self.models = list(models)

    @property
    def ready(self) -> bool:
        return bool(self.models)

    @property
    def current(self) -> LoadedModel:
        if not self.models:
            raise AcceleratorLostError("nothing looks")
        return self.models[0]

    def lost(self, model: LoadedModel, error: AcceleratorLostError, /) -> None:
        if self.models and self.models[0] is model:
            del self.models[0]
        if not self.models:
            raise error


class Dying(FakeInterpreter):
    """Dies at its second invoke."""

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        super().invoke(tensor)
        if self.invoked > 1:
            raise AcceleratorLostError("pulled")
        return [tensor]


def test_the_frame_on_which_an_accelerator_dies_is_looked_at_by_what_stands_in() -> None:
    line = Line(FakeModel(0.6, 0.9))
    dying = replace(loaded(Dying(), line.model), name="tpu", device="edgetpu")
    stand_in = replace(loaded(line.interpreter, line.model), name="cpu", degraded=True)
    supply = Supply(dying, stand_in)
    line.pipeline._models = supply
    first, second, third = (line.step() for _ in range(3))
    assert [len(step.tracked) for step in (first, second, third)] == [0, 1, 1]
    assert [(m.sequence, m.model, m.degraded) for m in line.sink.messages] == [
        (2, "cpu", True),
        (3, "cpu", True),
    ]
    assert (first.message.model, first.message.accelerator) == ("tpu", "edgetpu")
    assert first.message.degraded is False


def test_without_any_model_a_frame_waits_as_it_is() -> None:
    line = Line(FakeModel(0.6, 0.9))
    line.pipeline._models = Supply()
    frame = frame_of(timestamp_ns=SECOND_NS, sequence=1)
    assert not line.pipeline.can_look
    assert line.pipeline.prepare_ahead(frame) is frame
    with pytest.raises(AcceleratorLostError, match="nothing looks"):
        line.pipeline.prepare(frame)
