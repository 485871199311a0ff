"""Any messages from other clients, and any bytes from a broker."""

import logging
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.mqtt.event_store import EventStore
from edgepose.mqtt.options import ConnectOptions, MqttTimeouts
from edgepose.mqtt.topics import Topics
from edgepose.mqtt.url import parse_broker_url
from edgepose.sinks.mqtt import EVENTS_FILE, MqttSink
from tests.fuzz.effort import EFFORT, examples
from tests.mosquitto import PATIENCE_S, Listener, Mosquitto, wait_for

TOPICS = Topics(node="gym")
CAMERAS = ("main", "door", "sync")
SET = {TOPICS.command(camera, "enabled"): camera for camera in CAMERAS}
TIMES = MqttTimeouts(backoff_min_s=0.005, backoff_max_s=0.01, answer_s=2.0)

PAYLOADS = (
    st.binary(max_size=60)
    | st.text(max_size=30).map(str.encode)
    | st.sampled_from([
        b"ON", b"OFF", b"on", b"off", b"On", b"ON\n", b" OFF", b"ON\x00", b"\xef\xbb\xbfON",
        b"1", b'"ON"', b"ONOFF", b"true", "\uff2f\uff2e".encode(), "ON".encode("utf-16"),
        b"\x1b[2J\x1b]0;owned\x07",
        b"x\nWARNING all cameras are off", b"\r\nERROR forged", b"%s%n%d{0}", b"x" * 70_000,
    ])
)  # fmt: skip
ANY_TOPICS = (
    st.sampled_from([
        *SET, TOPICS.enabled("main"), TOPICS.status("main"), TOPICS.info, TOPICS.availability,
        f"{TOPICS.root}/other/enabled/set", "edgepose/other/main/enabled/set",
        "homeassistant/status",
    ])
    | st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="+#$"),
              min_size=1, max_size=20)
)  # fmt: skip


class Records(logging.Handler):
    """Keeps the formatted log records."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.INFO:
            self.lines.append(self.format(record))


@contextmanager
def captured_log() -> Iterator[Records]:
    records = Records()
    logger = logging.getLogger("edgepose.mqtt")
    logger.addHandler(records)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        logger.setLevel(level)
        logger.removeHandler(records)


@dataclass
class Node:
    """A sink on a real broker, and another client that publishes."""

    sink: MqttSink
    other_client: Listener
    commands: list[tuple[str, bool]] = field(default_factory=list)

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        self.other_client.client.publish(topic, payload, qos)

    def received(self) -> list[tuple[str, bool]]:
        """Return the commands received so far; the last one marks the end."""
        self.other_client.client.publish(
            TOPICS.command("sync", "enabled"), b"OFF", 1
        ).wait_for_publish(PATIENCE_S)
        wait_for(lambda: ("sync", False) in self.commands, "the last command")
        commands = self.commands[: self.commands.index(("sync", False))]
        self.commands.clear()
        return commands


def sink_at(
    url: str, commands: list[tuple[str, bool]], state_directory: Path | None = None
) -> MqttSink:
    return MqttSink(
        ConnectOptions(parse_broker_url(url), "edgepose-gym", timeouts=TIMES),
        TOPICS,
        cameras=CAMERAS,
        on_command=lambda command: commands.append(
            (command.camera or "", command.payload == b"ON")
        ),
        state_directory=state_directory,
    )


@contextmanager
def node_in(folder: Path) -> Iterator[Node]:
    """Yield a node whose subscriptions the broker has, since it has acknowledged all states."""
    with Mosquitto(folder) as broker, broker.listener("nothing") as other_client:
        commands: list[tuple[str, bool]] = []
        sink = sink_at(broker.url, commands)
        sink.open(require_connection_within_s=PATIENCE_S)
        yield Node(sink, other_client, commands)
        sink.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node_in(tmp_path_factory.mktemp("broker")) as connected:
        yield connected


def expected(published: list[tuple[str, bytes]]) -> list[tuple[str, bool]]:
    return [(SET[t], p == b"ON") for t, p in published if t in SET and p in (b"ON", b"OFF")]


@examples(120)
@given(payloads=st.lists(PAYLOADS, max_size=12))
def test_mqtt_command_any_payload(node: Node, payloads: list[bytes]) -> None:
    topic = TOPICS.command("main", "enabled")
    for payload in payloads:
        node.publish(topic, payload)
    assert node.received() == expected([(topic, payload) for payload in payloads])
    assert node.sink.counters()["connected"]
    assert node.sink.counters()["reconnects"] == 0


@examples(80)
@given(messages=st.lists(st.tuples(ANY_TOPICS, PAYLOADS), max_size=12))
def test_mqtt_command_any_topic(node: Node, messages: list[tuple[str, bytes]]) -> None:
    published = [
        (topic, payload)
        for topic, payload in messages
        if topic != TOPICS.command("sync", "enabled")
    ]
    for topic, payload in published:
        node.publish(topic, payload)
    assert node.received() == expected(published)
    assert node.sink.counters()["connected"]
    assert node.sink.counters()["reconnects"] == 0


def test_mqtt_command_flood_is_logged_in_few_lines(tmp_path: Path) -> None:
    """2000 invalid commands were 2000 lines in the journal of an SD card."""
    with captured_log() as log, node_in(tmp_path) as flooded:
        for number in range(2000):
            flooded.publish(TOPICS.command("main", "enabled"), b"\x1b[2J\nERROR %d" % number)
        assert flooded.received() == []
    about = [line for line in log.lines if "expected ON or OFF" in line]
    assert 1 <= len(about) <= 10
    assert len(log.lines) <= 12
    for line in log.lines:
        assert line.isprintable(), ascii(line)
        assert len(line) < 400
    assert r"'\x1b[2J\nERROR 0'" in about[0]


def test_mqtt_command_too_large_is_not_delivered(tmp_path: Path) -> None:
    """The sink limits the packet size, so that no client can fill its memory."""
    with captured_log() as log, node_in(tmp_path) as node:
        node.publish(TOPICS.command("main", "enabled"), b"x" * 1_000_000)
        assert node.received() == []
        assert node.sink.counters()["connected"]
    assert not [line for line in log.lines if "expected ON or OFF" in line]


def test_mqtt_sink_stored_event_with_invalid_topic(tmp_path: Path) -> None:
    """mosquitto closes the connection for a control character in a topic."""
    store = EventStore(tmp_path / EVENTS_FILE, max_events=10)
    store.append("edgepose/gym/main/e\x01vent", b"bad")
    store.append("edgepose/gym/main/event", b"good")
    store.close()
    with Mosquitto(tmp_path) as broker, broker.listener() as listener:
        sink = sink_at(broker.url, [], tmp_path)
        sink.open(require_connection_within_s=PATIENCE_S)
        listener.wait_for("edgepose/gym/main/event", b"good")
        assert sink.counters()["reconnects"] == 0
        sink.close()


# -- any bytes from a broker


def packet(first: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (128 if length else 0))
        if not length:
            return bytes((first, *digits)) + body


def text(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


BODIES = st.binary(max_size=24) | st.builds(
    lambda topic, rest: text(topic) + rest,
    st.sampled_from([topic.encode() for topic in SET]) | st.binary(max_size=8),
    st.binary(max_size=16),
)
PACKETS = st.builds(packet, st.integers(0, 255), BODIES)
REPLIES = st.builds(
    lambda connack, rest: connack + b"".join(rest),
    st.sampled_from([
        b"", b"\x20\x03\x00\x00\x00", b"\x20\x02\x00\x00", b"\x20\x03\x00\xff\x00",
        b"\x20\x06\x00\x00\x03\x21\x00\x00",  # a receive maximum of 0
        b"\x20\x08\x00\x00\x05\x27\x00\x00\x00\x01",
    ]),
    st.lists(PACKETS | st.binary(max_size=20), max_size=4),
)  # fmt: skip


class ScriptedBroker:
    """Accepts connections one after the other, sends `reply` and closes each."""

    def __init__(self) -> None:
        self.reply = b""
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.settimeout(1)
                    connection.recv(4096)
                    connection.sendall(self.reply)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        pass
                except OSError:
                    pass
            self.connections += 1

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def scripted() -> Iterator[tuple[ScriptedBroker, MqttSink, list[tuple[str, bool]], Records]]:
    commands: list[tuple[str, bool]] = []
    broker = ScriptedBroker()
    with captured_log() as log:
        sink = sink_at(f"mqtt://127.0.0.1:{broker.port}", commands)
        sink.open()
        yield broker, sink, commands, log
        broker.close()
        sink.close()


@examples(100)
@given(reply=REPLIES)
def test_mqtt_sink_any_broker_reply(
    scripted: tuple[ScriptedBroker, MqttSink, list[tuple[str, bool]], Records], reply: bytes
) -> None:
    broker, sink, commands, log = scripted
    broker.reply = reply
    # Two: the first one may have got the reply of the example before.
    connections = broker.connections
    wait_for(
        lambda: broker.connections >= connections + 2, f"the sink to reconnect after {reply!r}"
    )
    assert sink.alive
    # One line for every kind of failure, and a few about commands.
    assert len(log.lines) <= 60 * EFFORT, log.lines
    assert all(line.isprintable() for line in log.lines)
    for line in log.lines:
        assert "internal error" not in line
    assert all(camera in CAMERAS for camera, _ in commands)
