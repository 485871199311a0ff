"""Which failures of a connection are logged, and how long to wait after each."""

import logging
import math
import random
import time
from typing import Final

from edgepose.mqtt import diagnostics
from edgepose.mqtt.backoff import Backoff
from edgepose.mqtt.diagnostics import Failure
from edgepose.mqtt.options import ConnectOptions, Protocol

_log = logging.getLogger("edgepose.mqtt")

_DISCONNECTS_TO_SUSPECT: Final = 3


class FailureLog:
    """Logs each kind of failure once, until the connection has been stable for a while.

    Used by the network thread only.
    """

    def __init__(self, options: ConnectOptions) -> None:
        self._options = options
        self._timeouts = timeouts = options.timeouts
        longest_s = timeouts.backoff_max_s
        self._backoff = Backoff(timeouts.backoff_min_s, longest_s, random.random)
        self._takeover_backoff = Backoff(
            timeouts.backoff_min_s, longest_s * timeouts.takeover_backoff_factor, random.random
        )
        self._reported: set[str] = set()
        self._refused: set[str] = set()
        self._log_recovery = True
        self._connected_at = math.inf
        self._lost_at, self._dropped_before = time.monotonic(), 0
        self._unexplained = 0

    def is_repeated(self, failure: Failure) -> bool:
        """Whether several connections in succession ended soon and without a reason."""
        self._unexplained = self._unexplained + 1 if failure.kind == diagnostics.LOST else 0
        return self._unexplained >= _DISCONNECTS_TO_SUSPECT

    def failed(self, failure: Failure, message: str, dropped: int) -> float:
        """Log a failure, at level debug if its kind is not new; return how long to wait, in s."""
        new = failure.kind not in self._reported
        self._reported.add(failure.kind)
        self._log_recovery = self._log_recovery or new
        if math.isfinite(self._connected_at):
            self._lost_at, self._dropped_before = time.monotonic(), dropped
        self._connected_at = math.inf
        takeover = failure.kind == diagnostics.TAKEN_OVER
        backoff = self._takeover_backoff if takeover else self._backoff
        _log.log(
            logging.WARNING if new else logging.DEBUG,
            "%s; trying again, at least every %g s",
            message,
            backoff.maximum_s,
            # The reason in the text may differ between clients that lose a broker together.
            extra={"failure": failure.kind},
        )
        return backoff.next_s()

    def connected(self, protocol: Protocol, dropped: int) -> None:
        """Log the first connection, and the recovery from a failure that was logged."""
        version = f"MQTT {protocol}{', TLS' if self._options.address.tls else ''}"
        if protocol != self._options.protocol:
            version += f"; the broker does not know MQTT {self._options.protocol}"
        self._connected_at = time.monotonic()
        if self._log_recovery:
            _log.info(
                "connected to the MQTT broker %s (%s) after %.0f s; %d pose messages were dropped",
                self._options.address.netloc,
                version,
                self._connected_at - self._lost_at,
                dropped - self._dropped_before,
            )
        self._log_recovery = False

    def refused(self, failure: Failure) -> None:
        """Log what the broker does not take, once."""
        if failure.kind not in self._refused:
            self._refused.add(failure.kind)
            _log.warning("the MQTT broker %s %s", self._options.address.netloc, failure)

    def check_stable(self) -> bool:
        """Log failures again when they return, and wait shortly, once a connection is stable.

        Return whether it lasted so long that what the broker did wrong can be forgotten.
        """
        stood_s = time.monotonic() - self._connected_at
        if stood_s >= self._timeouts.stable_s:
            self._unexplained = 0
        takeover = diagnostics.TAKEN_OVER in self._reported
        if stood_s >= (self._timeouts.memory_s if takeover else self._timeouts.stable_s):
            self._reported.clear()
            self._backoff.reset()
            self._takeover_backoff.reset()
        return stood_s >= self._timeouts.memory_s
