"""Whoever may write to the broker, and a broker gone mad: the node does only what it is told to."""

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
from edgepose.mqtt.failure_log import MqttTimeouts
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
    """Keeps what is logged, as it is written to the log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.INFO:
            self.lines.append(self.format(record))


@contextmanager
def listening_to_the_log() -> Iterator[Records]:
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
    """A sink on a real broker, and someone else who may publish there."""

    sink: MqttSink
    stranger: Listener
    orders: list[tuple[str, bool]] = field(default_factory=list)

    def say(self, topic: str, payload: bytes, qos: int = 1) -> None:
        self.stranger.client.publish(topic, payload, qos)

    def settle(self) -> list[tuple[str, bool]]:
        """Return what was ordered up to now; the last order shows that all before were seen."""
        self.stranger.client.publish(TOPICS.command("sync", "enabled"), b"OFF", 1).wait_for_publish(
            PATIENCE_S
        )
        wait_for(lambda: ("sync", False) in self.orders, "the last order")
        orders = self.orders[: self.orders.index(("sync", False))]
        self.orders.clear()
        return orders


def sink_at(
    url: str, orders: list[tuple[str, bool]], state_directory: Path | None = None
) -> MqttSink:
    return MqttSink(
        address=parse_broker_url(url),
        topics=TOPICS,
        client_id="edgepose-gym",
        cameras=CAMERAS,
        info=b"{}",
        on_command=lambda command: orders.append((command.camera or "", command.payload == b"ON")),
        state_directory=state_directory,
        timeouts=TIMES,
        chance=lambda: 0.5,
    )


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with (
        Mosquitto(tmp_path_factory.mktemp("broker")) as broker,
        broker.listener(TOPICS.availability) as stranger,
    ):
        orders: list[tuple[str, bool]] = []
        sink = sink_at(broker.url, orders)
        sink.open(require_connection_within_s=PATIENCE_S)
        # `open` returns when all is sent: only now the broker has the subscriptions too.
        stranger.wait_for(TOPICS.availability, b"online")
        yield Node(sink, stranger, orders)
        sink.close()


def expected(said: list[tuple[str, bytes]]) -> list[tuple[str, bool]]:
    return [(SET[t], p == b"ON") for t, p in said if t in SET and p in (b"ON", b"OFF")]


@examples(120)
@given(payloads=st.lists(PAYLOADS, max_size=12))
def test_mqtt_command_any_payload(node: Node, payloads: list[bytes]) -> None:
    topic = TOPICS.command("main", "enabled")
    for payload in payloads:
        node.say(topic, payload)
    assert node.settle() == expected([(topic, payload) for payload in payloads])
    assert node.sink.connected
    assert node.sink.counters()["reconnects"] == 0


@examples(80)
@given(messages=st.lists(st.tuples(ANY_TOPICS, PAYLOADS), max_size=12))
def test_mqtt_command_any_topic(node: Node, messages: list[tuple[str, bytes]]) -> None:
    said = [
        (topic, payload)
        for topic, payload in messages
        if topic != TOPICS.command("sync", "enabled")
    ]
    for topic, payload in said:
        node.say(topic, payload)
    assert node.settle() == expected(said)
    assert node.sink.connected
    assert node.sink.counters()["reconnects"] == 0


def test_mqtt_command_flood_is_logged_in_few_lines(tmp_path: Path) -> None:
    """2000 wrong orders were 2000 lines in the journal of an SD card."""
    orders: list[tuple[str, bool]] = []
    with (
        Mosquitto(tmp_path) as broker,
        broker.listener(TOPICS.availability) as stranger,
        listening_to_the_log() as log,
    ):
        sink = sink_at(broker.url, orders)
        sink.open(require_connection_within_s=PATIENCE_S)
        # `open` returns when all is sent: only now the broker has the subscriptions too.
        stranger.wait_for(TOPICS.availability, b"online")
        flooded = Node(sink, stranger, orders)
        for number in range(2000):
            flooded.say(TOPICS.command("main", "enabled"), b"\x1b[2J\nERROR %d" % number)
        assert flooded.settle() == []
        sink.close()
    about = [line for line in log.lines if "expected ON or OFF" in line]
    assert 1 <= len(about) <= 10
    assert len(log.lines) <= 12
    for line in log.lines:
        assert line.isprintable(), ascii(line)
        assert len(line) < 400
    assert r"'\x1b[2J\nERROR 0'" in about[0]


def test_mqtt_command_too_large_is_not_delivered(tmp_path: Path) -> None:
    """The node asks the broker to keep such packets; else anybody could fill a Pi's memory."""
    orders: list[tuple[str, bool]] = []
    with (
        Mosquitto(tmp_path) as broker,
        broker.listener(TOPICS.availability) as stranger,
        listening_to_the_log() as log,
    ):
        sink = sink_at(broker.url, orders)
        sink.open(require_connection_within_s=PATIENCE_S)
        # `open` returns when all is sent: only now the broker has the subscriptions too.
        stranger.wait_for(TOPICS.availability, b"online")
        node = Node(sink, stranger, orders)
        node.say(TOPICS.command("main", "enabled"), b"x" * 1_000_000)
        assert node.settle() == []
        assert sink.connected
        sink.close()
    assert not [line for line in log.lines if "expected ON or OFF" in line]


def test_mqtt_sink_stored_event_with_invalid_topic(tmp_path: Path) -> None:
    """mosquitto ends the connection over a control character in a topic; it was sent for ever."""
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


# -- a broker that has gone mad


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
ANSWERS = st.builds(
    lambda connack, rest: connack + b"".join(rest),
    st.sampled_from([
        b"", b"\x20\x03\x00\x00\x00", b"\x20\x02\x00\x00", b"\x20\x03\x00\xff\x00",
        b"\x20\x06\x00\x00\x03\x21\x00\x00",  # a receive maximum of nothing
        b"\x20\x08\x00\x00\x05\x27\x00\x00\x00\x01",
    ]),
    st.lists(PACKETS | st.binary(max_size=20), max_size=4),
)  # fmt: skip


class MadBroker:
    """Accepts, says what it is given, and ends the connection; then does it again."""

    def __init__(self) -> None:
        self.answer = b""
        self.calls = 0
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
                    connection.sendall(self.answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        pass
                except OSError:
                    pass
            self.calls += 1

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def mad() -> Iterator[tuple[MadBroker, MqttSink, list[tuple[str, bool]], Records]]:
    orders: list[tuple[str, bool]] = []
    broker = MadBroker()
    with listening_to_the_log() as log:
        sink = sink_at(f"mqtt://127.0.0.1:{broker.port}", orders)
        sink.open()
        yield broker, sink, orders, log
        broker.close()
        sink.close()


@examples(100)
@given(answer=ANSWERS)
def test_mqtt_sink_any_broker_reply(
    mad: tuple[MadBroker, MqttSink, list[tuple[str, bool]], Records], answer: bytes
) -> None:
    broker, sink, orders, log = mad
    broker.answer = answer
    # Two: the first one may still have got the answer before this.
    calls = broker.calls
    wait_for(lambda: broker.calls >= calls + 2, f"the sink to come back after {answer!r}")
    assert sink.alive
    # One line for every way of failing that there is, and a few about orders.
    assert len(log.lines) <= 60 * EFFORT, log.lines
    assert all(line.isprintable() for line in log.lines)
    for line in log.lines:
        assert "internal error" not in line
    assert all(camera in CAMERAS for camera, _ in orders)
