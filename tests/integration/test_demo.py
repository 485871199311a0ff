"""`edgepose demo` beside a service on the same broker."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgepose.config.schema import Config, MqttConfig
from edgepose.mqtt.topics import Topics
from edgepose.sinks.mqtt import MqttSink
from tests.mosquitto import Mosquitto, wait_for

PAGE = re.compile(r"live page: (http://127\.0\.0\.1:\d+/)")
PRESENCE = re.compile(r"(edgepose/demo-[0-9a-f]{8})/main/presence")
DEMO = """
import sys
import edgepose.cli.demo as demo
from edgepose.cli.main import run_command
demo.LOCAL_BROKER = ("127.0.0.1", int(sys.argv[1]))
sys.exit(run_command(["demo", "--source", "synthetic:", *sys.argv[2:]]))
"""


@contextmanager
def running_demo(
    broker: Mosquitto, environment: Mapping[str, str], *arguments: str, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", DEMO, str(broker.port), *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        **options,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def retained(broker: Mosquitto) -> dict[str, bytes]:
    """Return what the broker retains."""
    broker.publish("end", b"x", retain=True)
    with broker.listener() as listener:
        listener.wait_for("end")
        found = {r.topic: r.payload for r in listener.received if r.retain}
    broker.publish("end", b"", retain=True)
    del found["end"]
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_beside_a_service(broker: Mosquitto, tmp_path: Path, number: int) -> None:
    """Client, topics and switches of the service are left alone, and nothing stays behind."""
    config = Config(mqtt=MqttConfig(url=broker.url))
    topics = Topics(node=config.node_name)
    service = MqttSink(config.mqtt.connect_options(config.client_id), topics, cameras=["main"])
    service.set_state(topics.presence("main"), b"ON")
    service.open(require_connection_within_s=20)
    state = tmp_path / "state"
    environment = {"XDG_STATE_HOME": str(state), "XDG_CONFIG_HOME": str(tmp_path)}
    before = retained(broker)
    with (
        broker.listener() as listener,
        running_demo(broker, environment, stdout=subprocess.DEVNULL) as demo,
    ):
        wait_for(lambda: list(filter(PRESENCE.fullmatch, listener.topics())), "the demo's presence")
        found = next(filter(None, map(PRESENCE.fullmatch, listener.topics())))
        root = found[1]
        listener.wait_for(f"{root}/main/presence", b"ON")
        assert retained(broker).keys() > before.keys()
        demo.send_signal(number)
        assert demo.wait(60) == 0
        assert demo.stderr is not None
        errors = demo.stderr.read()
        assert all(word not in errors for word in ("Traceback", "ERROR", "WARNING"))
        published = {r.topic for r in listener.received if not r.retain and r.topic != "end"}
        assert all(topic.startswith(f"{root}/") for topic in published)
    assert retained(broker) == before
    assert service.counters()["reconnects"] == 0
    assert not state.exists()
    service.close()


def test_demo_closed_stdout(broker: Mosquitto) -> None:
    """`edgepose demo | head -1` ends without an error, and nothing stays behind."""
    with running_demo(broker, {}, "--json", stdout=subprocess.PIPE) as demo:
        assert demo.stdout is not None
        assert demo.stdout.readline().startswith("edgepose/demo-")
        demo.stdout.close()
        wait_for(lambda: demo.poll() is not None, "the demo to end")
        assert demo.stderr is not None
        errors = demo.stderr.read()
    assert demo.returncode == 0, errors
    assert "rror" not in errors
    assert retained(broker) == {}


def test_demo_prints_page_and_who_is_there(broker: Mosquitto) -> None:
    """The address of the live page, which is served, and a line of text a second."""
    with running_demo(broker, {}, stdout=subprocess.PIPE) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        address = next(found[1] for line in demo.stderr if (found := PAGE.search(line)))
        lines = (line for line in demo.stdout if "frames a second" in line)
        assert re.fullmatch(r"\d\d:\d\d:\d\d  person 1 .*\(\d+ frames a second\)\n", next(lines))

        def is_served() -> bool:
            try:
                with urllib.request.urlopen(f"{address}healthz", timeout=60) as answer:
                    return bool(answer.read() == b"ok")
            except OSError:
                # The process of the page starts beside the daemon.
                return False

        wait_for(is_served, "the page")
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) == 0
