"""Which failures of a connection are logged, and how long to wait after each."""

import logging
import math
import random
import time
from typing import Final

from paho.mqtt.reasoncodes import ReasonCode

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

    def explained(self, failure: Failure) -> Failure:
        """Return a failure, or the likely reason of several without a reason in succession.

        MQTT 3.1.1 gives no reason, but a second client with our id ends every connection soon.
        """
        self._unexplained = self._unexplained + 1 if failure.kind == diagnostics.LOST else 0
        if self._unexplained < _DISCONNECTS_TO_SUSPECT:
            return failure
        return diagnostics.repeated_disconnects(self._options.client_id)

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

    def refused(self, subject: str, code: ReasonCode) -> None:
        """Log what the broker refuses, once."""
        if subject in self._refused:
            return
        self._refused.add(subject)
        address = self._options.address
        _log.warning(
            "the MQTT broker %s refuses %s (%s): check the access rights of %s there",
            address.netloc,
            subject,
            str(code).lower(),
            "anonymous clients" if address.username is None else f"user {address.username!r}",
        )

    def check_stable(self) -> None:
        """Log failures again when they return, and wait shortly, once a connection is stable."""
        stood_s = time.monotonic() - self._connected_at
        if stood_s >= self._timeouts.stable_s:
            self._unexplained = 0
        takeover = diagnostics.TAKEN_OVER in self._reported
        if stood_s >= (self._timeouts.takeover_memory_s if takeover else self._timeouts.stable_s):
            self._reported.clear()
            self._backoff.reset()
            self._takeover_backoff.reset()
