"""The notifications to systemd, byte for byte, on a real socket."""

import os
import socket
from pathlib import Path

import pytest

from edgepose.daemon.systemd import Notifier, watchdog_interval_ns


def test_notifier_sends_every_state(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(5)
        notifier = Notifier(str(path))
        assert notifier.enabled
        notifier.ready()
        notifier.watchdog_ping()
        notifier.status("two\nlines")
        notifier.stopping()
        received = [listener.recv(100) for _ in range(4)]
    assert received == [b"READY=1", b"WATCHDOG=1", b"STATUS=two lines", b"STOPPING=1"]


def test_notifier_abstract_socket() -> None:
    name = f"edgepose-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(5)
        Notifier(f"@{name}").ready()
        assert listener.recv(100) == b"READY=1"


def test_notifier_without_listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends nothing and raises nothing."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not Notifier().enabled
    Notifier().ready()
    Notifier(str(tmp_path / "gone")).ready()


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
def test_notifier_watchdog_only_if_requested(
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
