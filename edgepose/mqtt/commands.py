"""Commands from subscribers, on `<topic>/set`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from edgepose.mqtt.topics import OFF, ON

_MAX_QUOTED_BYTES: Final = 40


@dataclass(frozen=True, slots=True)
class Command:
    """A valid command for a camera (None: the node), such as `enabled` with `ON` or `OFF`."""

    camera: str | None
    name: str
    payload: bytes


def parse_switch(payload: bytes) -> bool:
    """Return whether a payload is `ON` or `OFF`; raises ValueError for any other."""
    if payload not in (ON, OFF):
        raise ValueError(f"expected ON or OFF, got {quoted(payload)}")
    return payload == ON


CAMERA_COMMANDS: Final[Mapping[str, Callable[[bytes], object]]] = {"enabled": parse_switch}
"""The commands of a camera by name, each with what parses its payload or raises ValueError."""


def quoted(payload: bytes) -> str:
    """Return the beginning of a payload for a log line, printable."""
    text = ascii(payload[:_MAX_QUOTED_BYTES].decode("utf-8", "replace"))
    return text if len(payload) <= _MAX_QUOTED_BYTES else f"{text}... ({len(payload)} bytes)"
