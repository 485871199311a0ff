"""The MQTT sink with brokers that limit, refuse, forget or flood, and with clients that do."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepose.mqtt.commands import Command
from edgepose.mqtt.options import ConnectOptions, MqttTimeouts, TlsFiles
from edgepose.mqtt.topics import Topics
from edgepose.mqtt.url import parse_broker_url
from edgepose.sinks.mqtt import MqttSink
from edgepose.util.secrets import read_password_file
from tests.builders import message_of
from tests.fakes.mqtt_broker import HUGE, FakeBroker
from tests.mosquitto import PASSWORD, USERNAME, Certificates, Listener, Mosquitto, wait_for

TOPICS = Topics(node="gym")
POSES, EVENT, COUNT = TOPICS.poses("main"), TOPICS.event("main"), TOPICS.count("main")
SET = TOPICS.command("main", "enabled")
QUICK = MqttTimeouts(
    backoff_min_s=0.05,
    backoff_max_s=0.2,
    unacknowledged_s=0.05,
    probe_s=0.1,
    blame_s=2.0,
    close_s=2.0,
)
protocols = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


class Node:
    """A sink on a broker, with the commands that it received and what it logged."""

    def __init__(self, log: pytest.LogCaptureFixture, url: str, **options: Any) -> None:
        self.commands: list[tuple[str | None, bytes]] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self._log = log
        options = {"client_id": "edgepose-gym", "timeouts": QUICK, **options}
        address = parse_broker_url(url)
        if "read_password" in options:
            address = replace(address, username=USERNAME)
        self.sink = MqttSink(
            ConnectOptions(address, **options),
            TOPICS,
            cameras=["main", "door"],
            on_command=self._take,
        )
        self.sink.set_state(TOPICS.info, b"i" * 3000)
        self.sink.set_state(COUNT, b"0")
        self.sink.open()

    def _take(self, command: Command) -> None:
        self.go_on.wait()
        self.commands.append((command.camera, command.payload))

    @property
    def connected(self) -> bool:
        """Whether the broker has acknowledged everything."""
        return bool(self.sink.counters()["connected"])

    def publish_poses_until(self, condition: Callable[[], object], what: str) -> None:
        """Publish a pose again and again."""

        def publish_one() -> object:
            self.sink.publish(message_of(1))
            return condition()

        wait_for(publish_one, what)

    def warnings(self, words: str) -> list[str]:
        """Return the warnings with these words."""
        found = [r.getMessage() for r in self._log.records if r.levelno >= logging.WARNING]
        return [text for text in found if words in text]

    def wait_for_warning(self, words: str) -> str:
        """Wait until a warning has these words."""
        wait_for(lambda: self.warnings(words), f"a warning with {words!r}")
        return self.warnings(words)[0]


MakeNode = Callable[..., Node]


@pytest.fixture
def make_node(caplog: pytest.LogCaptureFixture) -> Iterator[MakeNode]:
    """Return a function that makes nodes, which are closed at the end."""
    caplog.set_level(logging.INFO)
    nodes: list[Node] = []

    def make(url: str, **options: Any) -> Node:
        nodes.append(Node(caplog, url, **options))
        return nodes[-1]

    yield make
    for node in nodes:
        node.go_on.set()
        node.sink.close()


# -- limits of the broker


@protocols
def test_mqtt_sink_message_above_the_limit_of_mosquitto(
    tmp_path: Path, make_node: MakeNode, protocol: str
) -> None:
    """It is left out and named once; everything else arrives.

    MQTT 3.1.1 does not announce the limit: mosquitto ends the connection, three times.
    """
    with (
        Mosquitto(tmp_path, settings=["max_packet_size 2000"]) as broker,
        broker.listener() as listener,
    ):
        node = make_node(broker.url, protocol=protocol)
        node.wait_for_warning(f"message on {TOPICS.info}")
        wait_for(lambda: node.connected, "the connection")
        listener.wait_for(COUNT, b"0")
        listener.wait_for(TOPICS.availability, b"online")
        node.sink.send_event("main", b"e")
        listener.wait_for(EVENT, b"e")
        node.publish_poses_until(lambda: listener.payloads(POSES), "a pose")
        assert not listener.payloads(TOPICS.info)
    assert len(node.warnings(TOPICS.info)) == 1


def test_mqtt_sink_sends_nothing_above_the_limit_of_the_broker(make_node: MakeNode) -> None:
    with FakeBroker(max_packet_bytes=1000) as broker:
        node = make_node(broker.url)
        node.publish_poses_until(lambda: broker.payloads(POSES), "a pose")
        node.sink.send_event("main", b"e" * 970)
        node.sink.send_event("main", b"e" * 960)
        wait_for(lambda: broker.payloads(EVENT) == [b"e" * 960], "the shorter event")
        text = node.wait_for_warning(f"the message on {TOPICS.info}")
        assert "at most 1,000 bytes" in text
        assert TOPICS.info not in broker.largest
        assert broker.largest[EVENT] <= 1000
        wait_for(lambda: not node.sink.counters()["waiting_events"], "the longer event to go")
        assert broker.connections == 1


# -- access rights


@protocols
@pytest.mark.parametrize("topic", [POSES, EVENT, COUNT, TOPICS.info, TOPICS.availability])
def test_mqtt_sink_topic_that_mosquitto_does_not_allow(
    tmp_path: Path, make_node: MakeNode, protocol: str, topic: str
) -> None:
    """It is named, also if it has QoS 0, and everything else arrives."""
    levels = (TOPICS.info, COUNT, EVENT, POSES, TOPICS.availability)
    acl = ["topic read #", *(f"topic write {other}" for other in levels if other != topic), ""]
    with Mosquitto(tmp_path, acl="\n".join(acl)) as broker, broker.listener() as listener:
        node = make_node(broker.url, protocol=protocol)

        def named() -> list[str]:
            if not node.sink.counters()["waiting_events"]:
                node.sink.send_event("main", b"e")
            return node.warnings(f"a message on {topic}:")

        node.publish_poses_until(named, "the topic to be named")
        listener.received.clear()
        node.sink.set_state(COUNT, b"1")
        node.sink.send_event("main", b"e")
        for other in {POSES, EVENT, COUNT} - {topic}:
            node.publish_poses_until(lambda: listener.payloads(other), other)  # noqa: B023
        assert not listener.payloads(topic)


def test_mqtt_sink_refused_poses_are_named(make_node: MakeNode) -> None:
    """MQTT 5 has a reason code for QoS 1 only, so one message now and then has QoS 1."""
    with FakeBroker(refuses=lambda topic: topic == POSES) as broker:
        node = make_node(broker.url)
        node.publish_poses_until(lambda: node.warnings(f"refuses messages on {POSES}"), "the name")
        assert broker.connections == 1


# -- a broker that ends connections


@protocols
def test_mqtt_sink_broker_that_flaps_is_no_second_client(
    broker: Mosquitto, make_node: MakeNode, protocol: str
) -> None:
    """It may be back before the sink tries again; pauses stay short."""
    # Here it ends at once, which messages would be suspected of.
    node = make_node(broker.url, protocol=protocol, timeouts=replace(QUICK, blame_s=0.01))
    for reconnects in range(8):
        node.publish_poses_until(
            lambda: node.sink.counters()["reconnects"] == reconnects and node.connected,  # noqa: B023
            "the connection",
        )
        broker.kill()
        wait_for(lambda: not node.connected, "the loss")
        broker.start()
    wait_for(lambda: node.connected, "the connection")
    assert not node.warnings("second client")


@protocols
def test_mqtt_sink_connection_that_ends_at_an_event(make_node: MakeNode, protocol: str) -> None:
    """After three times the topic is put aside and named; poses and states arrive all the time."""
    with FakeBroker(ends_at=lambda topic: topic == EVENT) as broker:
        node = make_node(broker.url, protocol=protocol)
        node.sink.send_event("main", b"1")
        text = node.wait_for_warning("ended three connections")
        assert EVENT in text
        node.sink.send_event("main", b"2")
        node.sink.set_state(COUNT, b"5")
        node.publish_poses_until(lambda: broker.payloads(POSES), "a pose")
        wait_for(lambda: b"5" in broker.payloads(COUNT), "the state")
        assert broker.payloads(EVENT) == [b"1"] * 3
        assert broker.connections == 4
        assert node.sink.counters()["waiting_events"] == 2


@protocols
def test_mqtt_sink_topic_put_aside_is_tried_again(make_node: MakeNode, protocol: str) -> None:
    allowed = threading.Event()
    with FakeBroker(ends_at=lambda topic: topic == EVENT and not allowed.is_set()) as broker:
        timeouts = replace(QUICK, memory_s=0.5)
        node = make_node(broker.url, protocol=protocol, timeouts=timeouts)
        node.sink.send_event("main", b"1")
        node.sink.send_event("main", b"2")
        node.wait_for_warning("ended three connections")
        allowed.set()
        wait_for(lambda: not node.sink.counters()["waiting_events"], "the events")
        assert broker.payloads(EVENT)[-2:] == [b"1", b"2"]


# -- missing answers


@protocols
def test_mqtt_sink_broker_that_acknowledges_no_message(make_node: MakeNode, protocol: str) -> None:
    """The connection is made anew, with the topic in the log; poses arrive all the same."""
    works = threading.Event()
    with FakeBroker(acknowledges=lambda _: works.is_set()) as broker:
        timeouts = replace(QUICK, acknowledge_s=0.2)
        node = make_node(broker.url, protocol=protocol, timeouts=timeouts)
        assert TOPICS.info in node.wait_for_warning("does not acknowledge a message on")
        node.publish_poses_until(lambda: broker.payloads(POSES), "a pose")
        assert broker.connections == 2
        node.publish_poses_until(lambda: broker.connections > 6, "more attempts")
        works.set()
        node.sink.set_state(COUNT, b"5")
        node.sink.send_event("main", b"e")
        wait_for(lambda: b"5" in broker.payloads(COUNT), "the state")
        wait_for(lambda: not node.sink.counters()["waiting_events"], "the event")
        assert not node.warnings("ended three connections")


@protocols
def test_mqtt_sink_one_acknowledgement_is_missing(make_node: MakeNode, protocol: str) -> None:
    with FakeBroker(acknowledges=lambda topic: topic != COUNT) as broker:
        timeouts = replace(QUICK, acknowledge_s=0.2)
        node = make_node(broker.url, protocol=protocol, timeouts=timeouts)
        assert COUNT in node.wait_for_warning("ended three connections")
        wait_for(lambda: node.connected, "the connection without that topic")


@protocols
def test_mqtt_sink_without_subscription_is_not_online(make_node: MakeNode, protocol: str) -> None:
    """The privacy switch would be deaf."""
    with FakeBroker(answers_subscribe=False) as broker:
        timeouts = replace(QUICK, answer_s=0.2)
        node = make_node(broker.url, protocol=protocol, timeouts=timeouts)
        node.wait_for_warning("does not acknowledge the subscription to commands within 0.2 s")
        wait_for(lambda: broker.connections > 1, "the next attempt")
        assert not broker.published
        assert not node.connected


# -- large packets


@protocols
def test_mqtt_sink_huge_packet_of_the_broker(make_node: MakeNode, protocol: str) -> None:
    """The connection ends before the packet is in memory."""
    with FakeBroker(huge=True) as broker:
        node = make_node(broker.url, protocol=protocol)
        text = node.wait_for_warning("sends a packet of 200,000,000 bytes")
        assert "at most 131,072" in text
        wait_for(lambda: broker.connections > 1, "the next attempt")
        # What the buffers of both sockets hold.
        assert broker.sent_bytes < HUGE // 10


@pytest.mark.parametrize("qos", [0, 1])
def test_mqtt_sink_huge_command_of_another_client(
    broker: Mosquitto, make_node: MakeNode, qos: int
) -> None:
    """MQTT 3.1.1 cannot announce a limit; the broker would send a QoS 1 message for ever."""
    node = make_node(broker.url, protocol="3.1.1")
    wait_for(lambda: node.connected, "the connection")
    broker.publish(SET, b"x" * 1_000_000, qos=qos)
    node.wait_for_warning("who may publish")
    wait_for(lambda: node.connected, "the next connection")
    broker.publish(SET, b"OFF")
    wait_for(lambda: node.commands == [("main", b"OFF")], "the command")
    assert node.sink.counters()["reconnects"] == 1


# -- commands while away


@protocols
@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ([b"OFF"], [b"OFF"]),
        ([b"ON", b"OFF"], [b"OFF"]),
        ([b"OFF", b"ON"], []),
        ([b"ON"], []),
        ([b"OFF", b"nonsense"], [b"OFF"]),
    ],
)
def test_mqtt_sink_commands_sent_while_away(
    broker: Mosquitto, make_node: MakeNode, protocol: str, sent: list[bytes], received: list[bytes]
) -> None:
    """The newest counts, and only if it is OFF: an old ON must not open a camera."""
    before = make_node(broker.url, protocol=protocol)
    wait_for(lambda: before.connected, "the connection")
    before.sink.close()
    for payload in sent:
        broker.publish(SET, payload)
    node = make_node(broker.url, protocol=protocol)
    wait_for(lambda: node.connected, "the connection")
    broker.publish(TOPICS.command("door", "enabled"), b"ON")
    wait_for(lambda: ("door", b"ON") in node.commands, "a command that is sent now")
    assert node.commands == [*(("main", payload) for payload in received), ("door", b"ON")]
    assert len(node.warnings("while edgepose was away")) == (0 if received else 1)


@protocols
@pytest.mark.parametrize(("payload", "received"), [(b"OFF", [("main", b"OFF")]), (b"ON", [])])
def test_mqtt_sink_retained_command_on_a_broker_that_lost_its_state(
    broker: Mosquitto,
    make_node: MakeNode,
    protocol: str,
    payload: bytes,
    received: list[tuple[str, bytes]],
) -> None:
    """A broker without persistence keeps only what is retained after its restart."""
    before = make_node(broker.url, protocol=protocol)
    wait_for(lambda: before.connected, "the connection")
    before.sink.close()
    broker.kill()
    broker.start()
    broker.publish(SET, payload, retain=True)
    node = make_node(broker.url, protocol=protocol)
    wait_for(lambda: node.connected, "the connection")
    broker.publish(TOPICS.command("door", "enabled"), b"OFF")
    wait_for(lambda: ("door", b"OFF") in node.commands, "a command that is sent now")
    assert set(node.commands) == {*received, ("door", b"OFF")}


# -- the network thread


def test_mqtt_sink_hung_network_thread_is_not_alive(broker: Mosquitto, make_node: MakeNode) -> None:
    node = make_node(broker.url, timeouts=replace(QUICK, turn_s=1.0))
    wait_for(lambda: node.connected and node.sink.alive, "the connection")
    node.go_on.clear()
    broker.publish(SET, b"OFF")
    wait_for(lambda: not node.sink.alive, "the hang to be noticed")
    node.go_on.set()
    wait_for(lambda: node.sink.alive, "progress")


def test_mqtt_sink_slow_connect_is_alive(make_node: MakeNode) -> None:
    """A name lookup may take half a minute, and the broker may not answer at all."""
    with FakeBroker(answers_subscribe=False) as broker:
        node = make_node(broker.url, timeouts=replace(QUICK, turn_s=0.01))
        wait_for(lambda: broker.connections, "the connection")
        assert node.sink.alive


# -- renewed files


def test_mqtt_sink_password_file_is_read_at_every_connect(
    password_broker: Mosquitto, make_node: MakeNode, tmp_path: Path
) -> None:
    """It may also appear later than the service starts."""
    path = tmp_path / "password"
    node = make_node(password_broker.url, read_password=lambda: read_password_file(path))
    assert str(path) in node.wait_for_warning("cannot be read")
    path.write_text("the old one")
    node.wait_for_warning("refuses the login")
    path.write_text(PASSWORD)
    wait_for(lambda: node.connected, "the connection with the new password")


def test_mqtt_sink_ca_file_is_read_at_every_connect(
    tls_broker: Mosquitto, make_node: MakeNode, certificates: Certificates, tmp_path: Path
) -> None:
    path = tmp_path / "authority"
    path.write_bytes(certificates.unrelated.read_bytes())
    node = make_node(tls_broker.url, tls=TlsFiles(ca_file=path))
    node.wait_for_warning("certificate that is not accepted")
    path.write_bytes(certificates.authority.read_bytes())
    wait_for(lambda: node.connected, "the connection with the new authority")


def test_mqtt_sink_live_state_does_not_wait_behind_events(
    broker: Mosquitto, listener: Listener, make_node: MakeNode
) -> None:
    """A thousand events of an outage are acknowledged twenty at a time."""
    broker.kill()
    node = make_node(broker.url)
    for number in range(900):
        node.sink.send_event("main", b"%d" % number)
    broker.start()
    wait_for(lambda: node.connected, "the connection")
    node.sink.set_state(COUNT, b"1")
    listener.wait_for(COUNT, b"1")
    wait_for(lambda: not node.sink.counters()["waiting_events"], "the events")
