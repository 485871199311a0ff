"""Notifications to systemd; without a service manager they do nothing.

The protocol is that of sd_notify(3): datagrams to the socket named by NOTIFY_SOCKET.
"""

import contextlib
import os
import socket
from typing import Final

SEND_TIMEOUT_S: Final = 1.0


def has_service_manager() -> bool:
    """Return whether a service manager started this process and waits for its notifications."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


class Notifier:
    """Sends states to the service manager, such as `READY=1`.

    Its socket is opened once: later the process may have no descriptor left, and the watchdog must
    be served all the same.
    """

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        # `@` is an abstract socket.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def send(self, state: str, *, wait: bool = True) -> None:
        """Send a state, waiting 1 s at most if the service manager is busy, or not at all.

        Without an error if the service manager went away.
        """
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.settimeout(SEND_TIMEOUT_S if wait else 0)
                self._socket.sendto(state.encode(errors="replace"), self._address)

    def close(self) -> None:
        """Close the socket; later states are not sent."""
        if self._socket is not None:
            self._socket.close()


def watchdog_interval_ns() -> int | None:
    """Return the watchdog interval of the unit, None if it has none or is not for this process."""
    pid = os.environ.get("WATCHDOG_PID")
    if pid and pid != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) * 1000 if microseconds.isdigit() and int(microseconds) else None
