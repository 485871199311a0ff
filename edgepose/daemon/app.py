"""A Config brought to life: parts built, wired into the daemon, and run."""

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from edgepose import __version__, messages, skeleton
from edgepose.build import (
    build_cpu,
    build_entrances,
    build_presence,
    build_smoother,
    build_tracker,
    edgetpu_opener,
    model_files,
    silence_ns,
    source_opener,
)
from edgepose.config import Config
from edgepose.daemon.camera import Camera
from edgepose.daemon.daemon import Daemon, Eyes, SwitchFile
from edgepose.daemon.systemd import Notifier
from edgepose.errors import ConfigError
from edgepose.inference.failover import Failover, Models, SingleModel
from edgepose.monitoring.host import device_name
from edgepose.mqtt.topics import Topics
from edgepose.pipeline import Pipeline
from edgepose.protocols import FrameSource, Sink
from edgepose.sinks.mqtt import MqttSink
from edgepose.sinks.ndjson import NdjsonSink
from edgepose.sinks.recorder import RecorderSink

log = logging.getLogger(__name__)

_MODEL_KEYS: Final = ("model", "accelerator", "inference", "pose")
"""What a change of asks for other models; all else leaves the loaded ones in place."""


def launch(load: Callable[[], Config], *, config_file: Path | None) -> None:
    """Build every part of a configuration and run the daemon to its end.

    `load` is called again when the daemon is told to reload. Raises EdgeposeError with what is
    missing or wrong; everything that was opened is closed then.
    """
    config = load()
    node = _Node(config, load)
    log.info(
        "edgepose %s: node %s, %s, %s, configuration %s",
        __version__,
        config.node_name,
        node.models.description,
        f"broker {config.mqtt.address}" if config.mqtt.enabled else "no broker",
        config_file or "built in",
    )
    node.daemon.run()


class _Node:
    """The parts of one running configuration, and how they become those of a changed one."""

    def __init__(self, config: Config, load: Callable[[], Config]) -> None:
        self.config = config
        self._load = load
        self._topics = Topics(node=config.node_name, base=config.mqtt.base_topic)
        # Sources first: a URI that cannot be meant costs no model load.
        openers = _openers(config)
        self.models = build_models(config)
        self._mqtt = self._mqtt_sink() if config.mqtt.enabled else None
        self._sinks: list[Sink] = [] if self._mqtt is None else [self._mqtt]
        output = config.output
        if output.ndjson:
            self._sinks.append(NdjsonSink(sys.stdout.buffer))
        if output.record is not None:
            self._sinks.append(
                RecorderSink(output.record, max_bytes=round(output.record_max_mb * 1_000_000))
            )
        self.daemon = Daemon(
            Eyes(self._cameras(config, openers, self.models), self.models),
            self._sinks,
            self._mqtt,
            self._topics,
            stats_interval_ns=round(config.stats_interval_s * 1e9),
            switch_file=SwitchFile(config.state_path / "switches.json"),
            notifier=Notifier(),
            reload=self._reload,
        )

    def _reload(self) -> Eyes:
        changed = self._load()
        _check_reloadable(self.config, changed)
        openers = _openers(changed)
        same = all(getattr(self.config, key) == getattr(changed, key) for key in _MODEL_KEYS)
        models = self.models if same else build_models(changed, wait=False)
        cameras = self._cameras(changed, openers, models)
        self.config, self.models = changed, models
        if self._mqtt is not None:
            self._mqtt.set_state(self._topics.info, info_message(changed, models))
        return Eyes(cameras, models)

    def _mqtt_sink(self) -> MqttSink:
        config = self.config
        return MqttSink(
            address=config.mqtt.address,
            topics=self._topics,
            client_id=config.client_id,
            cameras=tuple(camera.name for camera in config.cameras),
            info=info_message(config, self.models),
            username=config.mqtt.user,
            password=config.mqtt.read_password(),
            tls=config.mqtt.tls_files,
            protocol=config.mqtt.protocol,
            keepalive_s=config.mqtt.keepalive_s,
            state_directory=config.state_path,
            on_command=lambda camera, enabled: self.daemon.command(camera, enabled),
        )

    def _cameras(
        self, config: Config, openers: Mapping[str, Callable[[], FrameSource]], models: Models
    ) -> Sequence[Camera]:
        return [
            Camera(
                name,
                opener,
                Pipeline(
                    models,
                    build_tracker(config),
                    build_smoother(config.smoothing),
                    self._sinks,
                    node=config.node_name,
                    camera=name,
                ),
                build_presence(config),
                build_entrances(config),
                silence_ns(camera),
            )
            for camera, (name, opener) in zip(config.cameras, openers.items(), strict=True)
        ]


def build_models(config: Config, *, wait: bool = True) -> Models:
    """Load what the configuration looks with.

    An Edge TPU that must be there is opened here and now; with `wait` False, or where the CPU can
    serve meanwhile and `accelerator` is auto, it is opened by and by, in the background. Raises
    ModelError or AcceleratorError.
    """
    files = model_files(config.model.name)
    opener = edgetpu_opener(config, files)
    if opener is None:
        reason = files.missing if config.accelerator == "auto" else None
        return SingleModel(build_cpu(config, files), reason=reason)
    fallback = None if files.cpu is None else build_cpu(config, files)
    if fallback is None:
        log.warning("nothing can stand in for the Edge TPU: %s", files.missing)
    must_be_there = config.accelerator == "edgetpu" or fallback is None
    return Failover(
        opener,
        fallback,
        primary=opener() if wait and must_be_there else None,
        fingerprint=opener.accelerator.fingerprint,
    )


def _openers(config: Config) -> dict[str, Callable[[], FrameSource]]:
    return {camera.name: source_opener(camera) for camera in config.cameras}


def _check_reloadable(old: Config, new: Config) -> None:
    """Raise ConfigError where what changed belongs to connections and files that stay open."""
    changed = [
        name
        for name in ("node", "mqtt", "output", "state_directory", "stats_interval_s", "log")
        if getattr(old, name) != getattr(new, name)
    ]
    if [camera.name for camera in old.cameras] != [camera.name for camera in new.cameras]:
        changed.append("the names of cameras")
    if changed:
        raise ConfigError(
            f"a reload takes up cameras, models, poses, tracking, smoothing and presence, but "
            f"{', '.join(changed)} changed too; restart edgepose for that"
        )


def info_message(config: Config, models: Models) -> bytes:
    """Return the `info` payload: who this node is and how to read its messages."""
    return json.dumps(
        {
            "version": __version__,
            "node": config.node_name,
            "device": device_name(),
            "cameras": [camera.name for camera in config.cameras],
            "models": models.names,
            "keypoint_names": skeleton.KEYPOINT_NAMES,
            "skeleton": skeleton.EDGES,
            "keypoint_threshold": config.pose.keypoint_threshold,
            "message_schema": messages.pose_message_schema(),
        }
    ).encode()
