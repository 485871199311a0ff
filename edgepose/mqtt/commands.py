"""Commands from subscribers, on `<topic>/set`."""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgepose.mqtt.topics import OFF, ON, Topics

_log = logging.getLogger("edgepose.mqtt")

MAX_FPS: Final = 120.0
SMOOTHING: Final = ("steady", "responsive", "off")
PRESS: Final = b"PRESS"

_MAX_QUOTED_BYTES: Final = 40
_WARNINGS: Final = 10
_WARNINGS_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Command:
    """A valid command for a camera (None: the node), such as `enabled` with `ON` or `OFF`."""

    camera: str | None
    name: str
    payload: bytes


def parse_switch(payload: bytes) -> bool:
    """Return whether a payload is `ON` or `OFF`; raises ValueError for any other."""
    if payload not in (ON, OFF):
        raise ValueError(f"expected ON or OFF, got {_quoted(payload)}")
    return payload == ON


def parse_max_fps(payload: bytes) -> float:
    """Return a limit of frames a second, at most 120; 0 is none. Raises ValueError."""
    return _number(payload, MAX_FPS)


def parse_pose_threshold(payload: bytes) -> float:
    """Return a score from 0 to 1; raises ValueError."""
    return _number(payload, 1.0)


def parse_smoothing(payload: bytes) -> str:
    """Return the name of a preset; raises ValueError."""
    name = payload.decode("utf-8", "replace")
    if name not in SMOOTHING:
        raise ValueError(f"expected {', '.join(SMOOTHING)}, got {_quoted(payload)}")
    return name


def parse_press(payload: bytes) -> None:
    """Accept `PRESS`; raises ValueError for anything else."""
    if payload != PRESS:
        raise ValueError(f"expected PRESS, got {_quoted(payload)}")


CAMERA_COMMANDS: Final[Mapping[str, Callable[[bytes], object]]] = {
    "enabled": parse_switch,
    "max_fps": parse_max_fps,
}
"""The commands of a camera by name, each with what parses its payload or raises ValueError."""
NODE_COMMANDS: Final[Mapping[str, Callable[[bytes], object]]] = {
    "pose_threshold": parse_pose_threshold,
    "smoothing": parse_smoothing,
    "restart": parse_press,
}


class CommandReceiver:
    """Validates what arrives on the `topics` of commands and passes it to `on_command`.

    At most ten warnings a minute are logged: any client that may write to a topic could otherwise
    fill the disk with the log. Used by the network thread only.
    """

    def __init__(
        self, topics: Topics, cameras: Sequence[str], on_command: Callable[[Command], None]
    ) -> None:
        self._commands: dict[str, tuple[str | None, str, Callable[[bytes], object]]] = {
            topics.command(camera, name): (camera, name, parse)
            for camera in (*cameras, None)
            for name, parse in (NODE_COMMANDS if camera is None else CAMERA_COMMANDS).items()
        }
        self.topics = tuple(self._commands)
        self._on_command = on_command
        self._window_end_s = 0.0
        self._logged = self._left_out = 0

    def receive_earlier(self, topic: str, payload: bytes) -> None:
        """Pass a command on that waited at the broker, or is retained, if it switches a camera off.

        Any other may be older than the last `OFF`, so it must not open a camera, or restart again
        and again.
        """
        if payload == OFF:
            self.receive(topic, payload)
        elif topic in self._commands:
            self._warn(
                f"{topic}: expected {OFF.decode()} of a command that is retained, or was sent "
                f"while edgepose was away, got {_quoted(payload)}; ignored, send it again"
            )

    def receive(self, topic: str, payload: bytes) -> None:
        """Pass a valid command on; log any other."""
        if topic not in self._commands:
            return
        camera, name, parse = self._commands[topic]
        try:
            parse(payload)
            self._on_command(Command(camera, name, payload))
        except ValueError as error:
            self._warn(f"{topic}: {error}; ignored")
        except Exception as error:  # noqa: BLE001 - a command must not end the connection
            self._warn(f"{topic}: the command failed: {error}")

    def _warn(self, message: str) -> None:
        now_s = time.monotonic()
        if now_s >= self._window_end_s:
            if self._left_out:
                _log.warning("%d more invalid commands were not logged", self._left_out)
            self._window_end_s = now_s + _WARNINGS_S
            self._logged = self._left_out = 0
        if self._logged < _WARNINGS:
            self._logged += 1
            _log.warning("%s", message)
        else:
            self._left_out += 1


def _number(payload: bytes, highest: float) -> float:
    """Return a decimal number, moved into the range from 0 to `highest`; raises ValueError."""
    if not re.fullmatch(rb"-?[0-9]{1,9}(\.[0-9]{1,9})?", payload):
        raise ValueError(f"expected a number from 0 to {highest:g}, got {_quoted(payload)}")
    return min(max(0.0, float(payload)), highest)


def _quoted(payload: bytes) -> str:
    """Return the beginning of a payload for a log line, printable."""
    text = ascii(payload[:_MAX_QUOTED_BYTES].decode("utf-8", "replace"))
    return text if len(payload) <= _MAX_QUOTED_BYTES else f"{text}... ({len(payload)} bytes)"
