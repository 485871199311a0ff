"""What a subscriber of the demonstration prints."""

import json
import os
import shutil
import signal
import threading
import time
from typing import Any, Final, Self

from edgepose.config.schema import Config
from edgepose.mqtt.subscriber import MqttSubscriber
from edgepose.mqtt.topics import OFFLINE, Topics

LAST_MESSAGE_S: Final = 2.0
POSES_EVERY_S: Final = 0.5
"""There is a pose message for every frame; printing all of them would be unreadable."""
LINE_EVERY_S: Final = 1.0


def stop() -> None:
    """End this process as Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGTERM)


class Summary:
    """The newest messages of one camera, in words."""

    def __init__(self) -> None:
        self._status = "starting"
        self._poses: list[dict[str, Any]] = []
        self._fps: float | None = None

    def add(self, name: str, payload: bytes) -> None:
        """Add a message on the topic of this name."""
        match name:
            case "poses":
                self._poses = json.loads(payload)["poses"]
            case "status":
                self._status = payload.decode()
            case "stats":
                (camera,) = json.loads(payload)["cameras"].values()
                self._fps = camera["fps"]

    def line(self) -> str:
        """Return who is there now, and the frame rate."""
        if self._status != "online":
            return f"camera {self._status}"
        people = ", ".join(map(_person, self._poses)) or "no person"
        rate = "" if self._fps is None else f" ({self._fps:.0f} frames a second)"
        return f"{people}{rate}"


def _person(pose: dict[str, Any]) -> str:
    posture = pose.get("posture", {}).get("name")
    x = (pose["box"][0] + pose["box"][2]) / 2
    place = "left" if x < 1 / 3 else "right" if x > 2 / 3 else "middle"
    return " ".join(
        filter(None, (f"person {pose['id']}", posture if posture != "unclear" else None, place))
    )


class Subscriber:
    """Prints what the node publishes, and clears the retained messages last.

    That is every message, one a line, if `as_json`, else a line of text a second. `failure` is why
    it could not be printed, which ends the demonstration.
    """

    def __init__(self, config: Config, *, as_json: bool) -> None:
        self.failure: OSError | None = None
        self._as_json = as_json
        self._summary = Summary()
        topics = Topics(node=config.node_name, base=config.mqtt.base_topic)
        self._availability = topics.availability
        self._mqtt = MqttSubscriber(
            config.mqtt.connect_options(""),
            f"{topics.root}/#",
            self._receive,
            lambda _failure: None,
        )
        self._retained: set[str] = set()
        self._offline = threading.Event()
        self._next_poses_s = 0.0
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        """Subscribe, in the background."""
        self._mqtt.start()
        if not self._as_json:
            threading.Thread(target=self._print_lines, name="printer", daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Wait for the last message of the daemon, briefly, and clear what the broker retains."""
        self._ended.set()
        self._offline.wait(LAST_MESSAGE_S)
        self._mqtt.clear(sorted(self._retained), LAST_MESSAGE_S)
        self._mqtt.close()

    def _receive(self, topic: str, payload: bytes) -> None:
        name = topic.rpartition("/")[2]
        if topic == self._availability and payload == OFFLINE:
            self._offline.set()
        if name not in ("poses", "event"):
            if not payload:
                return
            self._retained.add(topic)
        self._summary.add(name, payload)
        if not self._as_json:
            return
        if name == "poses":
            if time.monotonic() < self._next_poses_s:
                return
            self._next_poses_s = time.monotonic() + POSES_EVERY_S
        self._print(f"{topic} {payload.decode(errors='replace')}")

    def _print_lines(self) -> None:
        while not self._ended.wait(LINE_EVERY_S):
            self._print(f"{time.strftime('%H:%M:%S')}  {self._summary.line()}")

    def _print(self, line: str) -> None:
        width = shutil.get_terminal_size((400, 24)).columns
        try:
            print(line if len(line) <= width else f"{line[: width - 1]}…", flush=True)
        except OSError as error:
            if self.failure is None:
                self.failure = error
                stop()
