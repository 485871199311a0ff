"""Every MQTT topic of a node, with its quality of service and whether the broker keeps it."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from edgepose.errors import ConfigError

ONLINE: Final = b"online"
OFFLINE: Final = b"offline"
STALLED: Final = b"stalled"
ON: Final = b"ON"
OFF: Final = b"OFF"

_ID = re.compile(r"[a-zA-Z0-9_-]+\Z")
_MAX_TOPIC_BYTES = 65535


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a message is handed over: MQTT quality of service, and whether it is retained."""

    qos: int
    retain: bool


class Kind(Enum):
    """What a topic carries; the value is how it is delivered."""

    AVAILABILITY = ("availability", Delivery(1, True))
    INFO = ("info", Delivery(1, True))
    STATS = ("stats", Delivery(0, True))
    ACCELERATOR = ("accelerator", Delivery(1, True))
    POSES = ("poses", Delivery(0, False))
    PRESENCE = ("presence", Delivery(1, True))
    COUNT = ("count", Delivery(1, True))
    EVENT = ("event", Delivery(1, False))
    STATUS = ("status", Delivery(1, True))
    ENABLED = ("enabled", Delivery(1, True))

    def __init__(self, level: str, delivery: Delivery) -> None:
        self.level = level
        self.delivery = delivery


def check_id(value: str, what: str) -> str:
    """Return an id that can stand in a topic as it is; raise ConfigError for any other.

    `what` names it in the error, as in "the node id".
    """
    if not _ID.match(value):
        raise ConfigError(
            f"{what} is one or more of a-z, A-Z, 0-9, _ and -, got {value!r}: it becomes part of "
            "the MQTT topics"
        )
    return value


def check_base(value: str) -> str:
    """Return a base topic; raise ConfigError for one that no broker would take."""
    if (
        not all(value.split("/"))
        or value.startswith("$")
        or any(c in "+#" or not c.isprintable() for c in value)
        or len(value.encode("utf-8", "replace")) > _MAX_TOPIC_BYTES // 2
    ):
        raise ConfigError(
            "the base topic is one or more names with / between them, without + or #, with neither "
            f"$ nor / at its start and no / at its end, got {value!r}: write for example edgepose"
        )
    return value


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one node, `<base>/<node>/...`; raises ConfigError for an unfit base or id."""

    node: str
    base: str = "edgepose"

    def __post_init__(self) -> None:
        check_base(self.base)
        check_id(self.node, "the node id")

    @property
    def root(self) -> str:
        """What all topics of the node begin with, without the slash after it."""
        return f"{self.base}/{self.node}"

    @property
    def availability(self) -> str:
        """`online` or `offline`; also the last will."""
        return self._of_node(Kind.AVAILABILITY)

    @property
    def info(self) -> str:
        """What the node is: version, cameras, models, skeleton (JSON)."""
        return self._of_node(Kind.INFO)

    @property
    def stats(self) -> str:
        """How the node does: rates, latencies, drops (JSON)."""
        return self._of_node(Kind.STATS)

    @property
    def accelerator(self) -> str:
        """What runs the models now (JSON)."""
        return self._of_node(Kind.ACCELERATOR)

    def poses(self, camera: str) -> str:
        """Return the topic of a camera's pose messages."""
        return self._of_camera(camera, Kind.POSES)

    def presence(self, camera: str) -> str:
        """Return the topic that says whether somebody is there, `ON` or `OFF`."""
        return self._of_camera(camera, Kind.PRESENCE)

    def count(self, camera: str) -> str:
        """Return the topic of how many are there."""
        return self._of_camera(camera, Kind.COUNT)

    def event(self, camera: str) -> str:
        """Return the topic of what happened (JSON)."""
        return self._of_camera(camera, Kind.EVENT)

    def status(self, camera: str) -> str:
        """Return the topic of a camera's state, `online`, `stalled` or `offline`."""
        return self._of_camera(camera, Kind.STATUS)

    def enabled(self, camera: str) -> str:
        """Return the topic of the privacy switch's state, `ON` or `OFF`."""
        return self._of_camera(camera, Kind.ENABLED)

    def enabled_set(self, camera: str) -> str:
        """Return the topic that moves the privacy switch; edgepose only listens to it."""
        return f"{self.enabled(camera)}/set"

    def _of_node(self, kind: Kind) -> str:
        return f"{self.base}/{self.node}/{kind.level}"

    def _of_camera(self, camera: str, kind: Kind) -> str:
        check_id(camera, "the camera id")
        return f"{self.base}/{self.node}/{camera}/{kind.level}"
