"""Retained topics on a real broker: leftovers, renamed nodes, and a second client."""

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgepose.mqtt.options import ConnectOptions
from edgepose.mqtt.topics import Topics
from edgepose.mqtt.url import parse_broker_url
from edgepose.sinks.mqtt import MqttSink
from tests.daemon import NODE, last, running, wait_for_last
from tests.mosquitto import Listener, Mosquitto, wait_for

TOPICS = Topics(node="gym")
OLD = ("enabled", "status", "count", "presence")

MakeSink = Callable[..., MqttSink]


@pytest.fixture(params=["5", "3.1.1"])
def make_sink(request: pytest.FixtureRequest, broker: Mosquitto) -> Iterator[MakeSink]:
    """Return a function that makes a connected node, with both versions of MQTT."""
    sinks: list[MqttSink] = []

    def make(client_id: str = "a", topics: Topics = TOPICS, **options: Any) -> MqttSink:
        address = parse_broker_url(broker.url)
        connect = ConnectOptions(address, client_id, protocol=request.param)
        sink = MqttSink(connect, topics, cameras=["main"], **options)
        sinks.append(sink)
        sink.set_state(topics.info, b"{}")
        sink.set_state(topics.status("main"), b"online")
        sink.set_state(topics.presence("main"), b"ON")
        sink.open(require_connection_within_s=20)
        return sink

    yield make
    for sink in sinks:
        sink.close()


def wait_until_cleared(listener: Listener, topics: set[str]) -> None:
    """Wait until each topic was cleared, and check that nothing else was, nor one of them twice."""
    wait_for(lambda: topics <= cleared(listener).keys(), f"{topics} to be cleared")
    assert cleared(listener) == dict.fromkeys(topics, 1)


def cleared(listener: Listener) -> dict[str, int]:
    found: dict[str, int] = {}
    for received in list(listener.received):
        if not received.payload:
            found[received.topic] = found.get(received.topic, 0) + 1
    return found


def test_mqtt_sink_clears_a_removed_camera(
    broker: Mosquitto, listener: Listener, make_sink: MakeSink
) -> None:
    left = {f"{TOPICS.root}/old/{name}" for name in OLD}
    others = {"edgepose/hall/old/presence", f"{TOPICS.root}/old/light"}
    for topic in left | others:
        broker.publish(topic, b"ON", retain=True)
    sink = make_sink()
    wait_until_cleared(listener, left)
    sink.close()
    # The next connection finds nothing, and clears nothing.
    make_sink(previous_root="edgepose/nothing")
    wait_for_last(listener, TOPICS.availability, b"online")
    wait_until_cleared(listener, left)
    with broker.listener() as newcomer:
        for topic in (*others, TOPICS.presence("main"), TOPICS.availability):
            assert newcomer.wait_for(topic).retain
        assert not left & set(newcomer.topics())


def test_mqtt_sink_clears_a_renamed_node(
    broker: Mosquitto, listener: Listener, make_sink: MakeSink
) -> None:
    make_sink("old", Topics(node="old")).close()
    forgotten = threading.Event()
    make_sink(previous_root="edgepose/old", forget_previous=forgotten.set)
    names = ("availability", "info", "main/status", "main/presence")
    wait_until_cleared(listener, {f"edgepose/old/{name}" for name in names})
    assert forgotten.wait(60)


def test_mqtt_sink_clears_nothing_of_a_living_node(listener: Listener, make_sink: MakeSink) -> None:
    living = make_sink("old", Topics(node="old"))
    forgotten = threading.Event()
    make_sink(previous_root="edgepose/old", forget_previous=forgotten.set)
    wait_for_last(listener, TOPICS.availability, b"online")
    living.close()
    # Only what it published at its end is cleared, and what was there before.
    assert forgotten.wait(60)
    wait_for_last(listener, "edgepose/old/availability", b"")
    order = [r.payload for r in listener.received if r.topic == "edgepose/old/availability"]
    assert order == [b"online", b"offline", b""]


def test_mqtt_sink_beside_a_second_client_of_its_node(
    listener: Listener, make_sink: MakeSink, caplog: pytest.LogCaptureFixture
) -> None:
    """What the second one leaves behind does not stay."""
    caplog.set_level(logging.WARNING)
    make_sink()
    second = make_sink("b")
    second.set_state(TOPICS.status("main"), b"offline")
    second.set_state(TOPICS.presence("main"), b"OFF")
    second.close()
    for topic, payload in (
        (TOPICS.availability, b"online"),
        (TOPICS.status("main"), b"online"),
        (TOPICS.presence("main"), b"ON"),
    ):
        wait_for_last(listener, topic, payload)
    # It is logged after the states were published.
    wait_for(lambda: "another client" in caplog.text, "the warning")
    assert caplog.text.count("another client") == 1
    assert "check that only one edgepose runs with the node id 'gym'" in caplog.text


def test_daemon_clears_what_its_configuration_left(tmp_path: Path, broker: Mosquitto) -> None:
    """A camera that was removed while a person was before it, and then a node that was renamed."""
    folder = tmp_path / "daemon"
    folder.mkdir()
    two = "cameras:\n  - source: 'synthetic:'\n  - {name: old, source: 'synthetic:'}\n"
    with broker.listener() as listener:
        with running(folder, broker, config=two) as daemon:
            wait_for_last(listener, f"{NODE}/old/presence", b"ON")
            daemon.process.kill()
        wait_for_last(listener, f"{NODE}/availability", b"offline")
        with running(folder, broker) as daemon:
            for name in OLD:
                wait_for_last(listener, f"{NODE}/old/{name}", b"")
            assert daemon.end()[0] == 0
        with running(folder, broker, node="renamed") as daemon:
            wait_for_last(listener, "edgepose/renamed/availability", b"online")
            for name in ("availability", "info", "accelerator", "main/enabled", "main/status"):
                wait_for_last(listener, f"{NODE}/{name}", b"")
            assert daemon.end()[0] == 0
        assert last(listener, "edgepose/renamed/availability") == b"offline"
        with broker.listener("edgepose/#") as newcomer:
            newcomer.wait_for("edgepose/renamed/availability")
            assert not [topic for topic in newcomer.topics() if topic.startswith(f"{NODE}/")]
