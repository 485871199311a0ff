"""A Config brought to life: parts built, wired into the daemon, and run."""

import json
import logging
import sys
from pathlib import Path

from edgepose import __version__, messages, skeleton
from edgepose.build import (
    LoadedModel,
    build_model,
    build_smoother,
    build_tracker,
    source_opener,
)
from edgepose.config import Config
from edgepose.daemon import Camera, Daemon, SwitchFile
from edgepose.events.presence import Presence
from edgepose.host import device_name
from edgepose.messages import MessageContext
from edgepose.pipeline import Pipeline
from edgepose.protocols import Sink
from edgepose.sinks.mqtt import MqttSink
from edgepose.sinks.ndjson import NdjsonSink
from edgepose.sinks.recorder import RecorderSink
from edgepose.systemd import Notifier
from edgepose.topics import Topics

log = logging.getLogger(__name__)


def launch(config: Config, *, config_file: Path | None) -> None:
    """Build every part of a configuration and run the daemon to its end.

    Raises EdgeposeError with what is missing or wrong; everything that was opened is closed then.
    """
    # Sources first: a URI that cannot be meant costs no model load.
    openers = {camera.name: source_opener(camera) for camera in config.cameras}
    model = build_model(config)
    topics = Topics(node=config.node_name, base=config.mqtt.base_topic)
    sinks: list[Sink] = []
    mqtt: MqttSink | None = None
    commands: list[Daemon] = []
    if config.mqtt.enabled:
        mqtt = MqttSink(
            address=config.mqtt.address,
            topics=topics,
            client_id=config.client_id,
            cameras=tuple(openers),
            info=info_message(config, model),
            username=config.mqtt.user,
            password=config.mqtt.read_password(),
            tls=config.mqtt.tls_files,
            protocol=config.mqtt.protocol,
            keepalive_s=config.mqtt.keepalive_s,
            state_directory=config.state_path,
            on_command=lambda camera, enabled: commands[0].command(camera, enabled),
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
    cameras = [
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
        )
        for name, opener in openers.items()
    ]
    daemon = Daemon(
        cameras,
        sinks,
        mqtt,
        topics,
        stats_interval_ns=round(config.stats_interval_s * 1e9),
        switch_file=SwitchFile(config.state_path / "switches.json"),
        notifier=Notifier(),
    )
    commands.append(daemon)
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
