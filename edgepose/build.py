"""Config to parts: the only file that names concrete classes."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepose.accelerators.cpu import CpuAccelerator, CpuInterpreter
from edgepose.config import Camera as CameraConfig
from edgepose.config import Config
from edgepose.config import Model as ModelConfig
from edgepose.config import Smoothing as SmoothingConfig
from edgepose.errors import AcceleratorError
from edgepose.pose_models import movenet_multipose, posenet
from edgepose.pose_models.kinds import kind_of
from edgepose.pose_models.movenet_single import MovenetSingle
from edgepose.protocols import FrameSource, PoseModel, Smoother, Tracker
from edgepose.smoothing.one_euro import PRESETS, OneEuro, OneEuroParameters
from edgepose.smoothing.passthrough import Passthrough
from edgepose.source_uri import Option, SourceUri, parse_source_uri
from edgepose.sources.orientation import OrientedSource
from edgepose.tracking.oks import OksTracker
from edgepose.weights import resolve

log = logging.getLogger(__name__)

POSE_THRESHOLDS: Final[Mapping[str, float]] = {
    "movenet_single": 0.33,
    "movenet_multipose": movenet_multipose.DEFAULT_POSE_THRESHOLD,
    "posenet": posenet.DEFAULT_POSE_THRESHOLD,
}
"""From which score on a pose is one, by kind of model; `models/README.md` has the measurements."""


MIN_SILENCE_NS: Final = 5_000_000_000


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready for pipelines: its interpreter, and what its tensors mean."""

    name: str
    path: Path
    kind: str
    device: str
    interpreter: CpuInterpreter
    pose_model: PoseModel
    pose_threshold: float


def build_accelerator(config: Config) -> CpuAccelerator:
    """Return what runs the model; raises AcceleratorError where what is asked for is missing."""
    if config.accelerator == "edgetpu":
        raise AcceleratorError(
            "accelerator is edgetpu, which this version of edgepose cannot drive yet; "
            "set accelerator: auto or cpu"
        )
    inference = config.inference
    threads = None if inference.threads == "auto" else inference.threads
    return CpuAccelerator(runtime=inference.runtime, threads=threads)


def build_model(config: Config) -> LoadedModel:
    """Load the configured model; raises ModelError or AcceleratorError with what is wrong."""
    chosen = config.model
    file = resolve(chosen.name)
    accelerator = build_accelerator(config)
    interpreter = accelerator.load(file.path, chosen.input_size)
    kind = chosen.kind
    if kind == "auto":
        kind = kind_of(interpreter.input, interpreter.outputs, name=str(file.path))
    configured = config.pose.pose_threshold
    pose_threshold = POSE_THRESHOLDS[kind] if configured is None else configured
    return LoadedModel(
        name=file.name,
        path=file.path,
        kind=kind,
        device=accelerator.device,
        interpreter=interpreter,
        pose_model=_pose_model(kind, interpreter, str(file.path), chosen, pose_threshold),
        pose_threshold=pose_threshold,
    )


def build_smoother(config: SmoothingConfig) -> Smoother:
    """Return the smoother of a preset, with single parameters replaced where they are given."""
    if config.preset == "off":
        return Passthrough()
    preset = PRESETS[config.preset]
    return OneEuro(
        OneEuroParameters(
            _given(config.min_cutoff_hz, preset.min_cutoff_hz),
            _given(config.beta, preset.beta),
            _given(config.derivative_cutoff_hz, preset.derivative_cutoff_hz),
        )
    )


def build_tracker(config: Config) -> Tracker:
    """Return the tracker that follows poses from frame to frame."""
    return OksTracker(max_age_ns=config.tracking.max_age_ms * 1_000_000)


def source_opener(camera: CameraConfig) -> Callable[[], FrameSource]:
    """Return what makes a camera's source afresh each time it is called.

    What the URI says wins over the camera's own keys. Raises UsageError where the URI cannot be
    meant.
    """
    uri = parse_source_uri(camera.source)
    options: dict[str, Option | None] = {
        "width": camera.width,
        "height": camera.height,
        "fps": camera.fps,
        "rotate": camera.rotation,
        "mirror": camera.mirror,
        "stream": camera.stream,
        **uri.options,
    }
    return lambda: _source(uri, options)


def silence_ns(camera: CameraConfig) -> int:
    """Return how long a camera may say nothing before it counts as stalled.

    Five seconds, or three frames of a camera that is asked for fewer than 0.6 a second.
    """
    fps = parse_source_uri(camera.source).options.get("fps", camera.fps)
    return max(MIN_SILENCE_NS, round(3e9 / float(fps)) if fps else 0)


def _source(uri: SourceUri, options: Mapping[str, Option | None]) -> FrameSource:
    # Each kind is imported where it is chosen: they bring OpenCV, FFmpeg and the camera stack.
    source = _plain_source(uri, options)
    rotation, mirror = int(options["rotate"] or 0), bool(options["mirror"])
    if rotation or mirror:
        return OrientedSource(source, rotation=rotation, mirror=mirror)
    return source


def _plain_source(uri: SourceUri, options: Mapping[str, Option | None]) -> FrameSource:
    size_wh = (int(options["width"] or 640), int(options["height"] or 480))
    fps = float(options["fps"] or 0) or None
    loop = bool(options.get("loop", False))
    match uri.kind:
        case "picamera":
            from edgepose.sources.picamera import PicameraSource

            return PicameraSource(
                int(uri.target),
                size_wh=size_wh,
                fps=fps,
                stream="lores" if options["stream"] == "lores" else "main",
            )
        case "v4l2":
            from edgepose.sources.v4l2 import UsbCameraSource

            return UsbCameraSource(uri.target, size_wh=size_wh, fps=fps)
        case "rtsp":
            from edgepose.sources.stream import RtspSource

            return RtspSource(uri.target, description=str(uri))
        case "synthetic":
            from edgepose.sources.synthetic import SyntheticSource

            realtime = bool(options.get("realtime", True))
            return SyntheticSource(size_wh=size_wh, fps=fps or 30.0, realtime=realtime)
        case "path":
            return path_source(
                Path(uri.target), loop=loop, realtime=bool(options.get("realtime", False)), fps=fps
            )


def path_source(
    path: Path, *, loop: bool = False, realtime: bool = False, fps: float | None = None
) -> FrameSource:
    """Return the source for a folder, a picture or a video file."""
    from edgepose.sources import images

    if path.is_dir():
        paths = images.list_images(path)
    elif images.is_image(path):
        paths = [path]
    else:
        from edgepose.sources.stream import VideoFileSource

        return VideoFileSource(path, realtime=realtime, loop=loop)
    return images.ImageSource(paths, fps=fps or images.DEFAULT_FPS, realtime=realtime, loop=loop)


def _pose_model(
    kind: str, interpreter: CpuInterpreter, name: str, config: ModelConfig, pose_threshold: float
) -> PoseModel:
    match kind:
        case "movenet_single":
            return MovenetSingle(
                interpreter.input, interpreter.outputs, name=name, crop=config.crop
            )
        case "movenet_multipose":
            return movenet_multipose.MovenetMultipose(
                interpreter.input, interpreter.outputs, name=name, max_poses=config.max_poses
            )
        case _:
            return posenet.Posenet(
                interpreter.input,
                interpreter.outputs,
                name=name,
                multiple=config.max_poses > 1,
                max_poses=config.max_poses,
                pose_threshold=pose_threshold,
                nms_radius_px=config.nms_radius_px,
            )


def _given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
