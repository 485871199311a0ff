"""The daemon's notifications to a service manager, on a real socket with real signals."""

import json
import resource
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepose.mqtt.local_broker import free_port
from edgepose.registry.registry import default_registry
from tests.daemon import CAMERA, NODE, Daemon, last, running, wait_for_last, wait_for_more_poses
from tests.media import make_clip
from tests.mosquitto import Listener, Mosquitto, wait_for

SECOND_NS = 1_000_000_000


class Manager:
    """Receives notifications on a socket, as systemd does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while message := self._socket.recv(4096):
            self.received.append(message.decode())

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self.path))
        self._thread.join(5)
        self._socket.close()

    def count(self, start: str) -> int:
        return sum(message.startswith(start) for message in self.received)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    listening = Manager(tmp_path / "notify")
    yield listening
    listening.close()


def test_daemon_notifies_service_manager(
    tmp_path: Path, broker: Mosquitto, manager: Manager
) -> None:
    environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "2000000"}
    with (
        broker.listener() as listener,
        running(tmp_path, broker, environment=environment) as daemon,
    ):
        wait_for(lambda: manager.count("READY=1") == 1, "readiness")
        assert (
            "STATUS=running movenet-lightning-int8 on cpu"
            in manager.received[0] + manager.received[1]
        )
        wait_for(lambda: manager.count("WATCHDOG=1") > 3, "watchdog pings")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: manager.count("READY=1") == 2, "readiness after the reload")
        (reloading,) = (text for text in manager.received if text.startswith("RELOADING=1"))
        assert int(reloading.partition("MONOTONIC_USEC=")[2]) > 0
        daemon.configure("no_such_key: 1\n")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: manager.count("READY=1") == 3, "readiness after a refused reload")
        listener.wait_for(f"{CAMERA}/poses")
        assert daemon.end()[0] == 0
        wait_for(lambda: manager.received[-1] == "STOPPING=1", "the notification of the stop")


def test_daemon_as_service_waits_for_broker(
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


def test_daemon_as_service_waits_for_the_same_node(
    tmp_path: Path, broker: Mosquitto, manager: Manager
) -> None:
    """A second daemon with this node does not disturb the first one, and takes over from it."""
    environment = {"NOTIFY_SOCKET": str(manager.path)}
    with broker.listener() as listener, running(tmp_path, broker) as first:
        listener.wait_for(f"{CAMERA}/poses")
        with running(tmp_path, broker) as by_hand:
            code, _, errors = by_hand.wait()
        assert code == 1
        assert f"{tmp_path}/state/nodes/testnode: another edgepose" in errors
        assert f"process {first.process.pid}" in errors
        with running(tmp_path, broker, environment=environment) as service:
            wait_for(lambda: manager.count("READY=1\nWATCHDOG=1\nSTATUS=waiting: ") > 1, "a wait")
            assert listener.payloads(f"{NODE}/availability") == [b"online"]
            first.end(signal.SIGKILL)
            wait_for_last(listener, f"{NODE}/availability", b"offline")
            wait_for_last(listener, f"{NODE}/availability", b"online")
            code, _, errors = service.end()
    assert code == 0
    assert errors.count("trying again until it succeeds") == 1


def test_daemon_as_service_stops_while_it_waits(
    tmp_path: Path, broker: Mosquitto, manager: Manager
) -> None:
    environment = {"NOTIFY_SOCKET": str(manager.path)}
    with broker.listener() as listener, running(tmp_path, broker):
        listener.wait_for(f"{CAMERA}/poses")
        with running(tmp_path, broker, environment=environment) as service:
            wait_for(lambda: manager.count("READY=1") == 1, "a wait")
            assert service.end()[0] == 0


def reopened(listener: Listener) -> int:
    """Return how often the camera was opened after a failure."""
    stats = last(listener, f"{NODE}/stats")
    count: int = 0 if stats is None else json.loads(stats)["cameras"]["main"]["reopened"]
    return count


def test_daemon_as_service_waits_for_camera(
    tmp_path: Path, broker: Mosquitto, manager: Manager
) -> None:
    """It does not end: systemd would restart it again and again, with changing availability."""
    clip = tmp_path / "later.mp4"
    environment = {"NOTIFY_SOCKET": str(manager.path)}
    with (
        broker.listener() as listener,
        running(tmp_path, broker, f"{clip}?loop=1", environment=environment) as daemon,
    ):
        listener.wait_for(f"{CAMERA}/status", b"offline")
        wait_for(lambda: manager.count("READY=1") == 1, "readiness")
        wait_for(lambda: reopened(listener), "another attempt")
        make_clip(tmp_path / "now.mp4", frames=20).rename(clip)
        listener.wait_for(f"{CAMERA}/status", b"online")
        listener.wait_for(f"{CAMERA}/poses")
        assert listener.payloads(f"{NODE}/availability") == [b"online"]
        code, _, stderr = daemon.end()
    assert code == 0
    assert stderr.count("no such file") == 1
    assert "delivers frames again" in stderr


def test_daemon_as_service_waits_for_model_file(
    tmp_path: Path, broker: Mosquitto, manager: Manager
) -> None:
    """A file on a mount that comes later is waited for, with the reason in the status, not exit 2.

    While it waits, a configuration with an error is one that is being edited.
    """
    model = tmp_path / "later.tflite"
    waiting = f"READY=1\nWATCHDOG=1\nSTATUS=waiting: {model}: no such model file"
    environment = {"NOTIFY_SOCKET": str(manager.path)}
    config = f"model: {{name: {model.name}}}\n"
    with (
        broker.listener() as listener,
        running(tmp_path, broker, config=config, environment=environment) as daemon,
    ):
        wait_for(lambda: manager.count(waiting) > 1, "a wait")
        daemon.configure("no_such_key: 1\n")
        wait_for(lambda: "no_such_key: unknown key" in manager.received[-1], "a longer wait")
        daemon.configure(config)
        shutil.copy(default_registry().resolve("movenet-lightning-int8").path, model)
        listener.wait_for(f"{CAMERA}/poses")
        code, _, errors = daemon.end()
    assert code == 0
    assert errors.count("no such model file") == 1


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("password_file: later, username: u", "the password cannot be read"),
        ("tls: {ca_file: later}", "the certificate or key cannot be read"),
    ],
    ids=["password", "certificate"],
)
def test_daemon_as_service_waits_for_files_of_the_broker(
    tmp_path: Path, manager: Manager, key: str, reason: str
) -> None:
    """A password or a CA file that is missing does not end the service; it is named once."""
    url = f"{'mqtts' if 'tls' in key else 'mqtt'}://127.0.0.1:{free_port()}"
    daemon = Daemon(
        tmp_path,
        *("--source", "synthetic:"),
        config=f"mqtt: {{url: '{url}', {key}}}\n",
        environment={"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "2000000"},
    )
    try:
        wait_for(lambda: manager.count("WATCHDOG=1") > 5, "a running daemon")
        (tmp_path / "later").write_text("x")
    finally:
        code, _, stderr = daemon.end()
    assert code == 0
    assert stderr.count(f"{tmp_path}/later: {reason} (No such file or directory)") == 1


def test_daemon_at_terminal_does_not_wait(tmp_path: Path, broker: Mosquitto) -> None:
    """A missing model ends the command with one line."""
    with running(tmp_path, broker, config="model: {name: never.tflite}\n") as daemon:
        code, _, errors = daemon.wait()
    assert code == 1
    assert len(errors.splitlines()) == 1
    assert f"{tmp_path}/never.tflite: no such model file" in errors


def test_daemon_as_service_second_camera_appears_later(tmp_path: Path, broker: Mosquitto) -> None:
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


def test_daemon_without_a_free_descriptor_goes_on(
    tmp_path: Path, broker: Mosquitto, manager: Manager
) -> None:
    """The statistics, or a watchdog without its socket, ended the daemon."""
    environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "2000000"}
    with (
        broker.listener() as listener,
        running(tmp_path, broker, environment=environment) as daemon,
    ):
        wait_for(lambda: len(listener.payloads(f"{NODE}/stats")) > 1, "statistics")
        process = daemon.process.pid
        limits = resource.prlimit(process, resource.RLIMIT_NOFILE)
        resource.prlimit(process, resource.RLIMIT_NOFILE, (3, limits[1]))
        counts = manager.count("WATCHDOG=1"), len(listener.payloads(f"{NODE}/stats"))
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: manager.count("WATCHDOG=1") > counts[0] + 3, "watchdog pings")
        wait_for(lambda: len(listener.payloads(f"{NODE}/stats")) > counts[1] + 1, "statistics")
        wait_for_more_poses(listener)
        wait_for(lambda: manager.count("READY=1") == 2, "the end of the reload")
        resource.prlimit(process, resource.RLIMIT_NOFILE, limits)
        code, _, stderr = daemon.end()
    assert code == 0
    assert "reload failed, keeping the previous configuration" in stderr


def test_daemon_prints_the_stack_of_each_thread_on_sigabrt(
    tmp_path: Path, broker: Mosquitto
) -> None:
    """The watchdog of systemd sends it; without the stacks, what hung is never known."""
    with broker.listener() as listener, running(tmp_path, broker) as daemon:
        listener.wait_for(f"{CAMERA}/poses")
        code, _, stderr = daemon.end(signal.SIGABRT)
    assert code == -signal.SIGABRT
    for name in ("daemon/daemon.py", "daemon/inference_thread.py", "mqtt/connection.py"):
        assert name in stderr
