"""Many nodes that play one recording, each on a connection as a real node has."""

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from random import Random
from typing import Final, Protocol

import msgspec

from edgepose import messages
from edgepose.errors import BrokerError, SourceError
from edgepose.messages import AcceleratorMessage, PoseMessage
from edgepose.mqtt.options import ConnectOptions
from edgepose.mqtt.replay import Recording, with_pauses
from edgepose.mqtt.topics import OFF, ON, ONLINE, Topics, check_id
from edgepose.sinks.mqtt import MqttSink

_STARTS_PER_S: Final = 50.0
"""A broker that runs on a Pi answers so many handshakes with TLS."""
_POLL_S: Final = 0.05
_PATIENCE_S: Final = 16.0
_CLOSED_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Step:
    """A message of the recording at a time since its beginning.

    `fields` is the JSON object without the node and its first brace; `count` is the number of
    persons if it changes with this message.
    """

    at_s: float
    camera: str
    fields: bytes
    count: int | None

    def payload(self, node: str) -> bytes:
        """Return the message as that of a node."""
        return b'{"node":"%s",%s' % (node.encode(), self.fields)


@dataclass(frozen=True, slots=True)
class Play:
    """A recording of one node, kept in memory: its steps, and the first message of each camera."""

    steps: Sequence[Step]
    first: Sequence[PoseMessage]

    @property
    def node(self) -> str:
        """The node id of the recording."""
        return self.first[0].node


def read_play(recording: Recording) -> Play:
    """Read a whole recording; raises SourceError if it has more than one node."""
    steps: list[Step] = []
    first: dict[str, PoseMessage] = {}
    counts: dict[str, int] = {}
    at_s = 0.0
    for pause_s, (message, payload, _) in with_pauses(recording):
        at_s += pause_s
        camera, count = message.camera, len(message.poses)
        known = next(iter(first.values()), message)
        if message.node != known.node:
            raise SourceError(
                f"{recording.path}: expected a recording of one node, got {known.node} and "
                f"{message.node}; select one, for example with grep"
            )
        first.setdefault(camera, message)
        fields = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
        del fields["node"]
        changed = counts.get(camera) != count
        counts[camera] = count
        step = Step(at_s, camera, messages.encode(fields)[1:], count if changed else None)
        steps.append(step)
    return Play(steps, tuple(first.values()))


def node_ids(name: str, count: int) -> list[str]:
    """Return `<name>-0001` and so on; raises ConfigError if that is no valid id."""
    return [check_id(f"{name}-{number:04}", "the node id") for number in range(1, count + 1)]


class Node(Protocol):
    """A node that publishes the steps of a recording."""

    name: str

    def open(self) -> None:
        """Start connecting; again is fine."""

    @property
    def connected(self) -> bool:
        """Whether poses can be published."""

    def publish(self, step: Step) -> None:
        """Publish a step."""


class ReplayedNode:
    """A node on the broker with the states, the availability and the last will of a real one.

    It has neither statistics nor Home Assistant discovery, and takes no commands. Presence and
    number of persons follow the messages at once. What is published without a connection is lost,
    as in a real node.
    """

    def __init__(self, name: str, options: ConnectOptions, base: str, play: Play) -> None:
        self.name = name
        topics = Topics(node=name, base=base)
        cameras = [message.camera for message in play.first]
        options = replace(options, client_id=f"edgepose-{name}")
        self._sink = MqttSink(options, topics, cameras=cameras)
        first = play.first[0]
        info = messages.info_message(
            node=name,
            device="edgepose replay",
            cameras=cameras,
            zones=dict.fromkeys(cameras, ()),
            models=[first.model],
            verifier=None,
            keypoint_threshold=0.0,
        )
        accelerator = AcceleratorMessage(
            device=first.accelerator,
            degraded=first.degraded,
            reason="recorded" if first.degraded else None,
            since=first.captured_at,
            model=first.model,
            pose_threshold=None,
            keypoint_threshold=None,
            restarts=0,
        )
        self._sink.set_state(topics.info, info)
        for message in play.first:
            camera = message.camera
            self._sink.set_state(topics.enabled(camera), ON)
            self._set_count(camera, len(message.poses))
            self._sink.set_state(topics.status(camera), ONLINE)
        self._sink.set_state(topics.accelerator, messages.encode(accelerator))

    def open(self) -> None:
        """Start connecting; again is fine."""
        self._sink.open()

    def connect(self) -> None:
        """Connect; raises BrokerError with the reason why it cannot."""
        self._sink.open(require_connection_within_s=_PATIENCE_S)

    @property
    def connected(self) -> bool:
        """Whether poses can be published."""
        return bool(self._sink.counters()["connected"])

    @property
    def lost(self) -> int:
        """How many poses were lost without a connection, or because the broker was too slow."""
        return self._sink.counters()["dropped_poses"]

    def publish(self, step: Step) -> None:
        """Publish a step, then the states that change with it."""
        self._sink.publish_encoded(step.camera, step.payload(self.name))
        if step.count is not None:
            self._set_count(step.camera, step.count)

    def close(self) -> None:
        """Send `offline`, for a few seconds at most, and disconnect."""
        self._sink.close()

    def _set_count(self, camera: str, count: int) -> None:
        topics = self._sink.topics
        self._sink.set_state(topics.presence(camera), ON if count else OFF)
        self._sink.set_state(topics.count(camera), b"%d" % count)


def play_nodes(
    nodes: Sequence[Node],
    steps: Sequence[Step],
    *,
    speed: float = 1.0,
    random: Random,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Let every node connect at a random moment, and play all steps from then on.

    Return by how many seconds the latest message was late. Raises BrokerError if a node cannot
    connect.
    """
    start_s = monotonic()
    span_s = max(1.0, len(nodes) / _STARTS_PER_S)
    lives = [_life(node, steps, speed, monotonic) for node in nodes]
    # The number decides between two of the same time.
    due = [(start_s + random.uniform(0, span_s), n, life) for n, life in enumerate(lives)]
    heapq.heapify(due)
    latest_s = 0.0
    while due:
        due_s, number, life = due[0]
        wait_s = due_s - monotonic()
        if wait_s > 0:
            sleep(wait_s)
        latest_s = max(latest_s, -wait_s)
        next_s = next(life, None)
        if next_s is None:
            heapq.heappop(due)
        else:
            heapq.heapreplace(due, (next_s, number, life))
    return latest_s


def close_nodes(nodes: Iterable[ReplayedNode]) -> None:
    """Close many nodes at once: each may have to wait for the broker."""
    with ThreadPoolExecutor(_CLOSED_AT_ONCE) as pool:
        list(pool.map(ReplayedNode.close, nodes))


def _life(
    node: Node, steps: Sequence[Step], speed: float, monotonic: Callable[[], float]
) -> Iterator[float]:
    """Connect, then publish every step; yields when it is due to go on."""
    node.open()
    give_up_s = monotonic() + _PATIENCE_S
    while not node.connected:
        if monotonic() > give_up_s:
            raise BrokerError(
                f"node {node.name} is not connected after {_PATIENCE_S:g} s; expected a broker "
                "that takes so many connections: check its limits, or use fewer --nodes"
            )
        yield monotonic() + _POLL_S
    begin_s = monotonic()
    for step in steps:
        yield begin_s + step.at_s / speed
        node.publish(step)
