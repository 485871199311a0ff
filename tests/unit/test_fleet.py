"""Many nodes from one recording, on a clock that only `sleep` advances."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from edgepose.cli.replay import _OncePerFailure
from edgepose.config.schema import MqttConfig
from edgepose.errors import BrokerError, ConfigError, SourceError
from edgepose.messages import decode
from edgepose.mqtt import diagnostics
from edgepose.mqtt.failure_log import FailureLog
from edgepose.mqtt.replay import Recording
from edgepose.sinks.fleet import Node, Step, node_ids, play_nodes, read_play
from tests.builders import line_of


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds


class FakeNode:
    """A node that is connected `connect_s` after it was opened."""

    def __init__(self, name: str, clock: Clock, connect_s: float = 0.0) -> None:
        self.name = name
        self.sent: list[tuple[float, Step]] = []
        self.opened_s = -1.0
        self._clock = clock
        self._connect_s = connect_s

    def open(self) -> None:
        self.opened_s = self._clock.now_s

    @property
    def connected(self) -> bool:
        return self._clock.now_s >= self.opened_s + self._connect_s

    def publish(self, step: Step) -> None:
        self.sent.append((self._clock.now_s, step))


def recording(path: Path, *lines: bytes) -> Recording:
    path.write_bytes(b"\n".join(lines) + b"\n")
    return Recording(path)


def played(nodes: Sequence[Node], clock: Clock, steps: Sequence[Step], speed: float = 1.0) -> float:
    return play_nodes(
        nodes, steps, speed=speed, random=Random(1), monotonic=clock.monotonic, sleep=clock.sleep
    )


STEPS = tuple(Step(at_s, "main", b'"a":1}', None) for at_s in (0.0, 0.5, 2.0))


def test_node_ids_are_numbered() -> None:
    assert node_ids("gym", 3) == ["gym-0001", "gym-0002", "gym-0003"]
    with pytest.raises(ConfigError, match="the node id: expected 1 to 64"):
        node_ids("a/b", 1)
    with pytest.raises(ConfigError, match="the node id: expected 1 to 64"):
        node_ids("x" * 60, 1)


def test_read_play_payload_differs_in_the_node_only(tmp_path: Path) -> None:
    """Fields that this version does not know are played too."""
    lines = (line_of(1.0), b'{"extra": {"node": "gym"}, ' + line_of(1.5)[1:])
    play = read_play(recording(tmp_path / "r", *lines))
    for line, step in zip(lines, play.steps, strict=True):
        payload = step.payload("hall-0007")
        assert json.loads(payload) == json.loads(line) | {"node": "hall-0007"}
        assert decode(payload).node == "hall-0007"


def test_read_play_times_cameras_and_counts(tmp_path: Path) -> None:
    """A number of persons is published when it changes, for each camera."""
    lines = (
        line_of(10.0),
        line_of(10.25, camera="door", poses=[]),
        line_of(10.5),
        line_of(11.0, poses=[]),
        line_of(3.0, camera="door"),
    )
    play = read_play(recording(tmp_path / "r", *lines))
    assert play.node == "gym"
    assert [message.camera for message in play.first] == ["main", "door"]
    assert [(step.at_s, step.camera, step.count) for step in play.steps] == [
        (0.0, "main", 1),
        (0.25, "door", 0),
        (0.5, "main", None),
        (1.0, "main", 0),
        # The clock was set back: at once.
        (1.0, "door", 1),
    ]


def test_read_play_recording_of_two_nodes(tmp_path: Path) -> None:
    lines = (line_of(1.0), line_of(2.0, node="hall"))
    with pytest.raises(SourceError, match="expected a recording of one node, got gym and hall"):
        read_play(recording(tmp_path / "r", *lines))


def test_play_nodes_each_keeps_the_recorded_times() -> None:
    """Every node plays every step in order, from the moment when it is connected."""
    clock = Clock()
    nodes = [FakeNode(f"n{number}", clock, connect_s=0.02) for number in range(200)]
    late_s = played(nodes, clock, STEPS)
    assert late_s == pytest.approx(0)
    for node in nodes:
        assert [step for _, step in node.sent] == list(STEPS)
        begin_s = node.sent[0][0]
        assert node.opened_s < begin_s <= node.opened_s + 0.06
        assert [at_s - begin_s for at_s, _ in node.sent] == pytest.approx([0.0, 0.5, 2.0])


def test_play_nodes_start_one_after_the_other() -> None:
    """200 nodes connect within 4 s, which is 50 a second, and not at the same moment."""
    clock = Clock()
    nodes = [FakeNode(f"n{number}", clock) for number in range(200)]
    played(nodes, clock, STEPS)
    starts = sorted(node.opened_s - 100 for node in nodes)
    assert starts[0] >= 0
    assert starts[-1] <= 4
    for second in range(4):
        assert 25 <= sum(second <= start < second + 1 for start in starts) <= 75


def test_play_nodes_speed() -> None:
    clock = Clock()
    node = FakeNode("n", clock)
    played([node], clock, STEPS, speed=4)
    assert [at_s - node.sent[0][0] for at_s, _ in node.sent] == pytest.approx([0.0, 0.125, 0.5])


def test_play_nodes_reports_how_late_it_was() -> None:
    """A node that takes 0.7 s to publish delays the step 0.5 s after it by 0.2 s."""

    class SlowNode(FakeNode):
        def publish(self, step: Step) -> None:
            super().publish(step)
            clock.now_s += 0.7

    clock = Clock()
    assert played([SlowNode("n", clock)], clock, STEPS) == pytest.approx(0.2)


def test_play_nodes_node_that_cannot_connect() -> None:
    clock = Clock()
    nodes = [FakeNode("gym-0001", clock), FakeNode("gym-0002", clock, connect_s=1e9)]
    with pytest.raises(BrokerError, match=r"node gym-0002 is not connected after 16 s"):
        played(nodes, clock, STEPS)


def test_nodes_that_lose_a_broker_log_it_once(caplog: pytest.LogCaptureFixture) -> None:
    """Whether by a reset or at the end of the data; another failure is logged too."""
    options = MqttConfig(url="mqtt://broker").connect_options("")
    failures = (
        diagnostics.lost(ConnectionResetError(104, "Connection reset by peer"), ()),
        diagnostics.lost(None, ()),
        diagnostics.silent(10),
    )
    logger, once = logging.getLogger("edgepose.mqtt"), _OncePerFailure()
    logger.addFilter(once)
    try:
        for failure in failures:
            FailureLog(options).failed(failure, str(failure), 0)
    finally:
        logger.removeFilter(once)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[0].startswith(str(failures[0]))
    assert messages[1].startswith(str(failures[2]))
