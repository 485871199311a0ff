"""From the configuration to the discovery messages of a node."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgepose.config.people import ALL_EXERCISES, BUILT_IN_EXERCISES
from edgepose.config.schema import Config
from edgepose.events.posture_detector import STATES
from edgepose.homeassistant.discovery import (
    CameraDevice,
    NodeDevice,
    camera_message,
    node_message,
)
from edgepose.monitoring.host import device_name, temperatures_c, throttling
from edgepose.mqtt.topics import DiscoveryTopics, Topics

_PI_SENSOR: Final = "cpu-thermal"
_MIN_EXPIRY_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the machine is and reports; `temperature` is the name of a sensor.

    `restartable` means that a service manager would start edgepose again.
    """

    hardware: str
    temperature: str | None
    throttling: bool
    restartable: bool


def read_host(*, restartable: bool) -> Host:
    """Read what the machine reports; on a Pi 5 its firmware answers through another process."""
    sensors = temperatures_c()
    sensor = _PI_SENSOR if _PI_SENSOR in sensors else next(iter(sensors), None)
    return Host(
        hardware=device_name(),
        temperature=sensor,
        throttling=throttling() is not None,
        restartable=restartable,
    )


def discovery_messages(config: Config, host: Host) -> Mapping[str, bytes]:
    """Return the discovery messages by topic, the node's first; none if discovery is off."""
    chosen = config.homeassistant
    if not chosen.enabled:
        return {}
    topics = Topics(node=config.node_name, base=config.mqtt.base_topic)
    places = DiscoveryTopics(config.node_name, chosen.discovery_prefix)
    expire_after_s = max(_MIN_EXPIRY_S, round(3 * config.stats_interval_s))
    node = NodeDevice(
        topics=topics,
        name=chosen.name or config.node_name,
        area=chosen.area,
        hardware=host.hardware,
        expire_after_s=expire_after_s,
        temperature=host.temperature,
        throttling=host.throttling,
        restartable=host.restartable,
    )
    messages = {places.device(): node_message(node)}
    for camera in config.cameras:
        device = CameraDevice(
            topics=topics,
            camera=camera.name,
            label=camera.label,
            area=camera.area,
            expire_after_s=expire_after_s,
            exercises=_exercises(config.repetitions.exercise),
            # A part of the frame that is ignored has no topics.
            zones=[zone.name for zone in camera.zones if zone.exclude != "all"],
            postures=STATES if config.posture.enabled else (),
            falls=config.falls.enabled,
        )
        messages[places.device(camera.name)] = camera_message(device)
    return messages


def _exercises(counted: str | None) -> tuple[str, ...]:
    if counted is None:
        return ()
    return BUILT_IN_EXERCISES if counted == ALL_EXERCISES else (counted,)
