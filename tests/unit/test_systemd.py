"""Notifications to systemd, byte for byte, on a real socket."""

import contextlib
import os
import resource
import socket
from pathlib import Path

import pytest

from edgepose.daemon.systemd import Notifier, has_service_manager, watchdog_interval_ns


def test_notify_sends_to_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        assert has_service_manager()
        notifier = Notifier()
        notifier.send("READY=1")
        notifier.send("STATUS=running")
        received = [listener.recv(100) for _ in range(2)]
        notifier.close()
        notifier.send("WATCHDOG=1")
    assert received == [b"READY=1", b"STATUS=running"]


def test_notify_busy_service_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not wait is lost if the queue is full, and nothing else is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier()
        for _ in range(2000):
            notifier.send("WATCHDOG=1", wait=False)
        received = []
        with contextlib.suppress(BlockingIOError):
            while True:
                received.append(server.recv(64))
        assert 0 < len(received) < 2000
        notifier.send("WATCHDOG=1", wait=False)
        assert server.recv(64) == b"WATCHDOG=1"
        notifier.close()


def test_notify_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"edgepose-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notifier = Notifier()
        notifier.send("READY=1")
        assert listener.recv(100) == b"READY=1"
        notifier.close()


def test_notify_without_a_free_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket for each notification: with no descriptor left, the watchdog ended the daemon."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notifier = Notifier()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            notifier.send("WATCHDOG=1")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert listener.recv(100) == b"WATCHDOG=1"
        notifier.close()


def test_notify_without_a_service_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends nothing and raises nothing."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not has_service_manager()
    Notifier().send("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notifier = Notifier()
    notifier.send("READY=1")
    notifier.close()


@pytest.mark.parametrize(
    ("microseconds", "pid", "expected"),
    [
        ("3000000", None, 3_000_000_000),
        ("3000000", "own", 3_000_000_000),
        ("3000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_watchdog_interval_only_if_requested(
    monkeypatch: pytest.MonkeyPatch,
    microseconds: str | None,
    pid: str | None,
    expected: int | None,
) -> None:
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(os.getpid()) if value == "own" else value)
    assert watchdog_interval_ns() == expected
