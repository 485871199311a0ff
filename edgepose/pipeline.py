"""One frame's whole way: detect its poses, then track, smooth and publish them."""

import threading
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from time import perf_counter_ns

from msgspec import Struct

from edgepose.datatypes import (
    CropRegion,
    Frame,
    Poses,
    Posture,
    StageTimings,
    TrackedFrame,
    TrackedPoses,
)
from edgepose.detection.crop_state import CropState, exchange_left_and_right
from edgepose.errors import AcceleratorLostError
from edgepose.events.angles import joint_angles
from edgepose.imaging.crop import WHOLE, Part
from edgepose.imaging.preprocess import preprocess
from edgepose.messages import PoseMessage, pose_message, without_poses
from edgepose.protocols import (
    LoadedModel,
    ModelProvider,
    PostureEstimator,
    Sink,
    Smoother,
    Tracker,
)


class Detection(Struct, frozen=True):
    """The poses that a model found in one frame, and how long each stage took.

    `candidate` is whether the next frames may confirm a pose, or follow one.
    `new_subject` is whether a single-pose model goes on with another person than before.
    """

    frame: Frame
    model: LoadedModel
    poses: Poses
    candidate: bool
    preprocess_ns: int
    invoke_ns: int
    decode_ns: int
    new_subject: bool = False


class FrameResult(Struct, frozen=True):
    """A published frame."""

    frame: Frame
    raw: TrackedPoses
    tracked: TrackedPoses
    postures: tuple[Posture, ...]
    timings: StageTimings
    publish_ns: int
    message: PoseMessage

    @property
    def tracked_frame(self) -> TrackedFrame:
        """What detectors of events see of it."""
        frame = self.frame
        return TrackedFrame(
            frame.timestamp_ns, frame.size_wh, self.raw, self.tracked, self.postures
        )


@dataclass(eq=False)
class Pipeline:
    """The stages between one camera's frames and the sinks.

    `node` and `camera` name it in messages. `every_frame` publishes frames without poses too;
    otherwise only the first of them is published, to report that the last pose is gone. With
    `publish_raw`, `publish_angles` or `postures` poses have raw keypoints, angles or a posture.
    `region` is the part of the frame in which persons are searched for.

    `detect` runs on the inference thread and `publish` on the main thread; they share no state.
    `invoke` releases the GIL, so one frame is published while inference runs on the next. `turn`,
    one for all pipelines of a process, keeps the two from competing for the GIL at other times.
    `models` may be replaced between two frames: crop regions and tracks are in frame px, and begin
    again if the frames change their size. `verifications` counts the inferences of verifiers.
    """

    models: ModelProvider
    tracker: Tracker
    smoother: Smoother
    sinks: Sequence[Sink]
    _: KW_ONLY
    node: str
    camera: str
    every_frame: bool = False
    publish_raw: bool = False
    publish_angles: bool = False
    postures: PostureEstimator | None = None
    region: Part = WHOLE
    turn: threading.Lock = field(default_factory=threading.Lock)
    verifications: int = field(default=0, init=False)
    _last_with_poses: PoseMessage | None = field(default=None, init=False)
    _next_sequence: int = field(default=0, init=False)
    _sequence_offset: int = field(default=0, init=False)
    _crop: CropState = field(default_factory=CropState, init=False)
    _size_wh: tuple[int, int] | None = field(default=None, init=False)

    def process(self, frame: Frame) -> FrameResult:
        """Detect and publish in the calling thread."""
        return self.publish(self.detect(frame, self._crop))

    def detect(self, frame: Frame, crop: CropState) -> Detection:
        """Find the poses of a frame: preprocess, invoke, decode, and verify new ones.

        A still frame has no part in `crop`: it is detected again and again, where the next frames
        of a video would be, until it is clear what is in it. Raises AcceleratorLostError if the
        accelerator is lost and there is no fallback.
        """
        if not frame.still:
            return self._detect_once(frame, crop)
        crop = CropState(still=True)
        while True:
            detection = self._detect_once(frame, crop)
            if crop.decided:
                return detection

    def _detect_once(self, frame: Frame, crop: CropState) -> Detection:
        models = self.models
        model = models.current
        started = perf_counter_ns()
        with self.turn:
            spec = model.pose_model.input_spec
            tensor, to_frame = preprocess(
                frame.image, crop.region_for(frame, spec, self.region), spec
            )
        preprocessed = perf_counter_ns()
        try:
            outputs = model.interpreter.invoke(tensor)
        except AcceleratorLostError as error:
            models.report_lost(model, error)
            # The fallback takes the very frame on which the accelerator was lost.
            return self._detect_once(frame, crop)
        invoked = perf_counter_ns()
        with self.turn:
            candidates = model.pose_model.decode(outputs, to_frame)
            poses = crop.update(candidates, model, frame)
        if model.verifier is not None:
            detect = partial(self._detect_region, model.verifier, frame)
            poses = crop.verification.update(poses, model.pose_threshold, frame, detect)
        return Detection(
            frame,
            model,
            poses,
            candidate=(crop if model.pose_model.crops else crop.verification).has_candidate,
            preprocess_ns=preprocessed - started,
            invoke_ns=invoked - preprocessed,
            decode_ns=perf_counter_ns() - invoked,
            new_subject=crop.new_subject,
        )

    def _detect_region(self, verifier: LoadedModel, frame: Frame, region: CropRegion) -> Poses:
        """Return what a verifier finds in a region of a frame."""
        self.verifications += 1
        with self.turn:
            tensor, to_frame = preprocess(frame.image, region, verifier.pose_model.input_spec)
        outputs = verifier.interpreter.invoke(tensor)
        with self.turn:
            poses = verifier.pose_model.decode(outputs, to_frame)
        return exchange_left_and_right(poses) if frame.mirrored else poses

    def publish(self, detection: Detection) -> FrameResult:
        """Track, smooth and publish one detection."""
        with self.turn:
            started = perf_counter_ns()
            frame = detection.frame
            if frame.size_wh != self._size_wh:
                self._size_wh = frame.size_wh
                self._reset_tracks()
            if detection.new_subject:
                # The tracker alone would go on with the old id where two persons meet.
                self.tracker.reset()
            raw = self.tracker.update(detection.poses, frame.timestamp_ns)
            tracked_ns = perf_counter_ns()
            tracked = self.smoother.apply(raw, frame.timestamp_ns)
            smoothed_ns = perf_counter_ns()
            timings = StageTimings(
                detection.preprocess_ns,
                detection.invoke_ns,
                detection.decode_ns,
                tracked_ns - started,
                smoothed_ns - tracked_ns,
            )
            # A source that was opened again counts from 0, subscribers see each number once.
            self._sequence_offset = max(self._sequence_offset, self._next_sequence - frame.sequence)
            sequence = frame.sequence + self._sequence_offset
            self._next_sequence = sequence + 1
            model = detection.model
            postures = self.postures.update(raw, frame.timestamp_ns) if self.postures else ()
            message = pose_message(
                frame,
                tracked,
                timings,
                sequence=sequence,
                keypoint_threshold=model.keypoint_threshold,
                node=self.node,
                camera=self.camera,
                model=model.name,
                accelerator=model.device,
                degraded=model.degraded,
                raw=raw.poses if self.publish_raw else None,
                postures=postures,
                angles=_angles(tracked.poses, model.keypoint_threshold)
                if self.publish_angles
                else (),
            )
            if len(tracked) or self._last_with_poses or self.every_frame:
                self._send(message)
            self._last_with_poses = message if len(tracked) else None
            return FrameResult(
                frame, raw, tracked, postures, timings, perf_counter_ns() - smoothed_ns, message
            )

    def publish_empty(self) -> None:
        """Publish an empty message if the last one had poses, and forget tracks and filters.

        For a camera that was closed or lost: subscribers see it as the last pose leaving.
        """
        if self._last_with_poses is not None:
            self._send(without_poses(self._last_with_poses, self._next_sequence))
            self._next_sequence += 1
        self.reset()

    def reset(self) -> None:
        """Forget crop region, tracks and filters, as for an image unrelated to the last one."""
        self._crop = CropState()
        self._last_with_poses = None
        self._reset_tracks()

    def _reset_tracks(self) -> None:
        self.tracker.reset()
        self.smoother.reset()
        if self.postures is not None:
            self.postures.reset()

    def _send(self, message: PoseMessage) -> None:
        for sink in self.sinks:
            sink.publish(message)


def _angles(poses: Poses, min_score: float) -> list[dict[str, float | None]]:
    """Return the angles at the joints of each pose."""
    return [
        joint_angles(points, scores, min_score)
        for points, scores in zip(poses.keypoint_list, poses.keypoint_score_list, strict=True)
    ]
