"""The broker of the demonstration."""

import logging
import socket
import sys
import threading

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgepose.errors import BrokerError
from edgepose.mqtt.embedded_broker import EmbeddedBroker
from edgepose.mqtt.options import ConnectOptions
from edgepose.mqtt.topics import Topics
from edgepose.mqtt.url import parse_broker_url
from edgepose.sinks.mqtt import MqttSink
from tests.builders import message_of
from tests.mosquitto import wait_for

pytest.importorskip("amqtt", reason="the extra `demo` is not installed")


def test_embedded_broker_delivers_messages(caplog: pytest.LogCaptureFixture) -> None:
    received: dict[str, bytes] = {}
    with EmbeddedBroker() as broker:
        subscriber = paho.Client(CallbackAPIVersion.VERSION2)
        subscribed = threading.Event()

        def on_message(_client: object, _userdata: object, message: paho.MQTTMessage) -> None:
            received[message.topic] = bytes(message.payload)

        def on_connect(*_: object) -> None:
            subscriber.subscribe("edgepose/#")

        subscriber.on_connect = on_connect
        subscriber.on_subscribe = lambda *_: subscribed.set()
        subscriber.on_message = on_message
        subscriber.connect("127.0.0.1", broker.port)
        subscriber.loop_start()
        assert subscribed.wait(20)
        sink = MqttSink(
            ConnectOptions(parse_broker_url(broker.url), "edgepose-gym", protocol="3.1.1"),
            Topics(node="gym"),
            cameras=["main"],
        )
        sink.open(require_connection_within_s=20)
        sink.publish(message_of(1))
        wait_for(lambda: "edgepose/gym/main/poses" in received, "the poses")
        sink.close()
        wait_for(lambda: received["edgepose/gym/availability"] == b"offline", "offline")
        subscriber.disconnect()
        subscriber.loop_stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", broker.port), 1)
    assert not [r for r in caplog.records if r.name.startswith(("amqtt", "transitions"))]
    assert not [thread for thread in threading.enumerate() if thread.name == "embedded-broker"]


def test_embedded_broker_port_in_use(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"cannot listen on 127.0.0.1:{port}"):
            EmbeddedBroker(port).__enter__()
    assert not [thread for thread in threading.enumerate() if thread.name == "embedded-broker"]


def test_embedded_broker_without_amqtt_names_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "amqtt.broker", None)
    with pytest.raises(BrokerError, match=r"edgepose\[demo\]"):
        EmbeddedBroker().__enter__()


def test_embedded_broker_close_twice() -> None:
    broker = EmbeddedBroker()
    broker.close()
    with broker:
        pass
    broker.close()
