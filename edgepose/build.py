"""Config to parts: the only file that names concrete classes."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from edgepose.config.schema import CameraConfig, Config, ModelConfig, SmoothingConfig
from edgepose.config.source_uri import SourceUri, parse_source_uri
from edgepose.errors import (
    EdgeposeError,
    ModelError,
    ModelFileError,
    ModelShapeError,
    UsageError,
)
from edgepose.inference import cpu, replay
from edgepose.inference.auto_threads import load_with_threads
from edgepose.inference.edgetpu import EdgeTpuAccelerator
from edgepose.inference.probe import probe_model
from edgepose.inference.thread_cache import ThreadCache
from edgepose.pose_models import movenet_multipose, movenet_single, posenet
from edgepose.pose_models.detect_kind import detect_kind
from edgepose.protocols import (
    FrameSource,
    FrameStream,
    Interpreter,
    LoadedModel,
    PoseModel,
    Smoother,
    Tracker,
)
from edgepose.registry.registry import ModelFile, check_hash, default_registry, device_of
from edgepose.smoothing.no_smoother import NoSmoother
from edgepose.smoothing.one_euro import PRESETS, OneEuro
from edgepose.sources.orientation import OrientedSource
from edgepose.tracking.oks_tracker import OksTracker

log = logging.getLogger(__name__)

VERIFIER: Final = "movenet-lightning-int8"
"""The model that verifies new poses of a model that finds several."""

MIN_STALL_TIMEOUT_NS: Final = 5_000_000_000


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of one model for the CPU and for the Edge TPU; None for one that is not installed.

    `missing` is the reason why.
    """

    cpu: ModelFile | None
    compiled: ModelFile | None
    missing: str = ""


def model_files(name: str) -> ModelFiles:
    """Find both files of a model, given the name or path of either.

    Raises UnknownModelError or ModelFileError if the named one is not installed or not a model.
    """
    registry = default_registry()
    named = registry.resolve(name)
    for_cpu = device_of(named) == "cpu"
    other, missing = None, ""
    try:
        other = registry.variant_for(named, "edgetpu" if for_cpu else "cpu")
    except ModelError as error:
        missing = str(error)
    return ModelFiles(named, other, missing) if for_cpu else ModelFiles(other, named, missing)


def build_model(config: Config) -> LoadedModel:
    """Load the configured model for a task that ends; raises what is wrong.

    With `accelerator: auto` that is the CPU, unless the file is for the Edge TPU only.
    """
    if config.accelerator == "replay":
        return build_replay_model(config)
    files = model_files(config.model.name)
    edgetpu = edgetpu_accelerator(config, files)
    if edgetpu is not None and (config.accelerator == "edgetpu" or files.cpu is None):
        return build_edgetpu_model(config, files, edgetpu)
    return build_cpu_model(config, files)


def build_cpu_model(
    config: Config, files: ModelFiles, thread_cache: ThreadCache | None = None
) -> LoadedModel:
    """Load a model on the CPU; raises ModelError or AcceleratorError with what is wrong.

    With a cache, `threads: auto` is the number measured before, or it is measured while it runs.
    """
    file = files.cpu or files.compiled
    assert file is not None
    check_model(file, config)
    # A file for the Edge TPU is refused here, with the reason.
    interpreter, threads = load_with_threads(
        file.path,
        name=file.name,
        digest=None if file.entry is None else file.entry.sha256,
        threads=config.inference.threads,
        runtime=config.inference.runtime,
        input_size_wh=config.model.input_size,
        cache=thread_cache,
    )
    return dataclasses.replace(_loaded(config, file, cpu.DEVICE, interpreter), threads=threads)


def build_replay_model(config: Config) -> LoadedModel:
    """Load recorded outputs in place of a model; raises ModelError if they cannot be used."""
    path = config.inference.recording
    assert path is not None
    file = ModelFile(config.model.name, path)
    return _loaded(config, file, replay.DEVICE, replay.load_recording(path))


def check_model(file: ModelFile, config: Config) -> None:
    """Check a file before a runtime loads it, which a damaged one may crash.

    A model known by name must have its hash; any other one is run once in a child process. Raises
    ModelHashError or ModelFileError.
    """
    if file.entry is not None:
        check_hash(file.path, file.entry)
    elif device_of(file) == "cpu":
        probe_model(file.path, config.inference.runtime, config.model.input_size)


def verifier_adder(config: Config) -> Callable[[LoadedModel], LoadedModel]:
    """Return a function that adds the verifier to a model that finds several persons.

    It loads the verifier at the first such model, and all models share it. The function raises
    ModelError or AcceleratorError if it is installed and cannot be loaded.
    """
    verifier = functools.cache(lambda: _load_verifier(config))

    def add_verifier(model: LoadedModel) -> LoadedModel:
        # Recorded outputs do not belong to the frames.
        without = (
            isinstance(model.pose_model, movenet_single.MovenetSingle)
            or model.device == replay.DEVICE
        )
        if without or config.model.verify == "off":
            return model
        try:
            return dataclasses.replace(model, verifier=verifier())
        except EdgeposeError:
            model.interpreter.close()
            raise

    return add_verifier


def _load_verifier(config: Config) -> LoadedModel | None:
    """Load the single-pose model that verifies poses, on one thread; None if it is missing."""
    try:
        files = model_files(VERIFIER)
    except ModelError as error:
        log.info("new poses are not verified: %s", error)
        return None
    inference = msgspec.structs.replace(config.inference, threads=1)
    model = ModelConfig(name=VERIFIER)
    return build_cpu_model(msgspec.structs.replace(config, model=model, inference=inference), files)


def edgetpu_accelerator(config: Config, files: ModelFiles) -> EdgeTpuAccelerator | None:
    """Return the Edge TPU, not yet open; None if the configuration or the files rule it out.

    Raises ModelFileError if the configuration requires it and the compiled file is not installed.
    """
    if config.accelerator == "cpu":
        return None
    if files.compiled is None:
        if config.accelerator == "edgetpu":
            raise ModelFileError(
                f"accelerator is edgetpu, which needs the model's compiled file: {files.missing}"
            )
        return None
    return EdgeTpuAccelerator(runtime=config.inference.runtime, device=config.inference.device)


def build_edgetpu_model(
    config: Config, files: ModelFiles, accelerator: EdgeTpuAccelerator
) -> LoadedModel:
    """Open the Edge TPU, which takes seconds; raises ModelError or AcceleratorError."""
    file = files.compiled
    assert file is not None
    check_model(file, config)
    interpreter = accelerator.load(file.path)
    try:
        model = _loaded(config, file, accelerator.device, interpreter)
    except EdgeposeError:
        interpreter.close()
        raise
    return dataclasses.replace(model, check=interpreter.check)


def _loaded(config: Config, file: ModelFile, device: str, interpreter: Interpreter) -> LoadedModel:
    chosen = config.model
    kind = detect_kind(interpreter.outputs, name=str(file.path))
    if chosen.kind not in ("auto", kind):
        raise ModelShapeError(
            f"{file.path}: it is a {kind}, expected the {chosen.kind} of model.kind; set that to "
            f"{kind} or auto"
        )
    thresholds = config.pose.for_device(device)
    pose_threshold = thresholds.pose_threshold
    if pose_threshold is None:
        pose_threshold = _default_pose_threshold(kind, interpreter)
    pose_model = _pose_model(kind, interpreter, str(file.path), chosen, pose_threshold)
    width, height = pose_model.input_spec.size_wh
    if chosen.input_size not in (None, (width, height)):
        raise ModelShapeError(
            f"{file.path}: its input is fixed at {width}x{height}, expected the "
            f"{chosen.input_size[0]}x{chosen.input_size[1]} of model.input_size; leave it out"
        )
    return LoadedModel(
        name=file.name,
        path=file.path,
        device=device,
        interpreter=interpreter,
        pose_model=pose_model,
        pose_threshold=pose_threshold,
        keypoint_threshold=thresholds.keypoint_threshold,
    )


def _default_pose_threshold(kind: str, interpreter: Interpreter) -> float:
    match kind:
        case "movenet_single":
            return movenet_single.default_pose_threshold(interpreter.input)
        case "movenet_multipose":
            return movenet_multipose.DEFAULT_POSE_THRESHOLD
        case _:
            return posenet.DEFAULT_POSE_THRESHOLD


def build_smoother(config: SmoothingConfig) -> Smoother:
    """Return the smoother of a preset, with the parameters that are configured replaced."""
    if config.preset == "off":
        return NoSmoother()
    values = msgspec.structs.asdict(config)
    preset = PRESETS[values.pop("preset")]
    given = {name: value for name, value in values.items() if value is not None}
    return OneEuro(dataclasses.replace(preset, **given))


def build_tracker(config: Config) -> Tracker:
    """Return the tracker that follows poses from frame to frame."""
    return OksTracker(max_age_ns=config.tracking.max_age_ms * 1_000_000)


def apply_tracking(tracker: Tracker, config: Config) -> None:
    """Apply changed settings to a running tracker; its tracks and ids stay."""
    assert isinstance(tracker, OksTracker)
    tracker.max_age_ns = config.tracking.max_age_ms * 1_000_000


def source_opener(camera: CameraConfig, **overrides: Any) -> Callable[[], FrameSource]:
    """Return what makes a camera's source afresh each time it is called.

    `overrides` override options of the URI, which override the camera's keys. Raises UsageError for
    an invalid URI, or one with options that its source cannot fulfil.
    """
    uri = parse_source_uri(camera.source)
    for conflict in camera.conflicts():
        raise UsageError(conflict)
    options = {**uri.options, **overrides}
    loop, realtime = options.pop("loop", False), options.pop("realtime", None)
    if "rotate" in options:
        options["rotation"] = options.pop("rotate")
    camera = msgspec.structs.replace(camera, **options)

    def open_source() -> FrameSource:
        source = _source(camera, uri, loop=loop, realtime=realtime)
        if camera.rotation or camera.mirror:
            return OrientedSource(source, rotation=camera.rotation, mirror=camera.mirror)
        return source

    return open_source


def stall_timeout_ns(camera: CameraConfig) -> int:
    """Return how long a camera may deliver no frame before it counts as stalled.

    Five seconds, or three frames of a camera that is asked for fewer than 0.6 a second.
    """
    fps = parse_source_uri(camera.source).options.get("fps", camera.fps)
    return max(MIN_STALL_TIMEOUT_NS, round(3e9 / fps) if fps else 0)


def _source(
    camera: CameraConfig, uri: SourceUri, *, loop: bool, realtime: bool | None
) -> FrameSource:
    # Imported on demand: they bring OpenCV, FFmpeg and the camera stack.
    size_wh = (camera.width or 640, camera.height or 480)
    match uri.kind:
        case "picamera":
            from edgepose.sources.picamera import PicameraSource

            return PicameraSource(
                int(uri.target), size_wh=size_wh, fps=camera.fps, stream=camera.stream
            )
        case "v4l2":
            from edgepose.sources.v4l2 import UsbCameraSource

            return UsbCameraSource(uri.target, size_wh=size_wh, fps=camera.fps)
        case "rtsp":
            from edgepose.sources.rtsp import RtspSource

            return RtspSource(camera.stream_url(), description=str(uri))
        case "synthetic":
            from edgepose.sources.synthetic import SyntheticSource

            return SyntheticSource(
                size_wh=size_wh, fps=camera.fps or 30.0, live=realtime is not False
            )
        case "path":
            return PathSource(Path(uri.target), camera.fps, live=bool(realtime), loop=loop)


@dataclass
class PathSource:
    """A folder of images, an image or a video file; which one, is found out when it is opened.

    So whatever is wrong with the path, or slow, concerns this source's capture thread only. `fps`
    is the rate of images, instead of `image_fps`, and of a video without times; if `live`, frames
    are paced by the clock and late ones are dropped.
    """

    path: Path
    fps: float | None = None
    live: bool = False
    loop: bool = False
    image_fps: float | None = None

    def __post_init__(self) -> None:
        self.description = str(self.path)

    def frames(self) -> FrameStream:
        """Yield the frames; raises SourceError if there are none."""
        from edgepose.sources import images

        source: FrameSource
        if paths := images.find_images(self.path):
            fps = self.fps or self.image_fps or images.DEFAULT_FPS
            source = images.ImageSource(paths, fps=fps, realtime=self.live, loop=self.loop)
        else:
            # It brings FFmpeg, which images do not need.
            from edgepose.sources.video_file import VideoFileSource

            source = VideoFileSource(self.path, live=self.live, loop=self.loop, fps=self.fps)
        yield from source.frames()


def image_sequence(paths: Sequence[Path], fps: float) -> FrameSource:
    """Return the source of some images in the given order."""
    from edgepose.sources.images import ImageSource

    return ImageSource(paths, fps=fps)


def _pose_model(
    kind: str, interpreter: Interpreter, name: str, config: ModelConfig, pose_threshold: float
) -> PoseModel:
    specs = (interpreter.input, interpreter.outputs)
    max_poses = config.max_poses
    match kind:
        case "movenet_single":
            return movenet_single.MovenetSingle(*specs, name=name, crop=config.crop)
        case "movenet_multipose":
            return movenet_multipose.MovenetMultipose(*specs, name=name, max_poses=max_poses)
        case _:
            return posenet.Posenet(
                *specs,
                name=name,
                max_poses=max_poses,
                pose_threshold=pose_threshold,
                nms_radius_px=config.nms_radius_px,
            )
