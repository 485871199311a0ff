"""What a service manager hears of the daemon, on a real socket with real signals."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from edgepose.daemon import daemon as daemon_module
from edgepose.daemon.camera import CameraSupervisor, InferenceThread, Waiting
from edgepose.daemon.daemon import Eyes, SwitchFile
from edgepose.daemon.systemd import Notifier
from edgepose.inference.failover import SingleModel
from edgepose.mqtt.topics import Topics
from edgepose.sinks.mqtt import MqttSink
from tests.daemon import CAMERA, NODE, Daemon, running
from tests.integration.test_daemon import make_clip
from tests.mosquitto import Mosquitto, wait_for
from tests.unit.test_failover import model

SECOND_NS = 1_000_000_000


class Manager:
    """Listens where systemd would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            self.heard.append(message.decode())

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self.path))
        self._thread.join(5)
        self._socket.close()

    def count(self, start: str) -> int:
        return sum(message.startswith(start) for message in self.heard)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    listening = Manager(tmp_path / "notify")
    yield listening
    listening.close()


def test_a_life_under_a_service_manager(
    tmp_path: Path, broker: Mosquitto, manager: Manager
) -> None:
    environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "2000000"}
    with (
        broker.listener() as listener,
        running(tmp_path, broker, environment=environment) as daemon,
    ):
        wait_for(lambda: manager.count("READY=1") == 1, "readiness")
        assert "STATUS=movenet-lightning-int8 looks on cpu" in manager.heard[0] + manager.heard[1]
        wait_for(lambda: manager.count("WATCHDOG=1") > 3, "the watchdog to be fed")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: manager.count("READY=1") == 2, "readiness after the reload")
        (reloading,) = (text for text in manager.heard if text.startswith("RELOADING=1"))
        assert int(reloading.partition("MONOTONIC_USEC=")[2]) > 0
        daemon.configure("no_such_key: 1\n")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: manager.count("READY=1") == 3, "readiness after a refused reload")
        listener.wait_for(f"{CAMERA}/poses")
        assert daemon.end()[0] == 0
        wait_for(lambda: manager.heard[-1] == "STOPPING=1", "the farewell")


def test_a_service_waits_for_a_broker_that_is_away(
    tmp_path: Path, broker: Mosquitto, manager: Manager
) -> None:
    broker.stop()
    environment = {"NOTIFY_SOCKET": str(manager.path)}
    with running(tmp_path, broker, environment=environment) as daemon:
        wait_for(lambda: manager.count("READY=1") == 1, "readiness without a broker")
        broker.start()
        with broker.listener() as listener:
            listener.wait_for(f"{CAMERA}/poses")
        assert daemon.end()[0] == 0


def test_a_service_waits_for_a_camera_that_is_away(
    tmp_path: Path, broker: Mosquitto, manager: Manager
) -> None:
    """Ending at once, it flapped between online and offline for as long as systemd restarted it."""
    clip = tmp_path / "later.mp4"
    environment = {"NOTIFY_SOCKET": str(manager.path)}
    with (
        broker.listener() as listener,
        running(tmp_path, broker, f"{clip}?loop=1", environment=environment) as daemon,
    ):
        listener.wait_for(f"{CAMERA}/status", b"offline")
        wait_for(lambda: manager.count("READY=1") == 1, "readiness")
        make_clip(tmp_path / "now.mp4", frames=20).rename(clip)
        listener.wait_for(f"{CAMERA}/status", b"online")
        listener.wait_for(f"{CAMERA}/poses")
        assert listener.payloads(f"{NODE}/availability") == [b"online"]
        code, _, stderr = daemon.end()
    assert code == 0
    assert stderr.count("no such file") == 1
    assert "delivers frames again" in stderr


def test_one_camera_of_two_may_come_later(tmp_path: Path, broker: Mosquitto) -> None:
    clip = tmp_path / "later.mp4"
    config = (
        "cameras:\n"
        "  - {name: main, source: 'synthetic:?fps=10'}\n"
        f"  - {{name: yard, source: '{clip}?loop=1'}}\n"
    )
    daemon = Daemon(tmp_path, "--mqtt", broker.url, config=config)
    try:
        with broker.listener() as listener:
            listener.wait_for(f"{CAMERA}/poses")
            make_clip(tmp_path / "now.mp4", frames=20).rename(clip)
            listener.wait_for(f"{NODE}/yard/poses")
    finally:
        assert daemon.end()[0] == 0


class Hanging:
    """A camera runner whose model hangs until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def has_news(self) -> bool:
        return True

    def prepare(self) -> Waiting | None:
        self.let_go.wait(60)
        return None


def test_the_watchdog_starves_when_the_looking_hangs(tmp_path: Path) -> None:
    """Fed by the main loop alone, a hanging model would have gone unnoticed for ever."""
    daemon = silent_daemon(tmp_path, None)
    hanging = Hanging()
    looking = daemon._looking = InferenceThread(
        [cast("CameraSupervisor", hanging)], threading.Condition(), threading.Lock()
    )
    looking.start()
    wait_for(lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME) > looking.turned_ns, "a turn")
    turned_ns = looking.turned_ns
    assert daemon._makes_progress(turned_ns + SECOND_NS, 2 * SECOND_NS)
    assert not daemon._makes_progress(turned_ns + 3 * SECOND_NS, 2 * SECOND_NS)
    hanging.let_go.set()
    wait_for(lambda: looking.turned_ns > turned_ns, "turning again")
    looking.close()


def test_the_watchdog_starves_when_the_publishing_died(tmp_path: Path) -> None:
    class Sink:
        alive = True

        def set_state(self, topic: str, payload: bytes) -> None: ...

    sink = Sink()
    daemon = silent_daemon(tmp_path, cast("MqttSink", sink))
    now_ns = daemon._looking.turned_ns
    assert daemon._makes_progress(now_ns, SECOND_NS)
    sink.alive = False
    assert not daemon._makes_progress(now_ns, SECOND_NS)


def silent_daemon(folder: Path, mqtt: MqttSink | None) -> daemon_module.Daemon:
    eyes = Eyes([], SingleModel(model("cpu", "cpu")))
    return daemon_module.Daemon(
        eyes,
        [],
        mqtt,
        Topics(node="node"),
        stats_interval_ns=SECOND_NS,
        switch_file=SwitchFile(folder / "switches.json"),
        notifier=Notifier(""),
        reload=lambda: eyes,
    )
