"""Which failures of a connection are logged, and how long to wait after each."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edgepose.mqtt import diagnostics
from edgepose.mqtt.backoff import Backoff
from edgepose.mqtt.connection import ReasonCode
from edgepose.mqtt.diagnostics import Failure
from edgepose.mqtt.url import BrokerAddress

_log = logging.getLogger("edgepose.mqtt")


@dataclass(frozen=True, slots=True)
class MqttTimeouts:
    """Timeouts of a client, in seconds.

    With `backoff_max_s`, poses are back within 5 s of the broker's return, an attempt included. Two
    clients with the same id disconnect each other at every attempt, so the longest pause between
    those is `takeover_backoff_factor` times as long. Events that the broker leaves unacknowledged
    for `unacknowledged_s` are saved to the disk.
    """

    connect_s: float = 5.0
    answer_s: float = 10.0
    backoff_min_s: float = 1.0
    backoff_max_s: float = 3.0
    takeover_backoff_factor: float = 20.0
    stable_s: float = 30.0
    takeover_memory_s: float = 600.0
    unacknowledged_s: float = 1.0
    close_s: float = 3.0


class FailureLog:
    """Logs each kind of failure once, until the connection has been stable for a while.

    `chance` returns 0..1; used by the network thread only.
    """

    def __init__(
        self, address: BrokerAddress, timeouts: MqttTimeouts, chance: Callable[[], float]
    ) -> None:
        self._address = address
        self._timeouts = timeouts
        self._backoff = Backoff(timeouts.backoff_min_s, timeouts.backoff_max_s, chance)
        self._takeover_backoff = Backoff(
            timeouts.backoff_min_s,
            timeouts.backoff_max_s * timeouts.takeover_backoff_factor,
            chance,
        )
        self._reported: set[str] = set()
        self._refused_topics: set[str] = set()
        self._log_recovery = False

    def backoff(self, failure: Failure) -> Backoff:
        """Return the pauses after a failure."""
        takeover = failure.kind == diagnostics.TAKEN_OVER
        return self._takeover_backoff if takeover else self._backoff

    def failed(self, failure: Failure) -> None:
        """Log a failure of a new kind; others at level debug."""
        new = failure.kind not in self._reported
        self._log_recovery = self._log_recovery or new
        self._reported.add(failure.kind)
        _log.log(
            logging.WARNING if new else logging.DEBUG,
            "%s; trying again, at least every %g s",
            failure.message,
            self.backoff(failure).maximum_s,
        )

    def connected(self, version: str, lost_for_s: float | None, dropped: int) -> None:
        """Log the first connection, and the recovery from a failure that was logged."""
        if lost_for_s is not None and not self._log_recovery:
            return
        self._log_recovery = False
        if lost_for_s is None:
            _log.info("connected to the MQTT broker %s (%s)", self._address.netloc, version)
            return
        _log.info(
            "connected to the MQTT broker %s again (%s) after %.0f s; %d pose messages were "
            "dropped meanwhile",
            self._address.netloc,
            version,
            lost_for_s,
            dropped,
        )

    def refused(self, what: str, topic: str, reason: ReasonCode) -> None:
        """Log that the broker refuses a topic, once for each."""
        if topic in self._refused_topics:
            return
        self._refused_topics.add(topic)
        user = self._address.username
        _log.warning(
            "the MQTT broker %s refuses %s %s (%s): check the access rights of %s there",
            self._address.netloc,
            what,
            topic,
            reason.name,
            "anonymous clients" if user is None else f"user {user!r}",
        )

    @property
    def stable_after_s(self) -> float:
        """How long a connection must stand before its failures are forgotten."""
        taken_over = diagnostics.TAKEN_OVER in self._reported
        return self._timeouts.takeover_memory_s if taken_over else self._timeouts.stable_s

    def forget(self) -> None:
        """Log failures again when they return, and begin with the shortest pause."""
        self._reported.clear()
        self._backoff.reset()
        self._takeover_backoff.reset()
