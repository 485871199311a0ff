"""The discovery messages of Home Assistant: one device for the node, one for each camera.

Only pure functions; `entities.json` has all that they send, with `$names` for what differs. A part
with nothing but its `platform` removes that entity: it replaces what is off. Templates read with
`get`, because Home Assistant logs a missing key at every message. What is known of a room is
available while its camera is: a camera that sees nothing must not switch lights off. An event
entity is not, since automations start when it becomes available again. Periodic figures are
disabled by default, because they would fill a database.
https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any, Final

import msgspec

from edgepose import __version__
from edgepose.config.people import ALL_EXERCISES, BUILT_IN_EXERCISES
from edgepose.config.schema import CameraConfig, Config
from edgepose.events.posture_detector import STATES as POSTURE_STATES
from edgepose.mqtt.commands import MAX_FPS, SMOOTHING
from edgepose.mqtt.topics import DiscoveryTopics, Topics

Parts = dict[str, dict[str, Any]]

_ORIGIN: Final = {"name": "edgepose", "sw_version": __version__}
_MIN_EXPIRY_S: Final = 60
"""The statistics expire after three intervals, but not sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the machine is and reports; `temperature` is the name of a sensor.

    `restartable` means that a service manager would start edgepose again.
    """

    hardware: str
    temperature: str | None
    throttling: bool
    restartable: bool


def discovery_messages(config: Config, host: Host) -> Mapping[str, bytes]:
    """Return the discovery messages by topic, the node's first; none if discovery is off."""
    if not config.homeassistant.enabled:
        return {}
    topics = DiscoveryTopics(config.node_name, config.homeassistant.discovery_prefix)
    cameras = {topics.device(one.name): camera_message(config, one) for one in config.cameras}
    return {topics.device(): node_message(config, host), **cameras}


def node_message(config: Config, host: Host) -> bytes:
    """Return the message of a node."""
    values = {"sensor": host.temperature, "presets": SMOOTHING, **_values(config)}
    off = {
        "throttled": not host.throttling,
        "temperature": host.temperature is None,
        "restart": not host.restartable,
    }
    device = {
        "name": config.homeassistant.name or config.node_name,
        "model": "Pose sensor",
        "hw_version": host.hardware,
        "configuration_url": config.dashboard.url,
        "suggested_area": config.homeassistant.area,
    }
    parts = _without(off, _parts("node", values))
    return _message((config.node_name,), device, parts)


def camera_message(config: Config, camera: CameraConfig) -> bytes:
    """Return the message of a camera."""
    topics, name = _topics(config), camera.name
    exercises = _exercises(config.repetitions.exercise)
    # A part of the frame that is ignored has no topics.
    zones = [zone.name for zone in camera.zones if zone.exclude != "all"]
    events = ["enter", "leave"]
    events += ["fall"] if config.falls.enabled else []
    events += ["zone_enter", "zone_leave"] if zones else []
    values = {
        "camera": f"{topics.root}/{name}",
        "name": name,
        "events": events,
        "postures": POSTURE_STATES,
        # Home Assistant would take `None` for unknown.
        "exercises": [*exercises, "nothing"],
        "max_fps": MAX_FPS,
        **_values(config),
    }
    off = {
        "posture": not config.posture.enabled,
        "fall": not config.falls.enabled,
        "repetitions": not exercises,
        "exercise": not exercises,
    }
    parts = _without(off, _parts("camera", values))
    for zone in zones:
        words = zone.replace("-", " ").replace("_", " ").strip() or zone
        title = words[:1].upper() + words[1:]
        of_zone = _parts("zone", {**values, "zone": zone, "title": title})
        parts |= {f"zone_{zone}_{key}": part for key, part in of_zone.items()}
    device = {
        "name": camera.label or f"{topics.node} {name}",
        "model": "Camera",
        "via_device": _id(topics.node),
        "configuration_url": config.dashboard.url,
        "suggested_area": camera.area,
    }
    online = "{{ 'online' if value == 'online' else 'offline' }}"
    availability = [
        {"topic": topics.availability},
        {"topic": topics.status(name), "value_template": online},
    ]
    more = {"availability": availability, "availability_mode": "all"}
    return _message((topics.node, name), device, parts, **more)


def with_removals(previous: bytes, message: bytes) -> bytes | None:
    """Return a message that also removes the parts which only the `previous` one has.

    None if there are none, or if the previous one is not a message of this kind. Without it, Home
    Assistant keeps a part that is left out.
    """
    try:
        before = msgspec.json.decode(previous, type=dict[str, Any])["components"]
        gone = {key: part["platform"] for key, part in before.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    content = msgspec.json.decode(message)
    gone = {key: platform for key, platform in gone.items() if key not in content["components"]}
    if not gone:
        return None
    content["components"] |= {key: {"platform": platform} for key, platform in gone.items()}
    return msgspec.json.encode(content)


def _topics(config: Config) -> Topics:
    return Topics(node=config.node_name, base=config.mqtt.base_topic)


def _values(config: Config) -> Mapping[str, object]:
    expire_after_s = max(_MIN_EXPIRY_S, round(3 * config.stats_interval_s))
    return {"node": _topics(config).root, "expire_after": expire_after_s}


def _exercises(counted: str | None) -> tuple[str, ...]:
    if counted is None:
        return ()
    return BUILT_IN_EXERCISES if counted == ALL_EXERCISES else (counted,)


@cache
def _entities() -> Mapping[str, Parts]:
    text = files("edgepose.homeassistant").joinpath("entities.json").read_bytes()
    return msgspec.json.decode(text, type=dict[str, Parts])


def _parts(table: str, values: Mapping[str, object]) -> Parts:
    """Return the parts of a table with the values in place of their `$names`."""
    return {key: _filled(part, values) for key, part in _entities()[table].items()}


def _filled(value: Any, values: Mapping[str, object]) -> Any:
    """Return a part with its names replaced; one that is all of a text keeps its type."""
    match value:
        case dict():
            return {key: _filled(inner, values) for key, inner in value.items()}
        case list():
            return [_filled(inner, values) for inner in value]
        case str() if value.startswith("$") and value[1:] in values:
            return values[value[1:]]
        case str():
            return Template(value).safe_substitute(values)
    return value


def _without(off: Mapping[str, bool], parts: Parts) -> Parts:
    """Return the parts with those that are off replaced by what removes them."""
    return {
        key: {"platform": part["platform"]} if off.get(key) else part for key, part in parts.items()
    }


def _id(*path: str) -> str:
    # Ids of nodes and cameras may have any other character that could join them.
    return "/".join(("edgepose", *path))


def _message(
    path: tuple[str, ...], device: Mapping[str, object], parts: Parts, **more: Any
) -> bytes:
    """Return the message of a node or camera, with the ids of device and entities.

    Without what is None in `device`.
    """
    slug = "_".join(path)
    for key, part in parts.items():
        if len(part) > 1:
            part["unique_id"] = _id(*path, key)
            # Home Assistant replaces what may not be in the id of an entity.
            part["default_entity_id"] = f"{part['platform']}.{slug}_{key}"
    content = {
        "device": {
            "identifiers": [_id(*path)],
            "manufacturer": "edgepose",
            "sw_version": __version__,
            **{key: value for key, value in device.items() if value is not None},
        },
        "origin": _ORIGIN,
        "qos": 1,
        **more,
        "components": parts,
    }
    return msgspec.json.encode(content)
