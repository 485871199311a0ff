"""The types a frame passes through, one coordinate space each.

All are frozen; shapes and dtypes are checked when built, so a function that receives one need not
check again. What is made for each frame is a Struct, which takes a fifth of the time of a frozen
dataclass. "Frame px" are continuous pixel coordinates of the upright frame: (0, 0) is the outer
corner of its first pixel, (width, height) the outer corner of its last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, Self, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edgepose.skeleton import KEYPOINT_COUNT

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

BOX_SCORE: Final = 0.2
"""Keypoints from this score on bound a body; weaker ones are guesses that would inflate it."""

_UINT8: Final = np.dtype(np.uint8)


class Frame(Struct, frozen=True, eq=False):
    """One image of a source at one moment.

    `image` is uint8 (height, width, 3) RGB and becomes read-only; `timestamp_ns` is CLOCK_BOOTTIME;
    `sequence` counts the frames of one source from 0, dropped ones included; `mirrored` means that
    the image is a mirror image of the scene, with left and right exchanged; `path` is the file the
    frame was read from, if any; `still` means that it is not part of a sequence.
    """

    image: Image
    timestamp_ns: int
    sequence: int
    mirrored: bool = False
    path: str | None = None
    still: bool = False

    def __post_init__(self) -> None:
        image, shape = self.image, self.image.shape
        if image.dtype != _UINT8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ValueError(
                f"a frame's image is uint8 (height, width, 3), got {image.dtype} {image.shape}"
            )
        image.setflags(write=False)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the frame in pixels."""
        height, width, _ = self.image.shape
        return width, height


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output tensor of a model file.

    `scale` 0 means not quantized; otherwise real = scale * (stored - zero_point).
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    scale: float = 0.0
    zero_point: int = 0


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The input tensor: pixel * `pixel_scale` + `pixel_offset`, as `dtype`.

    `size_wh` is in tensor px. The tensor's shape is (1, height, width, 3). A frame of another shape
    is padded on both sides if `centred`, else on the right or below.
    """

    size_wh: tuple[int, int]
    dtype: np.dtype[np.generic]
    pixel_scale: float = 1.0
    pixel_offset: float = 0.0
    centred: bool = True


class CropRegion(Struct, frozen=True):
    """The part of a frame that becomes the model's input, in frame px; may exceed the frame.

    The model gets it turned clockwise by `turns` quarter turns, 0 to 3.
    """

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    turns: int = 0

    def __post_init__(self) -> None:
        if not (self.x_min < self.x_max and self.y_min < self.y_max):
            raise ValueError(f"a crop region has a positive width and height, got {self}")


class TensorToFrame(Struct, frozen=True):
    """The map from tensor px to frame px.

    A point is turned back about the tensor's origin by the region's quarter turns, then x and y are
    multiplied by `scale_xy` and moved by `offset_xy`.
    """

    scale_xy: tuple[float, float]
    offset_xy: tuple[float, float]
    turns: int = 0

    def turned_back(self, x: float, y: float) -> tuple[float, float]:
        """Return a point of the tensor turned back about the origin."""
        if self.turns == 0:
            return x, y
        if self.turns == 1:
            return y, -x
        return (-x, -y) if self.turns == 2 else (-y, x)


T = TypeVar("T")


class _PlainFloats(Generic[T]):
    """An array of a frozen object as a list of plain floats, which is made when it is first read.

    A `functools.cached_property` does the same, but in Python 3.11 it locks, which takes three
    times as long as making the list.
    """

    def __init__(self, array: str) -> None:
        self._array = array

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> T:
        values: T = getattr(instance, self._array).tolist()
        vars(instance)[self._name] = values
        return values


class Poses(Struct, frozen=True, eq=False, dict=True):
    """The n poses of one frame; n = 0 without any.

    `keypoints` float32 (n, 17, 2), x and y in frame px; `keypoint_scores` float32 (n, 17), 0..1;
    `scores` float32 (n,), 0..1; `boxes_xyxy` float32 (n, 4), frame px. For calculations with one or
    two poses, each is also there as a list of plain floats, not to be changed.
    """

    keypoints: Floats
    keypoint_scores: Floats
    scores: Floats
    boxes_xyxy: Floats

    keypoint_list = _PlainFloats[list[list[list[float]]]]("keypoints")
    keypoint_score_list = _PlainFloats[list[list[float]]]("keypoint_scores")
    score_list = _PlainFloats[list[float]]("scores")
    box_list = _PlainFloats[list[list[float]]]("boxes_xyxy")

    def __post_init__(self) -> None:
        n = len(self.scores)
        if (
            self.keypoints.shape != (n, KEYPOINT_COUNT, 2)
            or self.keypoint_scores.shape != (n, KEYPOINT_COUNT)
            or self.boxes_xyxy.shape != (n, 4)
        ):
            raise ValueError(
                f"poses are (n, 17, 2), (n, 17), (n,), (n, 4), got {self.keypoints.shape}, "
                f"{self.keypoint_scores.shape}, {self.scores.shape}, {self.boxes_xyxy.shape}"
            )

    @classmethod
    def empty(cls) -> Self:
        """Return zero poses."""
        return cls(
            np.empty((0, KEYPOINT_COUNT, 2), np.float32),
            np.empty((0, KEYPOINT_COUNT), np.float32),
            np.empty(0, np.float32),
            np.empty((0, 4), np.float32),
        )

    def __len__(self) -> int:
        return len(self.scores)

    def above_threshold(self, threshold: float) -> "Poses":
        """Return the poses whose score reaches a threshold."""
        # In plain floats: right after an inference, whose data fill the processor's caches, two
        # calls of NumPy take 37 us on x86-64 and this 5.
        reached = [score >= threshold for score in self.score_list]
        return self if all(reached) else self.select(np.array(reached))

    def select(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> "Poses":
        """Return the poses selected by a mask or an index array (n,), in its order."""
        return Poses(
            self.keypoints[which],
            self.keypoint_scores[which],
            self.scores[which],
            self.boxes_xyxy[which],
        )


class TrackedPoses(Struct, frozen=True, eq=False):
    """Poses with the identity of each over time: `track_ids` int64 (n,), each at least 1."""

    poses: Poses
    track_ids: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.track_ids.shape != (len(self.poses),):
            raise ValueError(
                f"{len(self.poses)} poses need as many track ids, got {self.track_ids.shape}"
            )

    def __len__(self) -> int:
        return len(self.track_ids)

    def select(self, which: NDArray[np.intp]) -> "TrackedPoses":
        """Return the poses selected by an index array (n,), in its order."""
        return TrackedPoses(self.poses.select(which), self.track_ids[which])


PostureName = Literal["standing", "sitting", "lying", "bending", "unclear"]


class Posture(Struct, frozen=True):
    """The posture of a pose and its probability, or `unclear` if that is too low.

    `upright` is the probability that the person stands or sits, whichever it is.
    """

    name: PostureName
    score: float
    upright: float = 0.0


class TrackedFrame(Struct, frozen=True, eq=False):
    """The tracked poses of one frame, as measured (`raw`) and `smoothed`, in the same order.

    `postures` are theirs, or empty if postures are not enabled.
    """

    timestamp_ns: int
    size_wh: tuple[int, int]
    raw: TrackedPoses
    smoothed: TrackedPoses
    postures: tuple[Posture, ...] = ()

    def select(self, which: Sequence[int]) -> "TrackedFrame":
        """Return the frame with the poses of these indices only."""
        index = np.array(which, np.intp)
        return TrackedFrame(
            self.timestamp_ns,
            self.size_wh,
            self.raw.select(index),
            self.smoothed.select(index),
            tuple(self.postures[pose] for pose in which) if self.postures else (),
        )


EventType = Literal["enter", "leave", "fall", "zone_enter", "zone_leave", "repetition"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a track; `time_ns` is CLOCK_BOOTTIME.

    A zone is that of `zone_enter` and `zone_leave`, an exercise with its count that of a
    `repetition`.
    """

    type: EventType
    track_id: int
    time_ns: int
    zone: str | None = None
    exercise: str | None = None
    count: int | None = None


class StageTimings(Struct, frozen=True):
    """How long one frame spent in each stage, in nanoseconds."""

    preprocess_ns: int
    invoke_ns: int
    decode_ns: int
    track_ns: int
    smooth_ns: int

    @property
    def total_ns(self) -> int:
        """All stages up to the smoothed poses."""
        return self.preprocess_ns + self.invoke_ns + self.decode_ns + self.track_ns + self.smooth_ns
