"""Every MQTT topic of a node."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from edgepose.errors import ConfigError

ONLINE: Final = b"online"
OFFLINE: Final = b"offline"
STALLED: Final = b"stalled"
ON: Final = b"ON"
OFF: Final = b"OFF"

ID_PATTERN: Final = "[a-zA-Z0-9_-]{1,64}"
"""Ids of nodes and cameras: one level of a topic, and valid in file names and URLs."""

_MAX_TOPIC_BYTES = 65535
_NODE_STATES: Final = (
    *("availability", "info", "stats", "accelerator", "pose_threshold", "smoothing"),
)
_CAMERA_STATES: Final = (
    *("presence", "count", "status", "enabled", "max_fps", "posture", "fall", "repetitions"),
)
_ZONE_STATES: Final = ("presence", "count")
_MAX_FILTERS: Final = 8
"""What AWS IoT Core takes in one SUBSCRIBE."""


def check_id(value: str, what: str = "") -> str:
    """Return an id that is valid in a topic; raises ConfigError for any other.

    `what` is its name in the error, such as "the node id".
    """
    if not re.fullmatch(ID_PATTERN, value):
        raise ConfigError(
            f"{what}{': ' if what else ''}expected 1 to 64 of the characters a-z, A-Z, 0-9, _ and "
            f"-, got {value!r}; it becomes part of the MQTT topics"
        )
    return value


def sanitize_id(text: str) -> str:
    """Return a host name, or any text, as an id: its first part, other characters as `-`."""
    sanitized = re.sub(r"[^a-zA-Z0-9_-]+", "-", text.split(".")[0]).strip("-")[:64]
    return sanitized or "edgepose"


def check_base(value: str) -> str:
    """Return a base topic; raises ConfigError for one that no broker would accept."""
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


def state_filters(root: str) -> tuple[str, ...]:
    """Return the filters of all retained topics of a node; `root` is their prefix."""
    of_cameras = (f"{root}/+/{name}" for name in _CAMERA_STATES)
    return (*(f"{root}/{name}" for name in _NODE_STATES), *of_cameras, f"{root}/+/zones/+/+")


def in_groups(filters: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield filters in groups that every broker takes in one SUBSCRIBE."""
    for first in range(0, len(filters), _MAX_FILTERS):
        yield filters[first : first + _MAX_FILTERS]


def state_owner(root: str, topic: str) -> str | None:
    """Return the camera of a retained topic, empty for one of the node, None for any other."""
    prefix = f"{root}/"
    match topic.removeprefix(prefix).split("/") if topic.startswith(prefix) else ():
        case [name] if name in _NODE_STATES:
            return ""
        case [camera, name] if name in _CAMERA_STATES:
            return camera
        case [camera, "zones", _, name] if name in _ZONE_STATES:
            return camera
    return None


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one node, `<base>/<node>/...`; raises ConfigError for an invalid base or id."""

    node: str
    base: str = "edgepose"

    def __post_init__(self) -> None:
        check_base(self.base)
        check_id(self.node, "the node id")

    @property
    def root(self) -> str:
        """The prefix of all topics of the node, without a slash at its end."""
        return f"{self.base}/{self.node}"

    @property
    def availability(self) -> str:
        """`online` or `offline`; also the last will."""
        return f"{self.root}/availability"

    @property
    def info(self) -> str:
        """Version, cameras, models and skeleton of the node (JSON)."""
        return f"{self.root}/info"

    @property
    def stats(self) -> str:
        """Rates, latencies and drops of the node (JSON)."""
        return f"{self.root}/stats"

    @property
    def accelerator(self) -> str:
        """The accelerator that runs the model now (JSON)."""
        return f"{self.root}/accelerator"

    def poses(self, camera: str) -> str:
        """Return the topic of a camera's pose messages."""
        return self._of_camera(camera, "poses")

    def presence(self, camera: str) -> str:
        """Return the topic of a camera's presence, `ON` or `OFF`."""
        return self._of_camera(camera, "presence")

    def count(self, camera: str) -> str:
        """Return the topic of the number of persons."""
        return self._of_camera(camera, "count")

    def camera_state(self, camera: str, name: str) -> str:
        """Return the topic of a retained state of a camera: `presence`, `zones/door/count`."""
        return self._of_camera(camera, name)

    def event(self, camera: str) -> str:
        """Return the topic of a camera's events (JSON)."""
        return self._of_camera(camera, "event")

    def status(self, camera: str) -> str:
        """Return the topic of a camera's state, `online`, `stalled` or `offline`."""
        return self._of_camera(camera, "status")

    def enabled(self, camera: str) -> str:
        """Return the topic of the privacy switch's state, `ON` or `OFF`."""
        return self._of_camera(camera, "enabled")

    def node_state(self, name: str) -> str:
        """Return the topic of a retained state of the node, such as `smoothing`."""
        return f"{self.root}/{name}"

    def command(self, camera: str | None, name: str) -> str:
        """Return the topic of a command to a camera, or (None) to the node."""
        state = self.node_state(name) if camera is None else self.camera_state(camera, name)
        return f"{state}/set"

    def _of_camera(self, camera: str, name: str) -> str:
        check_id(camera, "the camera id")
        return f"{self.root}/{camera}/{name}"


@dataclass(frozen=True, slots=True)
class DiscoveryTopics:
    """The topics on which Home Assistant finds a node; raises ConfigError for an invalid prefix.

    Other programs announce themselves by the host name, which is the default node id: hence
    `edgepose-`.
    """

    node: str
    prefix: str = "homeassistant"

    def __post_init__(self) -> None:
        check_base(self.prefix)
        check_id(self.node, "the node id")

    @property
    def birth(self) -> str:
        """Where Home Assistant publishes `online` when it starts."""
        return f"{self.prefix}/status"

    def device(self, camera: str | None = None) -> str:
        """Return the topic of the message about a camera, or about the node."""
        path = "" if camera is None else f"/{camera}"
        return f"{self.folder}{path}/config"

    @property
    def folder(self) -> str:
        """The first levels of the topics of all messages about the node."""
        return f"{self.prefix}/device/edgepose-{self.node}"

    @property
    def filters(self) -> tuple[str, str]:
        """The filters of all messages about the node, also about cameras that are gone."""
        return self.device(), self.device("+")

    def announces(self, topic: str) -> bool:
        """Return whether `filters` match a topic."""
        levels, own = topic.split("/"), self.device().split("/")
        camera = [] if len(levels) == len(own) else levels[-2:-1]
        return levels == [*own[:-1], *camera, own[-1]]
