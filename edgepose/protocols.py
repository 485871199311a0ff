"""The interfaces of edgepose on one page: what a part must provide to be used in the pipeline."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import (
    Event,
    Frame,
    InputSpec,
    Poses,
    Posture,
    TensorSpec,
    TensorToFrame,
    TrackedFrame,
    TrackedPoses,
)
from edgepose.errors import AcceleratorLostError
from edgepose.messages import PoseMessage

Tensor = NDArray[np.generic]


class FrameDemand(Protocol):
    """What the consumer of a live source needs of it now."""

    @property
    def idle(self) -> bool:
        """Whether so few frames are used that the camera may deliver fewer."""
        ...

    def wanted(self) -> bool:
        """Return whether a frame that arrives now is used."""
        ...


FrameStream = Generator[Frame, FrameDemand | None, None]
"""Frames; a consumer that sends a demand for the next one may still be given others."""


@runtime_checkable
class FrameSource(Protocol):
    """Where frames come from.

    `live` sources (a camera) produce frames whether or not they are consumed; the others wait.
    `description` is a few words for logs and messages.
    """

    live: bool
    description: str

    def frames(self) -> FrameStream:
        """Open the source, yield its frames, and close it at their end or with the generator.

        A live source may use the demand that was sent to save work for frames that are not wanted.
        Raises SourceError with the reason and the remedy if it cannot be opened or fails for good,
        and SourceStalledError if a live source delivers nothing for too long.
        """
        ...


@runtime_checkable
class Interpreter(Protocol):
    """One model, loaded and ready."""

    input: TensorSpec
    outputs: tuple[TensorSpec, ...]

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        """Run the model on a tensor of `input`'s shape and dtype.

        The returned arrays are as stored (not dequantized), in the order of `outputs`, and belong
        to the caller. Raises AcceleratorError.
        """
        ...

    def close(self) -> None:
        """Free the model; closing twice is fine."""
        ...


@runtime_checkable
class PoseModel(Protocol):
    """The meaning of a model's tensors.

    `crops` is whether it finds one pose, best in a crop of the frame around it.
    """

    input_spec: InputSpec
    crops: bool

    def decode(self, outputs: Sequence[Tensor], to_frame: TensorToFrame) -> Poses:
        """Convert the raw outputs to poses in frame px, best first, unlikely ones included."""
        ...


@dataclass(frozen=True, slots=True)
class ThreadChoice:
    """The number of CPU threads of a model, and where it comes from.

    It is `configured`, `measured` (here and now, or before), or the `default`. `invoke_ms` is the
    measured median time of an inference by number of threads.
    """

    count: int
    reason: Literal["configured", "measured", "default"]
    invoke_ms: Mapping[int, float] = field(default_factory=dict)

    def __str__(self) -> str:
        threads = "1 CPU thread" if self.count == 1 else f"{self.count} CPU threads"
        match self.reason:
            case "configured":
                return f"{threads} as configured"
            case "measured":
                times = ", ".join(f"{count}: {ms:.1f} ms" for count, ms in self.invoke_ms.items())
                return f"{threads}, measured on this machine ({times})"
            case _:
                return f"{threads}, one for each core and at most four"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to run: its interpreter, the meaning of its tensors, its thresholds.

    Scores do not carry over from one accelerator to another, so the thresholds belong to the model:
    poses below `pose_threshold` are dropped, keypoints below `keypoint_threshold` are published as
    null. `degraded` marks the fallback of an accelerator that is not available. `check` raises
    AcceleratorLostError if the accelerator is lost, and costs next to nothing. `verifier` is the
    single-pose model, on the CPU, by which new poses are verified; None if they count at once.
    `threads` returns the present number of CPU threads, None on another device.
    """

    name: str
    path: Path
    device: str
    interpreter: Interpreter
    pose_model: PoseModel
    pose_threshold: float
    keypoint_threshold: float
    degraded: bool = False
    check: Callable[[], None] = lambda: None
    verifier: "LoadedModel | None" = None
    threads: Callable[[], ThreadChoice | None] = lambda: None

    def close(self) -> None:
        """Free the model and its verifier; closing twice is fine."""
        self.interpreter.close()
        if self.verifier is not None:
            self.verifier.close()


class ModelProvider(Protocol):
    """Provides the model for the next frame."""

    @property
    def current(self) -> LoadedModel:
        """The model to run; raises AcceleratorLostError while there is none."""
        ...

    @property
    def ready(self) -> bool:
        """Whether there is a model to run."""
        ...

    def report_lost(self, model: LoadedModel, error: AcceleratorLostError, /) -> None:
        """Note that a model's accelerator is lost; raises the error if there is no fallback."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """Keeps the same id for a person across frames."""

    def update(self, poses: Poses, timestamp_ns: int) -> TrackedPoses:
        """Assign track ids to the poses of the next frame; timestamps never decrease.

        A second pose of the same body may be left out.
        """
        ...

    def reset(self) -> None:
        """Forget all tracks; ids are not used again."""
        ...


@runtime_checkable
class Smoother(Protocol):
    """Removes jitter from tracked keypoints."""

    def apply(self, tracked: TrackedPoses, timestamp_ns: int) -> TrackedPoses:
        """Return the same poses with smoothed keypoints and boxes."""
        ...

    def reset(self) -> None:
        """Forget all filters."""
        ...


@runtime_checkable
class PostureEstimator(Protocol):
    """Estimates the postures of tracked poses."""

    def update(self, tracked: TrackedPoses, timestamp_ns: int) -> tuple[Posture, ...]:
        """Return the posture of each pose of the next frame, from its keypoints as measured."""
        ...

    def reset(self) -> None:
        """Forget all tracks."""
        ...


@runtime_checkable
class EventDetector(Protocol):
    """Turns the tracked poses of one camera into states and events."""

    @property
    def states(self) -> Mapping[str, str]:
        """The present states: payload by topic below the camera's, such as `presence`."""
        ...

    def update(self, frame: TrackedFrame) -> Sequence[Event]:
        """Add the next frame; return the events."""
        ...

    def tick(self, timestamp_ns: int) -> Sequence[Event]:
        """Advance the time without a frame; return the events.

        A frame that was captured less than MAX_RESULT_DELAY_NS before may still follow.
        """
        ...

    def lost(self, timestamp_ns: int) -> Sequence[Event]:
        """End everything at once, because the camera is closed or failed; return the events."""
        ...


MAX_RESULT_DELAY_NS: Final = 1_000_000_000
"""A captured frame is published within this time; an Edge TPU that hangs delays one the longest."""


@runtime_checkable
class Sink(Protocol):
    """Where pose messages go."""

    def publish(self, message: PoseMessage) -> None:
        """Take one message; never waits for a peer or a disk."""
        ...

    def close(self) -> None:
        """Deliver what can be delivered and free resources; closing twice is fine."""
        ...
