"""The discovery messages of Home Assistant: one device for the node, one for each camera.

Only pure functions. The ids of entities are joined by `/`, since the ids of nodes and cameras may
have any other character that could join them. Templates read with `get`: a key that is missing
would be logged at every message. A part with nothing but its `platform` removes that entity, and
stands for each feature that is off.
https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edgepose import __version__
from edgepose.mqtt.commands import MAX_FPS, SMOOTHING
from edgepose.mqtt.topics import Topics

Part = dict[str, Any]

_ORIGIN: Final = {"name": "edgepose", "sw_version": __version__}
_DIAGNOSTIC: Final = {"entity_category": "diagnostic"}
_CONFIG: Final = {"entity_category": "config"}
_HIDDEN: Final = {"enabled_by_default": False}
"""Periodic figures would fill the database of Home Assistant, so a user enables them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDevice:
    """What a node is and has; `expire_after_s` is for how long its statistics are valid.

    `temperature` is the name of the processor's sensor. `restartable` means that a service manager
    starts edgepose again.
    """

    topics: Topics
    name: str
    area: str | None
    hardware: str
    expire_after_s: int
    temperature: str | None
    throttling: bool
    restartable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraDevice:
    """What a camera is and has; `postures` and `exercises` are what it may report, none if off."""

    topics: Topics
    camera: str
    label: str | None
    area: str | None
    expire_after_s: int
    postures: Sequence[str] = ()
    falls: bool = False
    exercises: Sequence[str] = ()
    zones: Sequence[str] = ()


class _Entities:
    """Makes the parts of one device."""

    def __init__(self, topics: Topics, *path: str) -> None:
        self._id = "/".join(("edgepose", topics.node, *path))
        self._slug = "_".join((topics.node, *path))
        self._node = {"availability": [{"topic": topics.availability}]}

    def part(self, entity: str, name: str, /, **more: Any) -> Part:
        """Return a part that has the availability of its device; `entity` is platform and key."""
        platform, _, key = entity.partition(".")
        # Of an entity id, Home Assistant replaces what may not be in one.
        return {
            "platform": platform,
            "unique_id": f"{self._id}/{key}",
            "default_entity_id": f"{platform}.{self._slug}_{key}",
            "name": name,
            **more,
        }

    def of_node(self, entity: str, name: str, /, **more: Any) -> Part:
        """Return a part that is available while the node is."""
        return self.part(entity, name, **self._node, **more)

    def device(self, name: str, area: str | None, **more: Any) -> Part:
        """Return the device of these entities."""
        device: Part = {"identifiers": [self._id], "name": name, "manufacturer": "edgepose"}
        suggested = {} if area is None else {"suggested_area": area}
        return {**device, "sw_version": __version__, **more, **suggested}


def node_message(node: NodeDevice) -> bytes:
    """Return the message of a node."""
    topics, entities = node.topics, _Entities(node.topics)
    of_node = entities.of_node
    from_stats = {"state_topic": topics.stats, "expire_after": node.expire_after_s, **_DIAGNOSTIC}
    measured = {"state_class": "measurement", "suggested_display_precision": 0, **_HIDDEN}
    parts = {
        # Without availability, so that it is `off` while the node is away.
        "connection": entities.part(
            "binary_sensor.connection",
            "Connection",
            device_class="connectivity",
            state_topic=topics.availability,
            payload_on="online",
            payload_off="offline",
            **_DIAGNOSTIC,
        ),
        "accelerator": of_node(
            "sensor.accelerator",
            "Accelerator",
            device_class="enum",
            options=["cpu", "edgetpu", "none"],
            icon="mdi:chip",
            state_topic=topics.accelerator,
            value_template="{{ value_json.get('device', 'None') "
            "if value_json.get('model') else 'none' }}",
            json_attributes_topic=topics.accelerator,
            json_attributes_template="{{ {'model': value_json.get('model'), "
            "'reason': value_json.get('reason'), 'since': value_json.get('since')} | to_json }}",
            **_DIAGNOSTIC,
        ),
        "degraded": of_node(
            "binary_sensor.degraded",
            "Degraded",
            device_class="problem",
            state_topic=topics.accelerator,
            value_template="{{ 'ON' if value_json.get('degraded') else 'OFF' }}",
            **_DIAGNOSTIC,
        ),
        "throttled": of_node(
            "binary_sensor.throttled",
            "Throttled",
            device_class="problem",
            value_template="{% set flags = value_json.get('throttling') %}"
            "{{ 'None' if flags is none else 'ON' if flags | reject('search', '_occurred$') | list "
            "else 'OFF' }}",
            **from_stats,
        ),
        "temperature": of_node(
            "sensor.temperature",
            "Temperature",
            device_class="temperature",
            unit_of_measurement="°C",
            value_template=_from("temperatures_c", str(node.temperature)),
            **measured,
            **from_stats,
        ),
        "memory": of_node(
            "sensor.memory",
            "Memory",
            device_class="data_size",
            unit_of_measurement="MB",
            value_template=_from("memory_mb"),
            **measured,
            **from_stats,
        ),
        "pose_threshold": of_node(
            "number.pose_threshold",
            "Pose threshold",
            icon="mdi:tune-variant",
            **_setting(topics, None, "pose_threshold"),
            **_limits(0, 1, 0.01),
        ),
        "smoothing": of_node(
            "select.smoothing",
            "Smoothing",
            icon="mdi:sine-wave",
            options=list(SMOOTHING),
            **_setting(topics, None, "smoothing"),
        ),
        "restart": of_node(
            "button.restart",
            "Restart",
            device_class="restart",
            command_topic=topics.command(None, "restart"),
            payload_press="PRESS",
            **_CONFIG,
            **_HIDDEN,
        ),
    }
    off = {
        "throttled": not node.throttling,
        "temperature": node.temperature is None,
        "restart": not node.restartable,
    }
    device = entities.device(node.name, node.area, model="Pose sensor", hw_version=node.hardware)
    return _encode(device, parts, off)


def camera_message(camera: CameraDevice) -> bytes:
    """Return the message of a camera.

    What is known about the room is available while the camera is: a camera that sees nothing must
    not switch the lights off.
    """
    topics, name = camera.topics, camera.camera
    entities = _Entities(topics, name)
    part, of_node = entities.part, entities.of_node
    figure = {
        "state_class": "measurement",
        "state_topic": topics.stats,
        "expire_after": camera.expire_after_s,
        **_DIAGNOSTIC,
        **_HIDDEN,
    }
    events = ["enter", "leave"]
    events += ["fall"] if camera.falls else []
    events += ["zone_enter", "zone_leave"] if camera.zones else []
    parts = {
        **_occupied(entities, "", topics.presence(name), topics.count(name)),
        # Not that of the camera: an event entity that is available again triggers automations.
        "event": of_node(
            "event.event",
            "Event",
            event_types=events,
            icon="mdi:walk",
            state_topic=topics.event(name),
            value_template=f"{{% if value_json.get('type') in {events} %}}"
            "{{ dict(value_json, event_type=value_json.type) | to_json }}{% endif %}",
        ),
        "posture": part(
            "sensor.posture",
            "Posture",
            device_class="enum",
            icon="mdi:human",
            options=list(camera.postures),
            state_topic=topics.camera_state(name, "posture"),
        ),
        "fall": part(
            "binary_sensor.fall",
            "Fall suspected",
            device_class="safety",
            icon="mdi:emergency",
            state_topic=topics.camera_state(name, "fall"),
        ),
        "repetitions": part(
            "sensor.repetitions",
            "Repetitions",
            state_class="total_increasing",
            unit_of_measurement="repetitions",
            suggested_display_precision=0,
            icon="mdi:weight-lifter",
            state_topic=topics.camera_state(name, "repetitions"),
            value_template=_from("count"),
        ),
        "exercise": part(
            "sensor.exercise",
            "Exercise",
            device_class="enum",
            icon="mdi:dumbbell",
            # Home Assistant would take `None` for unknown.
            options=[*camera.exercises, "nothing"],
            state_topic=topics.camera_state(name, "repetitions"),
            value_template="{{ value_json.get('exercise') or 'nothing' }}",
        ),
    }
    for zone in camera.zones:
        prefix = topics.camera_state(name, f"zones/{zone}")
        parts |= _occupied(entities, zone, f"{prefix}/presence", f"{prefix}/count")
    parts |= {
        "status": of_node(
            "binary_sensor.status",
            "Camera connection",
            device_class="connectivity",
            state_topic=topics.status(name),
            value_template="{{ 'ON' if value == 'online' else 'OFF' }}",
            **_DIAGNOSTIC,
        ),
        # On means that the camera watches: what turns everything off then protects privacy.
        "enabled": of_node(
            "switch.enabled",
            "Camera",
            icon="mdi:cctv",
            state_topic=topics.enabled(name),
            command_topic=topics.command(name, "enabled"),
            **_CONFIG,
        ),
        "max_fps": of_node(
            "number.max_fps",
            "Frame rate limit",
            icon="mdi:speedometer",
            unit_of_measurement="fps",
            **_setting(topics, name, "max_fps"),
            **_limits(0, MAX_FPS, 1),
        ),
        "fps": part(
            "sensor.fps",
            "Frame rate",
            unit_of_measurement="fps",
            suggested_display_precision=1,
            icon="mdi:speedometer",
            value_template=_from("cameras", name, "fps"),
            **figure,
        ),
        "latency": part(
            "sensor.latency",
            "Latency",
            device_class="duration",
            unit_of_measurement="ms",
            suggested_display_precision=0,
            icon="mdi:timer-outline",
            value_template=_from("cameras", name, "stages_ms", "total", "p95"),
            **figure,
        ),
    }
    off = {
        "posture": not camera.postures,
        "fall": not camera.falls,
        "repetitions": not camera.exercises,
        "exercise": not camera.exercises,
    }
    device = entities.device(
        camera.label or f"{topics.node} {name}",
        camera.area,
        model="Camera",
        via_device=f"edgepose/{topics.node}",
    )
    online = "{{ 'online' if value == 'online' else 'offline' }}"
    availability = [
        {"topic": topics.availability},
        {"topic": topics.status(name), "value_template": online},
    ]
    return _encode(device, parts, off, availability=availability, availability_mode="all")


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


def _occupied(entities: _Entities, zone: str, presence: str, count: str) -> dict[str, Part]:
    """Return presence and number of persons, of a camera or of one of its zones."""
    words = zone.replace("-", " ").replace("_", " ").strip() or zone
    name = words[:1].upper() + words[1:]
    prefix = f"zone_{zone}_" if zone else ""
    return {
        f"{prefix}occupancy": entities.part(
            f"binary_sensor.{prefix}occupancy",
            f"{name} occupancy" if zone else "Occupancy",
            device_class="occupancy",
            state_topic=presence,
        ),
        f"{prefix}people": entities.part(
            f"sensor.{prefix}people",
            f"{name} people" if zone else "People",
            state_class="measurement",
            unit_of_measurement="people",
            suggested_display_precision=0,
            icon="mdi:account-group",
            state_topic=count,
        ),
    }


def _setting(topics: Topics, camera: str | None, name: str) -> Part:
    """Return what all settings have; few users need one."""
    command = topics.command(camera, name)
    states = {"state_topic": command.removesuffix("/set"), "command_topic": command}
    return {**states, **_CONFIG, **_HIDDEN}


def _limits(lowest: float, highest: float, step: float) -> Part:
    """Return the limits of a number that a user types in."""
    return {"min": lowest, "max": highest, "step": step, "mode": "box"}


def _from(*path: str) -> str:
    """Return the template of a value in a JSON message."""
    *groups, last = path
    inner = "".join(f".get({name!r}, {{}})" for name in groups)
    return f"{{{{ value_json{inner}.get({last!r}) }}}}"


def _encode(device: Part, parts: Mapping[str, Part], off: Mapping[str, bool], **more: Any) -> bytes:
    components = {
        key: {"platform": part["platform"]} if off.get(key) else part for key, part in parts.items()
    }
    content = {"device": device, "origin": _ORIGIN, "qos": 1, **more, "components": components}
    return msgspec.json.encode(content)
