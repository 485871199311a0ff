"""Discovery messages of the node `gym`, for several test modules."""

import json
from pathlib import Path
from typing import Any, Final

from edgepose import __version__
from edgepose.config.people import FallsConfig, PostureConfig, RepetitionsConfig, ZoneConfig
from edgepose.config.schema import CameraConfig, Config
from edgepose.homeassistant.discovery import Host, camera_message, node_message

GOLDEN: Final = Path(__file__).parent / "golden"
GYM: Final = Config(node="gym")
SQUARE: Final = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


def golden(name: str) -> dict[str, Any]:
    """Return a message as Home Assistant accepted it, of this version."""
    message: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    for part in ("device", "origin"):
        message["payload"][part]["sw_version"] = __version__
    return message


def node(config: Config = GYM, **changes: Any) -> dict[str, Any]:
    """Return the message of the node, a Raspberry Pi in a service."""
    given: dict[str, Any] = {
        "hardware": "Raspberry Pi 5 Model B Rev 1.0",
        "temperature": "cpu-thermal",
        "throttling": True,
        "restartable": True,
    }
    return decoded(node_message(config, Host(**given | changes)))


def camera(name: str, **values: Any) -> dict[str, Any]:
    """Return the message of a camera with the default configuration."""
    return decoded(camera_message(GYM, CameraConfig(name=name, **values)))


def gym_main() -> dict[str, Any]:
    """Return the message of a camera with everything on, and two zones."""
    config = Config(
        node="gym",
        posture=PostureConfig(enabled=True),
        falls=FallsConfig(enabled=True),
        repetitions=RepetitionsConfig(exercise="auto"),
    )
    zones = tuple(ZoneConfig(name=name, polygon=SQUARE) for name in ("mat", "door-way"))
    return decoded(camera_message(config, CameraConfig(name="main", zones=zones)))


def decoded(message: bytes) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(message)
    return content
