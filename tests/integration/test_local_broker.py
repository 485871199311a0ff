"""The broker that the benchmark and the demonstration start."""

import importlib.util
import os
import socket
from pathlib import Path

import pytest

from edgepose.errors import BrokerError
from edgepose.mqtt import local_broker
from edgepose.mqtt.options import ConnectOptions
from edgepose.mqtt.topics import Topics
from edgepose.mqtt.url import parse_broker_url
from edgepose.sinks.mqtt import MqttSink
from tests.builders import message_of
from tests.mosquitto import require, wait_for
from tests.processes import children


@pytest.mark.parametrize("program", ["mosquitto", "amqtt"])
def test_local_broker_delivers_messages(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if program == "amqtt":
        pytest.importorskip("amqtt", reason="the extra `demo` is not installed")
        monkeypatch.setattr(local_broker, "find_mosquitto", lambda: None)
    else:
        require("mosquitto")
    before = children(os.getpid())
    with local_broker.local_broker() as broker:
        assert broker.name.startswith(f"{program} ")
        address = parse_broker_url(broker.url)
        options = ConnectOptions(address, "edgepose-gym", protocol=broker.protocol)
        sink = MqttSink(options, Topics(node="gym"), cameras=["main"])
        sink.open(require_connection_within_s=20)
        sink.publish(message_of(1))
        wait_for(lambda: sink.counters()["published"], "the message to be published")
        sink.close()
    assert children(os.getpid()) == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.host, address.port), 1)


def test_local_broker_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_broker, "find_mosquitto", lambda: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(BrokerError, match=r"apt install mosquitto\), or pip install"):
        local_broker.local_broker().__enter__()


def test_local_broker_that_exits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mosquitto"
    program.write_text("#!/bin/sh\necho no such option\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(local_broker, "find_mosquitto", lambda: str(program))
    with pytest.raises(BrokerError, match=r"does not listen on .*\(no such option\)"):
        local_broker.local_broker().__enter__()
