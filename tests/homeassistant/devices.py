"""Discovery messages of the node `gym`, for several test modules."""

import json
from pathlib import Path
from typing import Any, Final

from edgepose import __version__
from edgepose.homeassistant.discovery import (
    CameraDevice,
    NodeDevice,
    camera_message,
    node_message,
)
from edgepose.mqtt.topics import Topics

GOLDEN: Final = Path(__file__).parent / "golden"
GYM = Topics(node="gym")
POSTURES = ("standing", "sitting", "lying", "unclear", "nobody")
EXERCISES = ("squat", "push_up", "curl")


def golden(name: str) -> dict[str, Any]:
    """Return a message as Home Assistant accepted it, of this version."""
    message: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    for part in ("device", "origin"):
        message["payload"][part]["sw_version"] = __version__
    return message


def node(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "topics": GYM,
        "name": "gym",
        "area": None,
        "hardware": "Raspberry Pi 5 Model B Rev 1.0",
        "expire_after_s": 90,
        "temperature": "cpu-thermal",
        "throttling": True,
        "restartable": True,
    }
    return decoded(node_message(NodeDevice(**given | changes)))


def camera(name: str, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"label": None, "area": None, "expire_after_s": 90}
    return decoded(camera_message(CameraDevice(topics=GYM, camera=name, **given | changes)))


def gym_main() -> dict[str, Any]:
    zones = ("mat", "door-way")
    return camera("main", postures=POSTURES, falls=True, exercises=EXERCISES, zones=zones)


def decoded(message: bytes) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(message)
    return content
