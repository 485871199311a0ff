"""The MQTT sink with a real mosquitto, and with brokers that fail."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgepose import messages
from edgepose.errors import BrokerError
from edgepose.mqtt.commands import Command
from edgepose.mqtt.event_store import EventStore
from edgepose.mqtt.local_broker import free_port
from edgepose.mqtt.options import ConnectOptions, MqttTimeouts, TlsFiles
from edgepose.mqtt.topics import Topics
from edgepose.mqtt.url import parse_broker_url
from edgepose.sinks.mqtt import EVENTS_FILE, MqttSink
from edgepose.util.secrets import Secret
from tests.builders import message_of
from tests.mosquitto import (
    PASSWORD,
    USERNAME,
    Certificates,
    Listener,
    Mosquitto,
    wait_for,
)

TOPICS = Topics(node="gym")
QUICK = MqttTimeouts(
    answer_s=1.0,
    backoff_min_s=0.05,
    backoff_max_s=0.2,
    stable_s=1000.0,
    unacknowledged_s=0.1,
    close_s=2.0,
)
"""Patience for tests: what takes minutes at home takes tenths of a second here."""

MakeSink = Callable[..., MqttSink]


@pytest.fixture
def make_sink() -> Iterator[MakeSink]:
    """Return a function that makes sinks, which are closed at the end."""
    sinks: list[MqttSink] = []

    def make(
        url: str,
        *,
        username: str | None = None,
        on_command: Callable[[Command], None] | None = None,
        state_directory: Path | None = None,
        **options: Any,
    ) -> MqttSink:
        address = parse_broker_url(url)
        if username is not None:
            address = replace(address, username=username)
        options = {"client_id": "edgepose-gym", "timeouts": QUICK, **options}
        sinks.append(
            MqttSink(
                ConnectOptions(address, **options),
                TOPICS,
                cameras=["main", "door"],
                on_command=on_command,
                state_directory=state_directory,
            )
        )
        sinks[-1].set_state(TOPICS.info, b'{"version": "x"}')
        return sinks[-1]

    yield make
    for sink in sinks:
        sink.close()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def warnings(log: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in log.records if r.levelno >= logging.WARNING]


def wait_for_warning(log: pytest.LogCaptureFixture, words: str) -> str:
    wait_for(lambda: any(words in text for text in warnings(log)), f"a warning with {words!r}")
    return next(text for text in warnings(log) if words in text)


def wait_for_tries(broker_port: int, tries: int) -> None:
    """Accept connections without answering and count them."""
    with socket.create_server(("127.0.0.1", broker_port)) as server:
        server.settimeout(60)
        for _ in range(tries):
            server.accept()[0].close()


def test_mqtt_sink_publishes_every_topic_of_the_contract(
    broker: Mosquitto, listener: Listener, make_sink: MakeSink
) -> None:
    sink = make_sink(broker.url)
    sink.set_state(TOPICS.presence("main"), b"OFF")
    sink.open(require_connection_within_s=10)
    message = message_of(5)
    sink.publish(message)
    sink.send_event("main", b'{"type": "enter"}')
    sink.send_stats(b'{"fps": 1}')
    sink.set_state(TOPICS.count("main"), b"1")
    listener.wait_for(TOPICS.count("main"))
    listener.wait_for(TOPICS.poses("main"))
    listener.wait_for(TOPICS.event("main"))
    listener.wait_for(TOPICS.stats)
    sink.close()
    listener.wait_for(TOPICS.availability, b"offline")
    first = [TOPICS.info, TOPICS.presence("main"), TOPICS.availability]
    assert listener.topics()[:3] == first
    assert listener.payloads(TOPICS.availability) == [b"online", b"offline"]
    (poses,) = listener.payloads(TOPICS.poses("main"))
    assert messages.decode(poses) == message
    qos = {received.topic: received.qos for received in listener.received}
    assert qos.pop(TOPICS.poses("main")) == 0
    assert qos.pop(TOPICS.stats) == 0
    assert set(qos.values()) == {1}
    with broker.listener() as newcomer:
        newcomer.wait_for(TOPICS.stats)
        newcomer.wait_for(TOPICS.count("main"))
        kept = {received.topic: received.payload for received in newcomer.received}
    assert kept == {
        TOPICS.info: b'{"version": "x"}',
        TOPICS.presence("main"): b"OFF",
        TOPICS.count("main"): b"1",
        TOPICS.stats: b'{"fps": 1}',
        TOPICS.availability: b"offline",
    }


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_mqtt_sink_message_larger_than_socket_buffer(
    broker: Mosquitto, listener: Listener, make_sink: MakeSink, protocol: str
) -> None:
    """It arrives complete and in order."""
    sink = make_sink(broker.url, protocol=protocol)
    sink.open(require_connection_within_s=10)
    lengths = (0, 1, 20_000, 3_000_000, 130_000, 6_000_000, 7)
    for number, length in enumerate(lengths):
        sink.publish(msgspec.structs.replace(message_of(number), model="m" * length))
        sink.set_state(TOPICS.count("main"), str(number).encode())
    listener.wait_for(TOPICS.count("main"), str(len(lengths) - 1).encode())
    wait_for(lambda: len(listener.payloads(TOPICS.poses("main"))) == len(lengths), "all messages")
    received = [messages.decode(poses) for poses in listener.payloads(TOPICS.poses("main"))]
    assert [len(message.model) for message in received] == list(lengths)
    assert sink.counters()["dropped_poses"] == 0
    assert sink.counters()["connected"]


def test_mqtt_sink_keeps_order_of_each_thread(
    broker: Mosquitto, listener: Listener, make_sink: MakeSink
) -> None:
    sink = make_sink(broker.url)
    sink.open(require_connection_within_s=10)

    def publish(camera: str) -> None:
        for number in range(400):
            sink.publish(msgspec.structs.replace(message_of(number), camera=camera))
            if number % 10 == 0:
                # So that the queue, which holds 32, drops few.
                sent = TOPICS.count(camera), str(number).encode()
                sink.set_state(*sent)
                listener.wait_for(*sent)

    threads = [threading.Thread(target=publish, args=(camera,)) for camera in ("main", "door")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    listener.wait_for(TOPICS.availability, b"offline")
    arrived = 0
    for camera in ("main", "door"):
        poses = listener.payloads(TOPICS.poses(camera))
        numbers = [messages.decode(payload).sequence for payload in poses]
        assert numbers == sorted(numbers)
        arrived += len(numbers)
    assert arrived == 2 * 400 - sink.counters()["dropped_poses"]
    assert sink.counters()["reconnects"] == 0


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_mqtt_sink_unchanged_state_is_not_sent(
    broker: Mosquitto, listener: Listener, make_sink: MakeSink, protocol: str
) -> None:
    sink = make_sink(broker.url, protocol=protocol)
    sink.open(require_connection_within_s=10)
    for payload in (b"ON", b"ON", b"OFF", b"OFF", b"ON"):
        sink.set_state(TOPICS.presence("main"), payload)
        listener.wait_for(TOPICS.presence("main"), payload)
    sink.close()
    listener.wait_for(TOPICS.availability, b"offline")
    assert listener.payloads(TOPICS.presence("main")) == [b"ON", b"OFF", b"ON"]


def test_mqtt_sink_sets_tcp_nodelay(
    broker: Mosquitto, make_sink: MakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without TCP_NODELAY one message in a hundred waits 40 ms for an acknowledgement."""
    set_options: set[tuple[int, int, int]] = set()

    class Recording(socket.socket):
        def setsockopt(self, level: int, option: int, value: Any, *rest: Any) -> None:
            set_options.add((level, option, value))
            super().setsockopt(level, option, value, *rest)

    monkeypatch.setattr(socket, "socket", Recording)
    make_sink(broker.url).open(require_connection_within_s=10)
    assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in set_options


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_mqtt_sink_validates_commands(
    broker: Mosquitto, make_sink: MakeSink, log: pytest.LogCaptureFixture, protocol: str
) -> None:
    commands: list[tuple[str | None, bytes]] = []

    def take(command: Command) -> None:
        commands.append((command.camera, command.payload))
        if command.camera == "door":
            raise RuntimeError("the handler failed")

    topic = TOPICS.command("main", "enabled")
    broker.publish(topic, b"ON", retain=True)
    sink = make_sink(broker.url, on_command=take, protocol=protocol)
    sink.open(require_connection_within_s=10)
    bad = [b"", b"on", b"ON ", b"1", b"\xff\x00", b"OFF\n", b"x" * 100_000, b'{"state": "ON"}']
    for payload in bad:
        broker.publish(topic, payload)
    broker.publish(TOPICS.command("garage", "enabled"), b"ON")
    broker.publish(TOPICS.command("door", "enabled"), b"ON")
    broker.publish(topic, b"OFF", qos=0)
    broker.publish(topic, b"ON")
    wait_for(lambda: len(commands) == 3, "three commands")
    assert commands == [("door", b"ON"), ("main", b"OFF"), ("main", b"ON")]
    logged = warnings(log)
    assert sum("expected ON or OFF" in text for text in logged) == len(bad)
    assert all(len(text) < 300 for text in logged)
    assert sum("the handler failed" in text for text in logged) == 1
    assert sum("retain" in text for text in logged) == 1
    assert sink.counters()["connected"]


def test_mqtt_sink_broker_restart_restores_states_and_events(
    broker: Mosquitto, listener: Listener, make_sink: MakeSink, log: pytest.LogCaptureFixture
) -> None:
    """Poses of the outage are dropped and counted, the newest state wins, events keep order."""
    sink = make_sink(broker.url)
    presence, count, event = TOPICS.presence("main"), TOPICS.count("main"), TOPICS.event("main")
    recovery = "s; 50 pose messages were dropped"
    sink.set_state(presence, b"OFF")
    sink.send_stats(b"{}")
    sink.open(require_connection_within_s=10)
    sink.send_event("main", b"before")
    listener.wait_for(event, b"before")
    wait_for(lambda: not sink.counters()["waiting_events"], "the acknowledgement")
    broker.kill()
    wait_for(lambda: not sink.counters()["connected"], "the loss of the connection")
    for number in range(50):
        sink.publish(message_of(number))
        sink.send_event("main", b"%d" % number)
        sink.set_state(presence, b"ON" if number % 2 else b"OFF")
        sink.set_state(count, b"%d" % number)
    counters = sink.counters()
    assert counters["dropped_poses"] == 50
    assert counters["waiting_events"] == 50
    assert counters["connected"] is False
    wait_for_tries(broker.port, 3)
    listener.received.clear()
    broker.start()
    listener.wait_subscribed()
    # If the sink was faster than the listener, the retained messages have the newest state.
    listener.wait_for(TOPICS.availability, b"online")
    listener.wait_for(presence)
    listener.wait_for(count)
    wait_for(lambda: not sink.counters()["waiting_events"], "the events to arrive")
    assert set(listener.payloads(presence)) == {b"ON"}
    assert set(listener.payloads(count)) == {b"49"}
    wait_for(lambda: sink.counters()["connected"], "the connection")
    assert sink.counters()["reconnects"] == 1
    wait_for(lambda: recovery in log.text, "the recovery to be logged")
    logged = warnings(log)
    assert len(logged) == len(set(logged)), "each failure is logged once"
    assert log.text.count(recovery) == 1


def test_mqtt_sink_connect_sends_states_then_online_then_events(
    broker: Mosquitto, listener: Listener, make_sink: MakeSink
) -> None:
    """More events than fit unacknowledged into one window."""
    sink = make_sink(broker.url, state_directory=None)
    sink.set_state(TOPICS.presence("main"), b"ON")
    for number in range(75):
        sink.send_event("main", b"%d" % number)
    sink.open(require_connection_within_s=10)
    listener.wait_for(TOPICS.event("main"), b"74")
    assert listener.topics() == [
        TOPICS.info,
        TOPICS.presence("main"),
        TOPICS.availability,
        *[TOPICS.event("main")] * 75,
    ]
    assert listener.payloads(TOPICS.event("main")) == [b"%d" % n for n in range(75)]


def events_in(path: Path) -> list[bytes]:
    return [event.payload for event in EventStore(path, max_events=1000)]


def test_mqtt_sink_events_survive_daemon_restart(
    broker: Mosquitto, make_sink: MakeSink, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    broker.kill()
    sink = make_sink(broker.url, state_directory=state)
    sink.open()
    for number in range(5):
        sink.send_event("main", b'{"time": %d}' % number)
    sink.close()
    assert len(events_in(state / EVENTS_FILE)) == 5
    broker.start()
    with broker.listener() as listener:
        again = make_sink(broker.url, state_directory=state)
        again.send_event("main", b"new")
        again.open(require_connection_within_s=10)
        listener.wait_for(TOPICS.event("main"), b"new")
        expected = [*(b'{"time": %d}' % number for number in range(5)), b"new"]
        assert listener.payloads(TOPICS.event("main")) == expected
    wait_for(lambda: not events_in(state / EVENTS_FILE), "acknowledged events to be removed")


def test_mqtt_sink_events_of_killed_daemon_are_stored(
    broker: Mosquitto, make_sink: MakeSink, tmp_path: Path
) -> None:
    """The file is written while the broker is unreachable, and not only at the end."""
    path = tmp_path / "state" / EVENTS_FILE
    broker.kill()
    sink = make_sink(broker.url, state_directory=path.parent)
    sink.open()
    sink.send_event("main", b"x")
    wait_for(lambda: path.exists() and events_in(path) == [b"x"], "the event")


def test_mqtt_sink_acknowledged_events_are_not_stored(
    broker: Mosquitto, listener: Listener, make_sink: MakeSink, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    timeouts = MqttTimeouts(unacknowledged_s=1000.0)
    sink = make_sink(broker.url, state_directory=state, timeouts=timeouts)
    sink.open(require_connection_within_s=10)
    for number in range(30):
        sink.send_event("main", b"%d" % number)
        listener.wait_for(TOPICS.event("main"), b"%d" % number)
    wait_for(lambda: not sink.counters()["waiting_events"], "the acknowledgements")
    sink.close()
    assert not state.exists()


def test_mqtt_sink_full_event_store_drops_oldest(
    broker: Mosquitto, listener: Listener, make_sink: MakeSink
) -> None:
    sink = make_sink(broker.url)
    for number in range(1010):
        sink.send_event("main", b"%d" % number)
    assert sink.counters()["waiting_events"] == 1000
    assert sink.counters()["dropped_events"] == 10
    sink.open(require_connection_within_s=10)
    listener.wait_for(TOPICS.event("main"), b"1009")
    assert listener.payloads(TOPICS.event("main")) == [b"%d" % n for n in range(10, 1010)]


def test_mqtt_sink_broker_stops_reading(broker: Mosquitto, make_sink: MakeSink) -> None:
    """The connection seems open for a while; messages must not fill the memory."""
    sink = make_sink(broker.url, keepalive_s=1000)
    sink.open(require_connection_within_s=10)
    broker.freeze()
    sent = 0
    while not sink.counters()["dropped_poses"]:
        for _ in range(32):
            sink.publish(message_of(sent))
            sent += 1
        time.sleep(0.001)
        assert sent < 100_000, "no message was dropped"
    broker.thaw()
    wait_for(
        lambda: sink.counters()["published"] + sink.counters()["dropped_poses"] >= sent,
        "what was kept to arrive",
    )


@pytest.mark.parametrize("busy", [True, False])
def test_mqtt_sink_frozen_broker_is_detected(
    broker: Mosquitto, make_sink: MakeSink, log: pytest.LogCaptureFixture, *, busy: bool
) -> None:
    sink = make_sink(broker.url, keepalive_s=1)
    sink.open(require_connection_within_s=10)
    broker.freeze()

    def lost() -> bool:
        if busy:
            sink.publish(message_of(1))
        return not sink.counters()["connected"]

    wait_for(lost, "the loss of the connection")
    assert "nothing received" in wait_for_warning(log, "stopped answering")
    broker.thaw()
    wait_for(lambda: sink.counters()["connected"], "the connection to come back")


def test_mqtt_sink_broker_hangs_at_connect(
    broker: Mosquitto, make_sink: MakeSink, log: pytest.LogCaptureFixture
) -> None:
    broker.freeze()
    sink = make_sink(broker.url)
    sink.open()
    assert "sends nothing within 1 s" in wait_for_warning(log, "accepts connections")
    broker.thaw()
    wait_for(lambda: sink.counters()["connected"], "the connection")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize(
    ("username", "password", "expected"),
    [
        (None, None, "asks for a username and password"),
        (USERNAME, None, "without a password"),
        (USERNAME, "WR0NG-S3CRET", f"check the username '{USERNAME}'"),
    ],
)
def test_mqtt_sink_wrong_login_is_logged_once_without_password(
    password_broker: Mosquitto,
    make_sink: MakeSink,
    log: pytest.LogCaptureFixture,
    protocol: str,
    username: str | None,
    password: str | None,
    expected: str,
) -> None:
    log.set_level(logging.DEBUG)
    secret = None if password is None else Secret(password)
    sink = make_sink(
        password_broker.url, username=username, read_password=lambda: secret, protocol=protocol
    )
    sink.open()
    assert expected in wait_for_warning(log, "refuses the login")
    wait_for(lambda: len(log.records) >= 4, "more tries")
    assert len(warnings(log)) == 1
    assert "WR0NG" not in log.text
    assert "WR0NG" not in str(vars(sink))
    with pytest.raises(BrokerError, match="refuses the login") as caught:
        make_sink(password_broker.url, username=username, read_password=lambda: secret).open(
            require_connection_within_s=10
        )
    assert "WR0NG" not in str(caught.value)


def test_mqtt_sink_valid_login(password_broker: Mosquitto, make_sink: MakeSink) -> None:
    sink = make_sink(password_broker.url, username=USERNAME, read_password=lambda: Secret(PASSWORD))
    sink.open(require_connection_within_s=10)
    url = password_broker.url.replace("//", f"//{USERNAME}@")
    make_sink(url, client_id="other", read_password=lambda: Secret(PASSWORD)).open(
        require_connection_within_s=10
    )


def test_mqtt_sink_tls_valid_certificate(
    tls_broker: Mosquitto, make_sink: MakeSink, certificates: Certificates
) -> None:
    sink = make_sink(tls_broker.url, tls=TlsFiles(ca_file=certificates.authority))
    with tls_broker.listener() as listener:
        sink.open(require_connection_within_s=10)
        # Longer than one TLS record: TLS then has data that `poll` does not report.
        sink.set_state(TOPICS.accelerator, b"x" * 100_000)
        sink.publish(message_of(1))
        listener.wait_for(TOPICS.accelerator, b"x" * 100_000)
        listener.wait_for(TOPICS.poses("main"))


def test_mqtt_sink_tls_errors_have_reasons(
    tls_broker: Mosquitto,
    broker: Mosquitto,
    make_sink: MakeSink,
    certificates: Certificates,
) -> None:
    def reason(url: str, tls: TlsFiles = TlsFiles()) -> str:  # noqa: B008
        with pytest.raises(BrokerError) as caught:
            make_sink(url, tls=tls).open(require_connection_within_s=20)
        return str(caught.value)

    right = TlsFiles(ca_file=certificates.authority)
    assert "CA file" in reason(tls_broker.url, TlsFiles(ca_file=certificates.unrelated))
    assert "CA file" in reason(tls_broker.url)
    assert "name that is in the certificate" in reason(
        tls_broker.url.replace("localhost", "127.0.0.1"), right
    )
    assert "use mqtts://" in reason(tls_broker.url.replace("mqtts", "mqtt"))
    assert "use mqtt://" in reason(broker.url.replace("mqtt", "mqtts"), right)


def test_mqtt_sink_tls_insecure_logs_warning(
    tls_broker: Mosquitto, make_sink: MakeSink, log: pytest.LogCaptureFixture
) -> None:
    make_sink(tls_broker.url, tls=TlsFiles(insecure=True)).open(require_connection_within_s=10)
    assert len([text for text in warnings(log) if "insecure" in text]) == 1


def test_mqtt_sink_tls_client_certificate(
    tmp_path: Path, make_sink: MakeSink, certificates: Certificates
) -> None:
    with Mosquitto(tmp_path, certificates=certificates, require_certificate=True) as broker:
        with pytest.raises(BrokerError, match="client certificate"):
            make_sink(broker.url, tls=TlsFiles(ca_file=certificates.authority)).open(
                require_connection_within_s=10
            )
        files = TlsFiles(certificates.authority, certificates.client, certificates.client_key)
        make_sink(broker.url, tls=files).open(require_connection_within_s=10)


def test_mqtt_sink_tls_invalid_files_are_named(
    make_sink: MakeSink, certificates: Certificates, tmp_path: Path
) -> None:
    """A service waits for them, as a disk may be mounted later; a user at a terminal is told."""
    for files, names in (
        (TlsFiles(ca_file=tmp_path / "nowhere"), "nowhere"),
        (TlsFiles(ca_file=certificates.server_key), "server.key"),
        (TlsFiles(None, certificates.client, certificates.server_key), "client.crt"),
        (TlsFiles(None, certificates.client, tmp_path / "nowhere"), "nowhere"),
    ):
        with pytest.raises(BrokerError, match=names):
            make_sink("mqtts://localhost", tls=files).open(require_connection_within_s=10)


def test_mqtt_sink_connection_refused(make_sink: MakeSink, log: pytest.LogCaptureFixture) -> None:
    """It is logged in one message."""
    log.set_level(logging.DEBUG)
    port = free_port()
    sink = make_sink(f"mqtt://localhost:{port}")
    sink.open()
    wait_for(lambda: len(log.records) >= 5, "more tries")
    (text,) = warnings(log)
    assert f"localhost:{port} refuses connections" in text
    with pytest.raises(BrokerError, match="refuses connections"):
        make_sink(f"mqtt://localhost:{port}").open(require_connection_within_s=10)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_mqtt_sink_duplicate_client_id_backs_off(
    broker: Mosquitto, make_sink: MakeSink, log: pytest.LogCaptureFixture, protocol: str
) -> None:
    # The pauses of a test are so short that messages would be suspected.
    timeouts = replace(QUICK, blame_s=0.01)
    first = make_sink(broker.url, protocol=protocol, timeouts=timeouts)
    second = make_sink(broker.url, protocol=protocol, timeouts=timeouts)
    first.open(require_connection_within_s=10)
    # Not required: the first client may have reconnected and replaced the second.
    second.open()
    text = wait_for_warning(log, "'edgepose-gym'")
    assert "node id" in text
    count = len(warnings(log))
    reconnects = int(first.counters()["reconnects"])
    wait_for(lambda: int(first.counters()["reconnects"]) > reconnects + 3, "the war to go on")
    assert len(warnings(log)) <= count + 3, "each client logs it once"
    second.close()
    wait_for(lambda: first.counters()["connected"], "the first to have peace")


class FakeBroker:
    """Replies to each connection with given bytes, for replies that mosquitto never sends."""

    def __init__(self, *replies: bytes) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._replies = replies
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for reply in self._replies:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            # The sink may only try whether it can connect.
            with connection, contextlib.suppress(OSError):
                connection.recv(1000)
                connection.sendall(reply)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1000):
                    pass

    def close(self) -> None:
        self._server.close()


CONNACK_5 = b"\x20\x03\x00\x00\x00"
WITH_REASON = b"\x05\x1f\x00\x02hi"
"""The property of a DISCONNECT; paho 2.1 overlooks the code of one without."""


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([CONNACK_5 + b"\xe0\x07\x8e" + WITH_REASON], "another client logged in"),
        ([CONNACK_5 + b"\xe0\x07\x8b" + WITH_REASON], "server shutting down"),
        ([b"\x20\x03\x00\x88\x00"], "server unavailable"),
        ([b"\x20\x03\x00\x8a\x00"], "banned"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "another program"),
        ([b"SSH-2.0-OpenSSH_9.2p1\r\n"], "another program"),
        ([b""], "without an answer"),
        ([CONNACK_5 + b"\x30\xff\xff\xff\xff\xff"], "invalid MQTT packet"),
        ([CONNACK_5 + b"\xe0\x00"] * 9, "ends one connection after the other"),
        ([CONNACK_5 + b"\x30\x02\x00\x01"], "invalid MQTT packet"),
        ([CONNACK_5 + b"\x40\x01\x00"], "invalid MQTT packet"),
    ],
)
def test_mqtt_sink_invalid_brokers(
    make_sink: MakeSink, log: pytest.LogCaptureFixture, replies: list[bytes], expected: str
) -> None:
    """Each is explained in the log; none ends the connection's thread."""
    fake = FakeBroker(*replies)
    sink = make_sink(fake.url)
    sink.open()
    wait_for_warning(log, expected)
    fake.close()
    wait_for_warning(log, "refuses connections")
    assert not any("internal error" in text for text in warnings(log))


def test_mqtt_sink_falls_back_to_mqtt_311(
    make_sink: MakeSink, log: pytest.LogCaptureFixture
) -> None:
    # The subscriptions have the first numbers.
    acknowledged = b"".join(b"\x40\x02\x00" + bytes((number,)) for number in range(1, 9))
    fake = FakeBroker(b"\x20\x02\x00\x01", b"\x20\x02\x00\x00" + acknowledged)
    sink = make_sink(fake.url)
    sink.open()
    wait_for(lambda: "MQTT 3.1.1" in log.text, "the connection")
    assert "does not know MQTT 5" in log.text
    fake.close()


def test_mqtt_sink_missing_permissions_are_named(
    tmp_path: Path, make_sink: MakeSink, log: pytest.LogCaptureFixture
) -> None:
    with Mosquitto(tmp_path, acl="topic readwrite elsewhere/#\n") as broker:
        make_sink(broker.url).open()
        assert "anonymous" in wait_for_warning(log, f"refuses messages on {TOPICS.info}")


CHILD = """
import sys, time
from edgepose.mqtt.options import ConnectOptions
from edgepose.mqtt.topics import Topics
from edgepose.mqtt.url import parse_broker_url
from edgepose.sinks.mqtt import MqttSink
options = ConnectOptions(parse_broker_url(sys.argv[1]), "edgepose-gym")
sink = MqttSink(options, Topics(node="gym"), cameras=["main"])
sink.open(require_connection_within_s=10)
time.sleep(60)
"""


def test_mqtt_sink_killed_daemon_sends_last_will(broker: Mosquitto, listener: Listener) -> None:
    process = subprocess.Popen([sys.executable, "-c", CHILD, broker.url])
    try:
        listener.wait_for(TOPICS.availability, b"online")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert listener.wait_for(TOPICS.availability, b"offline").qos == 1


def test_mqtt_sink_close_is_bounded_and_leaves_no_thread(
    broker: Mosquitto, make_sink: MakeSink
) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    sink = make_sink(broker.url)
    sink.open(require_connection_within_s=10)
    broker.freeze()
    sink.send_event("main", b"x")
    sink.close()
    sink.close()
    assert not sink.counters()["connected"]
    assert sink.counters()["waiting_events"] == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "mqtt"]
    sink.publish(message_of(1))
    sink.set_state(TOPICS.count("main"), b"1")
    sink.send_event("main", b"y")
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before, "files to close")  # noqa: PTH208
    never_opened = make_sink(broker.url)
    never_opened.close()
    never_opened.open()
    assert not never_opened.counters()["connected"]
