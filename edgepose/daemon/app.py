"""From a configuration to a running daemon, and from a changed one to what changes in it."""

import json
import logging
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from edgepose import __version__, messages, skeleton
from edgepose.build import (
    apply_presence,
    apply_tracking,
    build_cpu_model,
    build_detectors,
    build_edgetpu_model,
    build_replay_model,
    build_smoother,
    build_tracker,
    edgetpu_accelerator,
    model_files,
    source_opener,
    stall_timeout_ns,
)
from edgepose.config import CameraConfig, Config
from edgepose.config.changes import changed_keys
from edgepose.config.schema import ReloadEffect, dotted
from edgepose.daemon.camera import CameraParts, SourceParts
from edgepose.daemon.daemon import Daemon
from edgepose.daemon.signals import Signals
from edgepose.daemon.switches import Switches
from edgepose.errors import ConfigError
from edgepose.inference.failover import Failover, Models, SingleModel
from edgepose.monitoring.host import device_name
from edgepose.mqtt.topics import Topics
from edgepose.pipeline import Pipeline
from edgepose.protocols import LoadedModel, Sink
from edgepose.sinks.mqtt import MqttSink
from edgepose.sinks.ndjson import NdjsonSink
from edgepose.sinks.queued import QueuedSink
from edgepose.sinks.recorder import RecorderSink

log = logging.getLogger(__name__)


def launch(load: Callable[[], Config], *, config_file: Path | None) -> None:
    """Build every part of a configuration and run the daemon until it ends.

    `load` is called again for a reload. Raises EdgeposeError with what is missing or wrong, after
    closing what was opened.
    """
    with Signals() as signals:
        config = load()
        app = App(config, load)
        log.info(
            "edgepose %s: node %s, %s, %s, configuration %s",
            __version__,
            config.node_name,
            " and ".join(f"{model.name} on {model.device}" for model in app.models.loaded),
            f"broker {config.mqtt.address}" if config.mqtt.enabled else "no broker",
            config_file or "built in",
        )
        app.daemon.run(signals)


class App:
    """The parts of the running configuration.

    A benchmark passes its own `models`, `sources` by camera and `new_pipeline`.
    """

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        *,
        models: Models | None = None,
        sources: Mapping[str, SourceParts] | None = None,
        new_pipeline: Callable[..., Pipeline] = Pipeline,
    ) -> None:
        self.config = config
        self._load = load
        self._new_pipeline = new_pipeline
        self._topics = Topics(node=config.node_name, base=config.mqtt.base_topic)
        # Sources first: an invalid URI is reported before a model is loaded.
        sources = sources or {camera.name: _source_parts(camera) for camera in config.cameras}
        self.models = models or build_models(config)
        self._mqtt = self._mqtt_sink() if config.mqtt.enabled else None
        self._sinks = self._all_sinks()
        self.daemon = Daemon(
            [self._camera(name, source) for name, source in sources.items()],
            self.models,
            self._sinks,
            self._mqtt,
            self._topics,
            stats_interval_ns=round(config.stats_interval_s * 1e9),
            switches=Switches(config.state_path / "switches.json", frozenset(sources)),
            info=lambda model: info_message(self.config, self.models, model),
            reload=self._reload,
        )

    def _all_sinks(self) -> list[Sink]:
        output = self.config.output
        sinks: list[Sink] = [] if self._mqtt is None else [self._mqtt]
        if output.ndjson:
            # Unbuffered: the lock of a buffer, held by a blocked write, would block the exit.
            stdout = open(sys.stdout.fileno(), "wb", buffering=0, closefd=False)  # noqa: SIM115
            sinks.append(QueuedSink(NdjsonSink(stdout), name="stdout"))
        if output.record is not None:
            recorder = RecorderSink(
                output.record, max_bytes=round(output.record_max_mb * 1_000_000)
            )
            sinks.append(QueuedSink(recorder, name=str(output.record), on_idle=recorder.flush))
        return sinks

    def _mqtt_sink(self) -> MqttSink:
        config = self.config
        return MqttSink(
            config.mqtt.connect_options(config.client_id),
            self._topics,
            cameras=tuple(camera.name for camera in config.cameras),
            state_directory=config.state_path,
            on_command=lambda command: self.daemon.command(command),
        )

    def _camera(self, name: str, source: SourceParts) -> CameraParts:
        config = self.config
        pipeline = self._new_pipeline(
            self.models,
            build_tracker(config),
            build_smoother(config.smoothing),
            self._sinks,
            node=config.node_name,
            camera=name,
        )
        return CameraParts(name, source, pipeline, *build_detectors(config))

    def _reload(self) -> None:
        """Load the configuration again and apply what changed.

        Raises ConfigError, or what the models raise; nothing is applied then.
        """
        config = self._load()
        changes = changed_keys(self.config, config)
        if changes[ReloadEffect.RESTART]:
            raise ConfigError(
                f"{', '.join(map(dotted, changes[ReloadEffect.RESTART]))} changed, which a reload "
                "cannot apply; restart edgepose to apply all changes"
            )
        # Keys of a camera begin with `cameras` and its index.
        cameras = {config.cameras[int(key[1])] for key in changes[ReloadEffect.CAMERA]}
        sources = {camera.name: _source_parts(camera) for camera in cameras}
        models = build_models(config, wait=False) if changes[ReloadEffect.MODEL] else None
        # Nothing below fails.
        if changes[ReloadEffect.LIVE]:
            for camera in self.daemon.cameras.values():
                _apply_settings(camera.parts, self.config, config)
        self.config = config
        if models is not None:
            self.models = models
            self.daemon.replace_models(models)
        for name, source in sources.items():
            self.daemon.cameras[name].replace_source(source)


def _apply_settings(camera: CameraParts, old: Config, new: Config) -> None:
    """Apply changed settings to a running camera; its tracks, ids and presence stay."""
    if new.smoothing != old.smoothing:
        camera.pipeline.smoother = build_smoother(new.smoothing)
    if new.tracking != old.tracking:
        apply_tracking(camera.pipeline.tracker, new)
    apply_presence(camera.occupancy, camera.track_events, new)


def _source_parts(camera: CameraConfig) -> SourceParts:
    return SourceParts(source_opener(camera), stall_timeout_ns(camera))


def build_models(config: Config, *, wait: bool = True) -> Models:
    """Load the configured model.

    An Edge TPU that is required is opened before this returns; with `wait` False, or if the CPU can
    run meanwhile and `accelerator` is auto, it is opened in the background. Raises ModelError or
    AcceleratorError.
    """
    if config.accelerator == "replay":
        return SingleModel(build_replay_model(config))
    files = model_files(config.model.name)
    edgetpu = edgetpu_accelerator(config, files)
    if edgetpu is None:
        reason = files.missing if config.accelerator == "auto" else None
        return SingleModel(build_cpu_model(config, files), reason=reason)
    fallback = None if files.cpu is None else build_cpu_model(config, files)
    if fallback is None:
        log.warning("there is no fallback for the Edge TPU: %s", files.missing)
    opener = partial(build_edgetpu_model, config, files, edgetpu)
    required = config.accelerator == "edgetpu" or fallback is None
    try:
        primary = opener() if wait and required else None
    except BaseException:
        if fallback is not None:
            fallback.interpreter.close()
        raise
    return Failover(opener, fallback, primary=primary, fingerprint=edgetpu.fingerprint)


def info_message(config: Config, models: Models, model: LoadedModel | None) -> bytes:
    """Return the `info` payload: what this node is and how to read its messages.

    `model` is the one that runs, whose keypoint threshold is in effect.
    """
    threshold = config.pose.keypoint_threshold if model is None else model.keypoint_threshold
    return json.dumps(
        {
            "version": __version__,
            "node": config.node_name,
            "device": device_name(),
            "cameras": [camera.name for camera in config.cameras],
            "models": [model.name for model in models.loaded],
            "keypoint_names": skeleton.KEYPOINT_NAMES,
            "skeleton": skeleton.EDGES,
            "keypoint_threshold": threshold,
            "message_schema": messages.pose_message_schema(),
        }
    ).encode()
