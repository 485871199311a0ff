"""Every seam of edgepose on one page: what a part must do to take its place in the line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import (
    CropRegion,
    Frame,
    InputSpec,
    Poses,
    TensorSpec,
    TensorToFrame,
    TrackedPoses,
)
from edgepose.errors import AcceleratorLostError
from edgepose.messages import PoseMessage

Tensor = NDArray[np.generic]


@runtime_checkable
class FrameSource(Protocol):
    """Where frames come from; opened by `with`, closed by leaving it.

    `live` sources produce frames whether or not anyone takes them (a camera); the others wait.
    `description` is a few words for logs and messages.
    """

    live: bool
    description: str

    def __enter__(self) -> Self:
        """Open the source; raise SourceError with the reason and the remedy where it cannot be."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the source; closing twice is fine."""
        ...

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the source ends.

        Raises SourceStalledError where a live source is silent for too long, and SourceError where
        it fails for good.
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
    """What a model's tensors mean."""

    input_spec: InputSpec

    def decode(self, outputs: Sequence[Tensor], to_frame: TensorToFrame) -> Poses:
        """Turn the raw outputs into poses in frame px, best first; unlikely ones included."""
        ...

    def default_region(self, frame_size_wh: tuple[int, int]) -> CropRegion:
        """Return the whole frame, padded to the shape of the input."""
        ...

    def next_region(self, poses: Poses, frame_size_wh: tuple[int, int]) -> CropRegion | None:
        """Say where to look in the next frame; None is the whole frame."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to look: its interpreter, what its tensors mean, and which scores count.

    Scores do not carry over from one accelerator to another, so the thresholds stand here: a pose
    is one from `pose_threshold` on, a keypoint is published from `keypoint_threshold` on.
    `degraded` says that it stands in for an accelerator that is away.
    """

    name: str
    path: Path
    kind: str
    device: str
    interpreter: Interpreter
    pose_model: PoseModel
    pose_threshold: float
    keypoint_threshold: float
    degraded: bool = False


class ModelProvider(Protocol):
    """Says which model looks at the next frame."""

    @property
    def current(self) -> LoadedModel:
        """The model to look with; raises AcceleratorLostError while there is none."""
        ...

    @property
    def ready(self) -> bool:
        """Whether there is a model to look with."""
        ...

    def lost(self, model: LoadedModel, error: AcceleratorLostError, /) -> None:
        """Hear that a model's accelerator died; raise the error where nothing stands in for it."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """Who is who from frame to frame."""

    def update(self, poses: Poses, timestamp_ns: int) -> TrackedPoses:
        """Give every pose of the next frame its track id; timestamps never go back."""
        ...

    def reset(self) -> None:
        """Forget all tracks; ids are not used again."""
        ...


@runtime_checkable
class Smoother(Protocol):
    """Takes the jitter out of tracked keypoints."""

    def apply(self, tracked: TrackedPoses, timestamp_ns: int) -> TrackedPoses:
        """Return the same poses with smoothed keypoints and boxes."""
        ...

    def reset(self) -> None:
        """Forget the past."""
        ...


@runtime_checkable
class Sink(Protocol):
    """Where pose messages go."""

    def publish(self, message: PoseMessage) -> None:
        """Hand one message over; never blocks on a peer."""
        ...

    def close(self) -> None:
        """Deliver what can be delivered and free everything; closing twice is fine."""
        ...
