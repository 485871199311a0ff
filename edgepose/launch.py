"""A Config brought to life: parts built, wired into the daemon, and run."""

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgepose import __version__, messages, skeleton
from edgepose.build import (
    LoadedModel,
    build_model,
    build_smoother,
    build_tracker,
    silence_ns,
    source_opener,
)
from edgepose.config import Config
from edgepose.daemon import Daemon, SwitchFile
from edgepose.errors import ConfigError
from edgepose.events.presence import Presence
from edgepose.host import device_name
from edgepose.messages import MessageContext
from edgepose.pipeline import Pipeline
from edgepose.protocols import FrameSource, Sink
from edgepose.sinks.mqtt import MqttSink
from edgepose.sinks.ndjson import NdjsonSink
from edgepose.sinks.recorder import RecorderSink
from edgepose.supervision import Camera
from edgepose.systemd import Notifier
from edgepose.topics import Topics

log = logging.getLogger(__name__)


def launch(load: Callable[[], Config], *, config_file: Path | None) -> None:
    """Build every part of a configuration and run the daemon to its end.

    `load` is called again when the daemon is told to reload. Raises EdgeposeError with what is
    missing or wrong; everything that was opened is closed then.
    """
    config = load()
    # Sources first: a URI that cannot be meant costs no model load.
    openers = {camera.name: source_opener(camera) for camera in config.cameras}
    model = build_model(config)
    topics = Topics(node=config.node_name, base=config.mqtt.base_topic)
    daemons: list[Daemon] = []
    sinks: list[Sink] = []
    mqtt: MqttSink | None = None
    if config.mqtt.enabled:
        mqtt = _mqtt_sink(
            config, topics, model, lambda camera, enabled: daemons[0].command(camera, enabled)
        )
        sinks.append(mqtt)
    if config.output.ndjson:
        sinks.append(NdjsonSink(sys.stdout.buffer))
    if config.output.record is not None:
        sinks.append(
            RecorderSink(
                config.output.record, max_bytes=round(config.output.record_max_mb * 1_000_000)
            )
        )

    def reload() -> Sequence[Camera]:
        changed = load()
        _check_reloadable(config, changed)
        openers = {camera.name: source_opener(camera) for camera in changed.cameras}
        model = build_model(changed)
        if mqtt is not None:
            mqtt.set_state(topics.info, info_message(changed, model))
        return _cameras(changed, openers, model, sinks)

    daemon = Daemon(
        _cameras(config, openers, model, sinks),
        sinks,
        mqtt,
        topics,
        stats_interval_ns=round(config.stats_interval_s * 1e9),
        switch_file=SwitchFile(config.state_path / "switches.json"),
        notifier=Notifier(),
        reload=reload,
    )
    daemons.append(daemon)
    log.info(
        "edgepose %s: node %s, %s on %s, %s, configuration %s",
        __version__,
        config.node_name,
        model.name,
        model.device,
        f"broker {config.mqtt.address}" if mqtt is not None else "no broker",
        config_file or "built in",
    )
    daemon.run()


def _mqtt_sink(
    config: Config, topics: Topics, model: LoadedModel, on_command: Callable[[str, bool], None]
) -> MqttSink:
    return MqttSink(
        address=config.mqtt.address,
        topics=topics,
        client_id=config.client_id,
        cameras=tuple(camera.name for camera in config.cameras),
        info=info_message(config, model),
        username=config.mqtt.user,
        password=config.mqtt.read_password(),
        tls=config.mqtt.tls_files,
        protocol=config.mqtt.protocol,
        keepalive_s=config.mqtt.keepalive_s,
        state_directory=config.state_path,
        on_command=on_command,
    )


def _cameras(
    config: Config,
    openers: Mapping[str, Callable[[], FrameSource]],
    model: LoadedModel,
    sinks: Sequence[Sink],
) -> list[Camera]:
    return [
        Camera(
            name,
            opener,
            Pipeline(
                model.interpreter,
                model.pose_model,
                build_tracker(config),
                build_smoother(config.smoothing),
                sinks,
                MessageContext(
                    config.node_name,
                    name,
                    model.name,
                    model.device,
                    config.pose.keypoint_threshold,
                ),
                pose_threshold=model.pose_threshold,
            ),
            Presence(
                on_delay_ms=config.presence.on_delay_ms,
                off_delay_ms=config.presence.off_delay_ms,
            ),
            silence_ns(camera),
        )
        for camera, (name, opener) in zip(config.cameras, openers.items(), strict=True)
    ]


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


def info_message(config: Config, model: LoadedModel) -> bytes:
    """Return the `info` payload: who this node is and how to read its messages."""
    return json.dumps(
        {
            "version": __version__,
            "node": config.node_name,
            "device": device_name(),
            "cameras": [camera.name for camera in config.cameras],
            "models": [model.name],
            "accelerator": model.device,
            "keypoint_names": skeleton.KEYPOINT_NAMES,
            "skeleton": skeleton.EDGES,
            "keypoint_threshold": config.pose.keypoint_threshold,
            "pose_threshold": model.pose_threshold,
            "message_schema": messages.pose_message_schema(),
        }
    ).encode()
