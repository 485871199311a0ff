"""Notifications to systemd; without a service manager they do nothing.

The protocol is that of sd_notify(3): datagrams to the socket named by NOTIFY_SOCKET.
"""

import os
import socket
import time


class Notifier:
    """Reports the daemon's state to the service manager."""

    def __init__(self, address: str | None = None) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET") if address is None else address

    @property
    def enabled(self) -> bool:
        """Whether a service manager listens."""
        return bool(self._address)

    def ready(self) -> None:
        """Report that the daemon is running."""
        self._send(b"READY=1")

    def reloading(self) -> None:
        """Report that the configuration is being reloaded; `ready` ends it."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}".encode())

    def stopping(self) -> None:
        """Report that the daemon is stopping."""
        self._send(b"STOPPING=1")

    def watchdog_ping(self) -> None:
        """Report that the daemon makes progress."""
        self._send(b"WATCHDOG=1")

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send(b"STATUS=" + text.replace("\n", " ").encode())

    def _send(self, state: bytes) -> None:
        if not self._address:
            return
        # A leading @ names an abstract socket.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.connect(address)
                sender.sendall(state)
        except OSError:
            # The service manager went away; the daemon goes on.
            return


def watchdog_interval_ns() -> int | None:
    """Return the watchdog interval of the unit, None if it has none or is not for this process."""
    pid = os.environ.get("WATCHDOG_PID")
    if pid and pid != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) * 1000 if microseconds.isdigit() and int(microseconds) else None
