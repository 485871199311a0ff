"""A pipeline of fakes: an interpreter that counts, a pose model with fixed scores, a collector."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from edgepose.datatypes import InputSpec, Poses, TensorSpec, TensorToFrame
from edgepose.errors import AcceleratorLostError
from edgepose.inference.failover import SingleModel
from edgepose.messages import PoseMessage
from edgepose.pipeline import FrameResult, Pipeline
from edgepose.protocols import Interpreter, LoadedModel, PoseModel, Tensor
from edgepose.smoothing.no_smoother import NoSmoother
from edgepose.tracking.no_tracker import NoTracker
from tests.builders import SECOND_NS, frame_of, poses_of


class FakeInterpreter:
    """Counts its invokes and whether it was closed."""

    input = TensorSpec("in", (1, 8, 8, 3), np.dtype(np.uint8))
    outputs: tuple[TensorSpec, ...] = ()

    def __init__(self) -> None:
        self.invoked = 0
        self.closed = False

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        self.invoked += 1
        return [tensor]

    def close(self) -> None:
        self.closed = True


class FakePoseModel:
    """Finds one pose, with one score in the whole frame and another in a crop."""

    input_spec = InputSpec((8, 8), np.dtype(np.uint8))

    def __init__(self, in_frame: float, in_crop: float, *, crops: bool = True) -> None:
        self.scores = {False: in_frame, True: in_crop}
        self.crops = crops
        self.points = np.linspace(10, 40, 34).reshape(17, 2)
        self.cropped: list[bool] = []

    def decode(self, outputs: Sequence[Tensor], to_frame: TensorToFrame) -> Poses:
        cropped = to_frame.scale_xy[0] < 8
        self.cropped.append(cropped)
        return poses_of(self.points, score=self.scores[cropped])


class MessageCollector:
    """A sink that keeps its messages."""

    def __init__(self) -> None:
        self.messages: list[PoseMessage] = []

    def publish(self, message: PoseMessage) -> None:
        self.messages.append(message)

    def close(self) -> None: ...


class FakeModels:
    """A model provider that loses its models one by one."""

    def __init__(self, *models: LoadedModel) -> None:
        self.models = list(models)

    @property
    def ready(self) -> bool:
        return bool(self.models)

    @property
    def current(self) -> LoadedModel:
        if not self.models:
            raise AcceleratorLostError("no model")
        return self.models[0]

    def report_lost(self, model: LoadedModel, error: AcceleratorLostError, /) -> None:
        if self.models and self.models[0] is model:
            del self.models[0]
        if not self.models:
            raise error


def loaded_model(interpreter: Interpreter, model: PoseModel) -> LoadedModel:
    """Return a model of fakes with a pose threshold of 0.5."""
    return LoadedModel("fake", Path("fake"), "cpu", interpreter, model, 0.5, 0.3)


class PipelineRig:
    """A pipeline of fakes, with access to its parts."""

    def __init__(self, model: FakePoseModel, *, every_frame: bool = False) -> None:
        self.model = model
        self.sink = MessageCollector()
        self.interpreter = FakeInterpreter()
        self.pipeline = Pipeline(
            SingleModel(loaded_model(self.interpreter, model)),
            NoTracker(),
            NoSmoother(),
            [self.sink],
            node="node",
            camera="cam",
            every_frame=every_frame,
        )
        self._count = 0

    def process(self, *, still: bool = False) -> FrameResult:
        """Process the next frame, a second after the last one."""
        self._count += 1
        frame = frame_of(timestamp_ns=self._count * SECOND_NS, sequence=self._count)
        return self.pipeline.process(replace(frame, still=still))
