"""Commands from subscribers, on `<topic>/set`."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgepose.mqtt.topics import OFF, ON, Topics

_log = logging.getLogger("edgepose.mqtt")

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


CAMERA_COMMANDS: Final[Mapping[str, Callable[[bytes], object]]] = {"enabled": parse_switch}
"""The commands of a camera by name, each with what parses its payload or raises ValueError."""


class CommandReceiver:
    """Validates what arrives on the `topics` of commands and passes it to `on_command`.

    At most ten warnings a minute are logged: any client that may write to a topic could otherwise
    fill the disk with the log. Used by the network thread only.
    """

    def __init__(
        self, topics: Topics, cameras: Sequence[str], on_command: Callable[[Command], None]
    ) -> None:
        self._commands = {
            topics.command(camera, name): (camera, name)
            for camera in cameras
            for name in CAMERA_COMMANDS
        }
        self.topics = tuple(self._commands)
        self._on_command = on_command
        self._window_end_s = 0.0
        self._logged = self._left_out = 0

    def receive_earlier(self, topic: str, payload: bytes) -> None:
        """Pass a command on that waited at the broker, or is retained, if it is `OFF`.

        It may be older than the last `OFF`, so it must not open a camera.
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
        camera, name = self._commands[topic]
        try:
            CAMERA_COMMANDS[name](payload)
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


def _quoted(payload: bytes) -> str:
    """Return the beginning of a payload for a log line, printable."""
    text = ascii(payload[:_MAX_QUOTED_BYTES].decode("utf-8", "replace"))
    return text if len(payload) <= _MAX_QUOTED_BYTES else f"{text}... ({len(payload)} bytes)"
