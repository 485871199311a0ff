"""Constructors that several test modules use."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgepose import messages
from edgepose.build import build_model, build_smoother, build_tracker, verifier_adder
from edgepose.config.loader import load_config
from edgepose.datatypes import (
    Frame,
    Poses,
    Posture,
    PostureName,
    TensorSpec,
    TrackedFrame,
    TrackedPoses,
)
from edgepose.events.detectors import Detectors
from edgepose.events.presence import PresenceDetector
from edgepose.events.visits import Delays
from edgepose.inference.failover import SingleModel
from edgepose.messages import FrameSize, PoseEntry, PoseMessage, Timings
from edgepose.pipeline import Pipeline
from edgepose.protocols import LoadedModel, Sink
from edgepose.registry.registry import ModelEntry
from edgepose.sources.synthetic import read_photograph

SECOND_NS = 1_000_000_000


def load_model(name: str) -> LoadedModel:
    """Load a model with the default configuration, and its verifier if it has one."""
    config = load_config(None, {"model.name": name})
    return verifier_adder(config)(build_model(config))


def model_entry(content: bytes, name: str = "tiny", **changes: object) -> ModelEntry:
    """Return the manifest's entry of a file with this content."""
    entry = ModelEntry(
        name=name,
        kind="movenet_single",
        file=f"{name}.tflite",
        input_size_wh=(192, 192),
        input_dtype="uint8",
        precision="int8",
        source="a test",
        licence="Apache-2.0",
        made_by="a test",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    return msgspec.structs.replace(entry, **changes)


def pipeline_of(model: LoadedModel, sinks: Sequence[Sink] = ()) -> Pipeline:
    """Return a pipeline of the default configuration around a model."""
    config = load_config(None)
    return Pipeline(
        SingleModel(model),
        build_tracker(config),
        build_smoother(config.smoothing),
        sinks,
        node="test",
        camera="main",
    )


def tracked_frame(
    at_ms: int,
    persons: Mapping[int, ArrayLike],
    size_wh: tuple[int, int] = (640, 480),
    posture: PostureName = "standing",
) -> TrackedFrame:
    """Return a frame with the keypoints (17, 2) in px of each track id, all in one posture."""
    tracked = TrackedPoses(poses_of(*persons.values()), np.array([*persons], np.int64))
    postures = (Posture(posture, 0.9),) * len(persons)
    return TrackedFrame(at_ms * 1_000_000, size_wh, tracked, tracked, postures)


def presence_of(delays: Delays) -> Detectors:
    """Return the detectors of a camera that has only presence."""
    detectors, presence = Detectors(), PresenceDetector()
    presence.configure(delays)
    detectors.replace([presence], excluded=(), on_delay_ms=delays.on_ms)
    return detectors


def frame_of(
    size_wh: tuple[int, int] = (64, 48), timestamp_ns: int = SECOND_NS, sequence: int = 0
) -> Frame:
    """Return a grey frame."""
    return Frame(np.full((size_wh[1], size_wh[0], 3), 127, np.uint8), timestamp_ns, sequence)


def poses_of(*keypoints: ArrayLike, score: float = 0.9) -> Poses:
    """Return one pose for each (17, 2) array of keypoints, all with the same score."""
    points = np.array(keypoints, np.float32).reshape(-1, 17, 2)
    return Poses(
        points,
        np.full(points.shape[:2], score, np.float32),
        np.full(len(points), score, np.float32),
        np.concatenate((points.min(axis=1), points.max(axis=1)), axis=1).reshape(-1, 4)
        if len(points)
        else np.empty((0, 4), np.float32),
    )


def tracked_of(*keypoints: ArrayLike, first_id: int = 1) -> TrackedPoses:
    """Return tracked poses with ids counting up from `first_id`."""
    poses = poses_of(*keypoints)
    return TrackedPoses(poses, np.arange(first_id, first_id + len(poses), dtype=np.int64))


def message_of(sequence: int, camera: str = "main") -> PoseMessage:
    """Return a message with one pose."""
    return PoseMessage(
        node="gym",
        camera=camera,
        sequence=sequence,
        captured_at="2026-01-31T12:00:00.123456Z",
        published_at="2026-01-31T12:00:00.141000Z",
        frame=FrameSize(640, 480),
        model="m",
        accelerator="cpu",
        degraded=False,
        timings_ms=Timings(1, 2, 3, 4, 5, 15),
        poses=[PoseEntry(3, 0.7, (0.1, 0.2, 0.3, 0.4), [(0.5, 0.5, 0.9), *[None] * 16])],
    )


def line_of(second: float, camera: str = "main", node: str = "gym", **fields: object) -> bytes:
    """Return an encoded message that was captured at a second of the recording."""
    message = msgspec.structs.replace(
        message_of(1, camera),
        node=node,
        captured_at=f"2026-01-31T12:{int(second // 60):02}:{second % 60:09.6f}Z",
        **fields,
    )
    return messages.encode(message)


def photograph_tensor(spec: TensorSpec) -> NDArray[Any]:
    """Return the bundled photograph as an input tensor, uint8 or float32 from -1 to 1."""
    _, height, width, _ = spec.shape
    pixels = cv2.resize(read_photograph(), (width, height))[np.newaxis]
    if spec.dtype == np.float32:
        return (pixels / 127.5 - 1).astype(np.float32)
    return pixels.astype(np.uint8)
