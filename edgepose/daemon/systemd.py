"""Notifications to systemd; without a service manager they do nothing.

The protocol is that of sd_notify(3): datagrams to the socket named by NOTIFY_SOCKET.
"""

import contextlib
import os
import socket


def has_service_manager() -> bool:
    """Return whether a service manager started this process and waits for its notifications."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def notify(state: str) -> None:
    """Send a state to the service manager, such as `READY=1`."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address[0] == "@":
        # An abstract socket.
        address = "\0" + address[1:]
    # Without an error if the service manager went away; the daemon goes on.
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.connect(address)
        sender.sendall(state.encode())


def watchdog_interval_ns() -> int | None:
    """Return the watchdog interval of the unit, None if it has none or is not for this process."""
    pid = os.environ.get("WATCHDOG_PID")
    if pid and pid != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) * 1000 if microseconds.isdigit() and int(microseconds) else None
