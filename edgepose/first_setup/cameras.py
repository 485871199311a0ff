"""Cameras of this machine, and what they show."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from edgepose.build import build_model, source_opener
from edgepose.config.schema import CameraConfig, Config
from edgepose.datatypes import Frame, Poses
from edgepose.detection.crop_state import CropState
from edgepose.diagnostics.camera import DARK
from edgepose.inference.failover import SingleModel
from edgepose.pipeline import Pipeline
from edgepose.protocols import LoadedModel
from edgepose.skeleton import LEFT_HIP, LEFT_SHOULDER, RIGHT_HIP, RIGHT_SHOULDER
from edgepose.smoothing.no_smoother import NoSmoother
from edgepose.tracking.no_tracker import NoTracker

WATCHED_S: Final = 2.0
TORSO_M: Final = 0.5
"""From the shoulders to the hips of an adult, standing or sitting."""
FIELD_OF_VIEW: Final = math.radians(62)
"""Horizontal, of the Raspberry Pi's Camera Module 2; most webcams are within 20 % of it."""
MIN_SCORE: Final = 0.3


def candidates() -> Iterator[str]:
    """Yield the source of each camera that this machine may have."""
    if find_spec("picamera2") is not None:
        yield from (f"picamera:{index}" for index in range(_pi_cameras()))
    for device in sorted(Path("/dev").glob("video[0-9]*")):
        if os.access(device, os.R_OK | os.W_OK):
            yield str(device)


def _pi_cameras() -> int:
    try:
        from picamera2 import Picamera2

        return len(Picamera2.global_camera_info())
    except Exception:  # noqa: BLE001 - a picamera2 that does not fit this Python raises anything
        return 0


def describe(config: Config, camera: CameraConfig) -> str:
    """Return what a camera shows for two seconds, in words; raises EdgeposeError."""
    model = build_model(config)
    try:
        return _describe(model, camera)
    finally:
        model.interpreter.close()


def _describe(model: LoadedModel, camera: CameraConfig) -> str:
    pipeline = Pipeline(
        SingleModel(model), NoTracker(), NoSmoother(), (), node="setup", camera=camera.name
    )
    crop = CropState()
    best: Poses | None = None
    with closing(source_opener(camera)().frames()) as frames:
        frame = next(frames)
        end = time.monotonic() + WATCHED_S
        while time.monotonic() < end:
            poses = pipeline.detect(frame, crop).poses
            if len(poses) and (best is None or poses.scores.max() > best.scores.max()):
                best = poses
            frame = next(frames, frame)
    width, height = frame.size_wh
    size = f"{width}x{height}"
    if best is None:
        brightness = "; it is dark" if frame.image.mean() < DARK else ""
        return f"{size}, no person{brightness}"
    return f"{size}, {person_in_words(best, frame)}"


def person_in_words(poses: Poses, frame: Frame) -> str:
    """Return where the most certain person is: at the left, in the middle, about 2 m away."""
    best = int(poses.scores.argmax())
    width = frame.size_wh[0]
    x_min, _, x_max, _ = poses.boxes_xyxy[best].tolist()
    third = (x_min + x_max) / 2 / width
    place = "at the left" if third < 1 / 3 else "at the right" if third > 2 / 3 else "in the middle"
    distance_m = _distance_m(poses, best, width)
    away = "" if distance_m is None else f", about {distance_m:.0f} m away"
    return f"a person {place}{away}"


def _distance_m(poses: Poses, index: int, frame_width: int) -> float | None:
    """Estimate the distance of a person from the length of the torso, None without one."""
    scores = poses.keypoint_scores[index]
    if min(scores[[LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP]]) < MIN_SCORE:
        return None
    points = poses.keypoints[index]
    shoulders = (points[LEFT_SHOULDER] + points[RIGHT_SHOULDER]) / 2
    hips = (points[LEFT_HIP] + points[RIGHT_HIP]) / 2
    torso_px = float(math.dist(shoulders, hips))
    width_m = TORSO_M * frame_width / max(torso_px, 1.0)
    return max(1.0, width_m / (2 * math.tan(FIELD_OF_VIEW / 2)))
