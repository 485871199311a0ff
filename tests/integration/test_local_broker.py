"""The broker that the benchmark and the demonstration start."""

import importlib.util
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from edgepose.errors import BrokerError
from edgepose.mqtt import local_broker
from edgepose.mqtt.options import ConnectOptions
from edgepose.mqtt.topics import Topics
from edgepose.mqtt.url import BrokerAddress, parse_broker_url
from edgepose.sinks.mqtt import MqttSink
from tests.builders import message_of
from tests.mosquitto import require, wait_for
from tests.processes import children


def choose(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this program started, or skip the test."""
    if program == "amqtt":
        pytest.importorskip("amqtt", reason="the extra `demo` is not installed")
        monkeypatch.setattr(local_broker, "find_mosquitto", lambda: None)
    else:
        require("mosquitto")


@pytest.mark.parametrize("program", ["mosquitto", "amqtt"])
def test_local_broker_delivers_messages(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(program, monkeypatch)
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


@pytest.mark.parametrize("program", ["mosquitto", "amqtt"])
def test_local_broker_refuses_large_packets(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the connection at the length of a packet of 150 MB, before it takes the memory."""
    choose(program, monkeypatch)
    with local_broker.local_broker() as broker:
        address = parse_broker_url(broker.url)
        before = children(os.getpid())
        with socket.create_connection((address.host, address.port), 10) as client:
            client.sendall(bytes.fromhex("100d 00044d515454 04 02 0000 0001 61"))
            assert client.recv(4) == bytes.fromhex("20020000")
            # PUBLISH, with a remaining length of 150 MB and the topic "a".
            client.sendall(b"\x30" + bytes.fromhex("80a3c347") + b"\x00\x01a" + b"x" * 1000)
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""
        assert children(os.getpid()) == before
        with socket.create_connection((address.host, address.port), 10) as client:
            client.sendall(bytes.fromhex("100d 00044d515454 04 02 0000 0001 62"))
            assert client.recv(4) == bytes.fromhex("20020000")


@pytest.mark.parametrize("program", ["mosquitto", "amqtt"])
def test_local_broker_ends_with_a_killed_parent(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(program, monkeypatch)
    code = (
        "import sys, time; from edgepose.mqtt import local_broker as b\n"
        f"if {program!r} == 'amqtt': b.find_mosquitto = lambda: None\n"
        "with b.local_broker() as broker: print(broker.url, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        address = parse_broker_url(parent.stdout.readline().strip())
        socket.create_connection((address.host, address.port), 1).close()
        parent.kill()
    wait_for(lambda: not listens(address), "the broker to end")


def listens(address: BrokerAddress) -> bool:
    try:
        socket.create_connection((address.host, address.port), 1).close()
    except OSError:
        return False
    return True


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
