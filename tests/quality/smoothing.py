"""How much each smoothing preset steadies keypoints at rest, and how far it lags in motion.

On clips of one person before a camera at rest, at 30 frames a second and at every third of them.
What a keypoint really does is not known; that is taken from its measured places, low-passed over
frames before and after. A keypoint is at rest below REST, in motion above MOTION.

`jitter` is the root mean square of the way from frame to frame of keypoints at rest, as a share of
that without smoothing, in the same crops and in those of MoveNet's published use; `lag` the delay
of the measured places that is most similar to the filtered ones, for keypoints in motion. The error
is that of another clip, whose keypoints are known.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from edgepose.build import build_smoother
from edgepose.config.schema import SmoothingConfig
from edgepose.datatypes import TrackedPoses
from edgepose.detection.crop_state import NEEDED, SURE, CropState
from edgepose.skeleton import KEYPOINT_NAMES
from edgepose.smoothing.no_smoother import NoSmoother
from edgepose.sources.video_file import VideoFileSource
from tests.builders import load_model, pipeline_of
from tests.conftest import SHARED
from tests.quality.plain_crop import PlainCrop

MODELS: Final = ("movenet-lightning-int8", "movenet-lightning-fp16")
OFFICIAL: Final = SHARED / "models" / "movenet_single_pose_lightning_ptq.tflite"
CLIPS: Final = tuple(sorted((SHARED / "data" / "video").glob("asl_*.mkv")))
TRUE: Final = SHARED / "data" / "peer" / "tfjs_movenet" / "pose_1"
EVERY: Final = {30: 1, 10: 3}
"""By the frame rate: which frames of a clip."""
REST: Final = 0.05
MOTION: Final = 0.2
"""Speeds in body sizes (the longer side of the box) a second."""
REFERENCE_S: Final = 0.25
"""Standard deviation of the Gaussian that the speed of a keypoint is taken from."""
MIN_SCORE: Final = 0.3
LAGS_MS: Final = np.arange(-20, 101, 2)
HEAD: Final = (
    "| model | preset | jitter at 30, % of the body | of raw at 30 | at 10 | "
    "of raw in a plain crop at 30 | at 10 | lag at 30, ms | at 10 | error, px |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
)
Preset = Literal["off", "responsive", "steady"]
PRESETS: Final[tuple[Preset, ...]] = ("off", "responsive", "steady")
Places = NDArray[np.float64]
"""(t, 17, 2), in body sizes."""


@dataclass(frozen=True, eq=False)
class Clip:
    """The measured poses of one person: times (t,), speeds and visible (t, 17) of the keypoints."""

    poses: Sequence[tuple[int, TrackedPoses]]
    body_px: float
    times_s: NDArray[np.float64]
    speeds: NDArray[np.float64]
    visible: NDArray[np.bool_]

    def places(self, preset: Preset) -> Places:
        """Return the places of the keypoints with a preset."""
        return smoothed(self.poses, preset) / self.body_px


def table() -> str:
    """Return the presets by model, as Markdown."""
    if not CLIPS:
        raise SystemExit("smoothing is measured on clips that are not beside this checkout")
    lines = []
    for model in (*MODELS, *([str(OFFICIAL)] if OFFICIAL.exists() else [])):
        clips, plain = (
            {fps: [clip(measured(model, p, n, new)) for p in CLIPS] for fps, n in EVERY.items()}
            for new in (CropState, PlainCrop)
        )
        true = measured(model, TRUE.with_suffix(".mp4"))
        name = model if model in MODELS else "the official INT8 file"
        for preset in PRESETS:
            at_rest = {fps: jitter(clips[fps], preset) for fps in EVERY}
            ratios = (
                f"{at_rest[fps] / jitter(raw[fps], 'off'):.2f}"
                for raw in (clips, plain)
                for fps in EVERY
            )
            lags = (f"{lag_ms(clips[fps], preset):.0f}" for fps in EVERY)
            error = f"{error_px(smoothed(true, preset)):.2f}"
            lines.append(
                " | ".join((f"| {name}", preset, f"{100 * at_rest[30]:.2f}", *ratios, *lags, error))
                + " |\n"
            )
    return HEAD + "".join(lines)


def measured(
    model: str, path: Path, every: int = 1, new_crop: Callable[[], CropState] = CropState
) -> list[tuple[int, TrackedPoses]]:
    """Return the times and poses of the frames with one pose, without smoothing."""
    pipeline, crop = pipeline_of(load_model(model)), new_crop()
    pipeline.smoother = NoSmoother()
    found = []
    for frame in VideoFileSource(path).frames():
        if frame.sequence == 0:
            # Confirm the pose, so that the first frame counts too.
            for _ in range(NEEDED // SURE):
                pipeline.publish(pipeline.detect(frame, crop))
        if frame.sequence % every == 0:
            tracked = pipeline.publish(pipeline.detect(frame, crop)).tracked
            if len(tracked) == 1:
                found.append((frame.timestamp_ns, tracked))
    return found


def smoothed(poses: Sequence[tuple[int, TrackedPoses]], preset: Preset) -> NDArray[np.float64]:
    """Return the keypoints (t, 17, 2) in frame px with a preset."""
    smoother = build_smoother(SmoothingConfig(preset=preset))
    return np.array(
        [smoother.apply(tracked, now_ns).poses.keypoints[0] for now_ns, tracked in poses], float
    )


def clip(poses: Sequence[tuple[int, TrackedPoses]]) -> Clip:
    """Return the poses of one person with the speeds of the keypoints."""
    boxes = np.array([tracked.poses.boxes_xyxy[0] for _, tracked in poses])
    body_px = float(np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1)))
    times_s = np.array([timestamp_ns for timestamp_ns, _ in poses]) / 1e9
    places = np.array([tracked.poses.keypoints[0] for _, tracked in poses], float) / body_px
    weights = np.exp(-np.square((times_s - times_s[:, np.newaxis]) / REFERENCE_S) / 2)
    reference = np.tensordot(weights / weights.sum(axis=1, keepdims=True), places, axes=1)
    speeds = np.linalg.norm(np.gradient(reference, times_s, axis=0), axis=2)
    scores = np.array([tracked.poses.keypoint_scores[0] for _, tracked in poses])
    return Clip(poses, body_px, times_s, speeds, scores >= MIN_SCORE)


def jitter(clips: Sequence[Clip], preset: Preset) -> float:
    """Return the root mean square of the way from frame to frame at rest, in body sizes."""
    ways = []
    for one in clips:
        at_rest = (one.speeds < REST) & one.visible
        steps = np.linalg.norm(np.diff(one.places(preset), axis=0), axis=2)
        ways.append(steps[at_rest[1:] & at_rest[:-1]])
    return float(np.sqrt(np.mean(np.square(np.concatenate(ways)))))


def lag_ms(clips: Sequence[Clip], preset: Preset) -> float:
    """Return the delay in ms that makes the measured places most similar to the filtered ones."""
    errors = np.zeros(len(LAGS_MS))
    for one in clips:
        times_s = one.times_s
        moving = (one.speeds > MOTION) & one.visible
        # At the ends there is nothing to shift.
        moving[(times_s < times_s[0] + 0.1) | (times_s > times_s[-1] - 0.1)] = False
        raw = one.places("off").reshape(len(times_s), -1).T
        filtered = one.places(preset)
        for index, lag_s in enumerate(LAGS_MS / 1e3):
            delayed = np.array([np.interp(times_s - lag_s, times_s, values) for values in raw])
            distances = filtered - delayed.T.reshape(filtered.shape)
            errors[index] += np.square(distances[moving]).sum()
    return float(LAGS_MS[errors.argmin()])


def error_px(places: NDArray[np.float64]) -> float:
    """Return the mean distance to the known keypoints of the clip."""
    true = [
        [[keypoints[name][axis] for axis in "xy"] for name in KEYPOINT_NAMES]
        for keypoints in json.loads(TRUE.with_suffix(".json").read_text())
    ]
    return float(np.linalg.norm(places - np.array(true), axis=2).mean())
