"""MQTT client: one network thread, automatic reconnect, bounded queues, rate-limited logging."""

import errno
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from edgepose.errors import BrokerError
from edgepose.mqtt import diagnostics
from edgepose.mqtt.connection import (
    ConnectOptions,
    LastWill,
    MqttConnection,
    Protocol,
    UnreadableError,
)
from edgepose.mqtt.diagnostics import Failure
from edgepose.mqtt.event_store import EventStore
from edgepose.mqtt.failure_log import FailureLog, MqttTimeouts
from edgepose.mqtt.outbox import Outbox, Outgoing
from edgepose.mqtt.rate_limit import RateLimitedLogger
from edgepose.mqtt.tls import tls_context
from edgepose.mqtt.url import BrokerAddress, Secret, TlsFiles

_log = logging.getLogger("edgepose.mqtt")

_KEEP_ALIVE_TIMEOUT: Final = 0x8D
_TAKEOVERS_TO_SUSPECT: Final = 3
_DEAD_LINK: Final = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
_POLL_S: Final = 0.25
"""How long the network thread waits at most; a request to close is seen within it."""


class MqttClient:
    """A connection to a broker that is restored whenever it is lost.

    On every connect: subscriptions, states in the order in which they were first set, events, then
    the last will's `online_payload`, and only then transient messages. An event may arrive twice.
    Each kind of failure is logged once, until the connection has been stable for a while; attempts
    go on with backoff.

    `protocol` "5" falls back to 3.1.1 if the broker does not know 5. A handler of `subscriptions`
    gets the payload, on the network thread; it raises ValueError with a message for an invalid one.
    Raises ConfigError for TLS files that cannot be used.
    """

    def __init__(
        self,
        *,
        address: BrokerAddress,
        client_id: str,
        store: EventStore,
        username: str | None = None,
        password: Secret | None = None,
        tls: TlsFiles | None = None,
        protocol: Protocol = "5",
        keepalive_s: int = 10,
        will: LastWill | None = None,
        subscriptions: Mapping[str, Callable[[bytes], None]] | None = None,
        max_transient: int = 32,
        timeouts: MqttTimeouts | None = None,
        chance: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        user = address.username if username is None else username
        self._address = BrokerAddress(address.host, address.port, address.tls, user)
        self._timeouts = timeouts or MqttTimeouts()
        self._options = ConnectOptions(
            self._address,
            client_id,
            password,
            tls_context(tls or TlsFiles()) if address.tls else None,
            keepalive_s,
            self._timeouts.connect_s,
            will,
        )
        self._subscriptions = dict(subscriptions or {})
        self._monotonic = monotonic
        self._outbox = Outbox(store, max_transient=max_transient)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

        # Under the outbox's lock: whoever holds it may publish.
        self._changed = self._outbox.changed
        self._connection: MqttConnection | None = None
        self._online = False
        self._connections = 0
        self._failure: Failure | None = None
        self._log_failures = True

        # The network thread's own.
        self._wanted_protocol: Protocol = protocol
        self._protocol: Protocol = protocol
        self._version_settled = False
        self._failure_log = FailureLog(self._address, self._timeouts, chance)
        self._invalid_commands = RateLimitedLogger(_log, monotonic)
        self._lost_at: float | None = None
        self._dropped_before = 0
        self._takeovers = 0
        self._close_by = 0.0

    # -- called by other threads -------------------------------------------------------------

    def open(self, *, require_connection_within_s: float | None = None) -> None:
        """Start connecting; return at once, or once connected if required.

        Raises BrokerError with the first reason why it cannot connect, only if required.
        """
        if self._thread.ident is not None or self._closing.is_set():
            return
        context = self._options.tls_context
        if context is not None and context.verify_mode is ssl.CERT_NONE:
            _log.warning(
                "the certificate of the MQTT broker %s is not verified (TLS is set to insecure): "
                "anyone in between can read and change all messages",
                self._address.netloc,
            )
        self._log_failures = require_connection_within_s is None
        self._thread.start()
        if require_connection_within_s is None:
            return
        with self._changed:
            self._changed.wait_for(
                lambda: self._online or self._failure is not None, require_connection_within_s
            )
            self._log_failures = True
            online, failure = self._online, self._failure
        if not online:
            self.close()
            if failure is None:
                failure = diagnostics.silent(self._address, require_connection_within_s)
            raise BrokerError(failure.message)

    def set_state(self, topic: str, payload: bytes, qos: int) -> None:
        """Publish a retained state; nothing is sent if it did not change."""
        self._outbox.set_state(topic, payload, qos)
        self._send_pending()

    def send_event(self, topic: str, payload: bytes) -> None:
        """Publish an event; it arrives, in order, as soon as the broker is reachable."""
        self._outbox.add_event(topic, payload)
        self._send_pending()

    def send_transient(self, topic: str, payload: bytes, *, wait_s: float | None = None) -> bool:
        """Publish a message that is worthless later; return False if it was dropped.

        With `wait_s`, wait that long for the broker and for room, instead of dropping at once.
        """
        accepted = self._outbox.add_transient(topic, payload, wait_s=wait_s)
        self._send_pending()
        return accepted

    @property
    def online(self) -> bool:
        """Whether the broker is connected and has all states."""
        return self._online

    @property
    def alive(self) -> bool:
        """Whether the network thread runs; without it there would never be a connection again."""
        return self._thread.ident is None or self._thread.is_alive()

    @property
    def failure(self) -> str | None:
        """The reason why there is no connection; None while there is one."""
        failure = self._failure
        return None if failure is None else failure.message

    def counters(self) -> dict[str, int | bool]:
        """Return the counters of the `stats` message."""
        with self._changed:
            return {
                "connected": self._online,
                "published": self._outbox.published,
                "dropped_poses": self._outbox.dropped_transient,
                "waiting_events": self._outbox.waiting_events,
                "dropped_events": self._outbox.dropped_events,
                "reconnects": max(0, self._connections - 1),
            }

    def close(self) -> None:
        """Send what waits and the offline payload, for `close_s` at most; twice is fine."""
        if not self._closing.is_set():
            self._close_by = self._monotonic() + self._timeouts.close_s
            self._closing.set()
        self._outbox.close()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            # A name lookup cannot be interrupted; the thread then ends later.
            self._thread.join(self._timeouts.close_s + 0.5)
        self._online = False
        self._outbox.close_store()

    # -- the network thread ------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                failure = self._connect_and_serve()
            except Exception as error:  # noqa: BLE001 - a bug must not end the thread
                failure = diagnostics.internal_error(self._address, error)
                _log.debug("%s", failure.message, exc_info=True)
            if failure is None or self._closing.is_set() or self._fall_back_to_311(failure):
                self._on_offline(None)
                continue
            self._on_offline(failure)
            if self._log_failures:
                self._failure_log.failed(failure)
            self._closing.wait(self._failure_log.backoff(failure).next_s())

    def _connect_and_serve(self) -> Failure | None:
        """Connect and serve the connection until it ends; return why, None if it was closed."""
        connection = MqttConnection(
            self._options,
            self._protocol,
            topics=tuple(self._subscriptions),
            receive=self._on_message,
        )
        try:
            connection.connect()
        except (OSError, ValueError) as error:
            return diagnostics.connect_failure(error, self._address)
        try:
            refusal = self._await_connack(connection)
            if refusal is not None or self._closing.is_set():
                return refusal
            return self._serve(connection)
        except UnreadableError as error:
            _log.debug("unreadable packet", exc_info=True)
            return diagnostics.unreadable(self._address, str(error))
        finally:
            connection.close()

    def _await_connack(self, connection: MqttConnection) -> Failure | None:
        answer_by = self._monotonic() + self._timeouts.answer_s
        while connection.connack is None and not self._closing.is_set():
            if not connection.open:
                hung = _is_keep_alive_timeout(connection)
                return (
                    diagnostics.silent(self._address, self._options.keepalive_s)
                    if hung
                    else diagnostics.ended_before_answer(self._address, connection.socket_error)
                )
            left_s = answer_by - self._monotonic()
            if left_s <= 0:
                return diagnostics.silent(self._address, self._timeouts.answer_s)
            connection.serve(min(left_s, _POLL_S))
        connack = connection.connack
        if connack is None or not connack.is_error:
            return None
        return diagnostics.refused_by_broker(
            connack.code,
            connack.name,
            self._address,
            password=self._options.password is not None,
        )

    def _serve(self, connection: MqttConnection) -> Failure | None:
        """Serve an accepted connection until it ends or is closed."""
        since = self._monotonic()
        self._settle_version()
        self._outbox.requeue_all()
        with self._changed:
            self._connection = connection
        stable = False
        denied: str | None = None
        check_at = since + self._timeouts.unacknowledged_s
        oldest = self._outbox.oldest_event_id
        while connection.open:
            if self._closing.is_set():
                self._shut_down(connection)
                return None
            if self._send_pending() and not self._online:
                self._on_online(connection)
                self._send_pending()
            connection.serve(_POLL_S)
            denied = self._process_acks(connection) or denied
            now = self._monotonic()
            if now >= check_at:
                check_at = now + self._timeouts.unacknowledged_s
                oldest, before = self._outbox.oldest_event_id, oldest
                if oldest is not None and oldest == before:
                    self._outbox.save_events()
            if self._online and not stable and now - since >= self._failure_log.stable_after_s:
                stable = True
                self._takeovers = 0
                self._failure_log.forget()
        return self._diagnose(connection, since, denied)

    # -- sending -----------------------------------------------------------------------------

    def _send_pending(self) -> bool:
        """Hand over what is due, as far as the window allows; return whether all states are sent.

        Any thread may call it: the lock keeps the order, and paho wakes the network thread.
        """
        with self._changed:
            connection = self._connection
            if connection is None:
                return False
            while connection.has_window:
                if (message := self._outbox.next_reliable()) is None:
                    break
                connection.publish(message)
            else:
                return False
            while self._online and connection.takes_transient:
                if (message := self._outbox.next_transient()) is None:
                    break
                connection.publish(message)
        return True

    def _process_acks(self, connection: MqttConnection) -> str | None:
        """Remove acknowledged events; return the topic of a message that the broker refused."""
        refused = []
        with self._changed:
            for message, reason in connection.acknowledged():
                if reason.is_error:
                    refused.append((message.topic, reason))
                if message.event is not None:
                    self._outbox.acknowledge(message.event)
        for topic, reason in refused:
            self._failure_log.refused("messages on", topic, reason)
        while connection.refused_topics:
            topic, reason = connection.refused_topics.pop()
            self._failure_log.refused("the subscription to", topic, reason)
        return refused[-1][0] if refused else None

    def _shut_down(self, connection: MqttConnection) -> None:
        """Send what waits for half of the time left, and then that we are offline."""
        half = self._close_by - self._timeouts.close_s / 2
        self._serve_until(connection, half, lambda: self._outbox.empty and connection.idle)
        if not connection.open:
            return
        with self._changed:
            self._connection = None
            connection.forget_unacknowledged()
            if (will := self._options.will) is not None:
                connection.publish(Outgoing(will.topic, will.offline_payload, 1, retain=True))
        self._serve_until(connection, self._close_by, lambda: connection.idle)
        if connection.open:
            connection.disconnect()

    def _serve_until(
        self, connection: MqttConnection, end: float, done: Callable[[], bool]
    ) -> None:
        while connection.open and not done() and (left_s := end - self._monotonic()) > 0:
            self._send_pending()
            if connection.open:
                connection.serve(min(left_s, 0.05))
            self._process_acks(connection)

    def _on_message(self, topic: str, payload: bytes, retained: bool) -> None:
        handler = self._subscriptions.get(topic)
        if handler is None:
            return
        if retained:
            self._invalid_commands.warning(
                "%s: a retained command is ignored, since it may be old: publish it without the "
                "retain flag",
                topic,
            )
            return
        try:
            handler(payload)
        except ValueError as error:
            self._invalid_commands.warning("%s: %s; ignored", topic, error)
        except Exception as error:  # noqa: BLE001 - a handler must not end the connection
            self._invalid_commands.warning("%s: the command failed: %s", topic, error)

    # -- connecting and losing ---------------------------------------------------------------

    def _on_online(self, connection: MqttConnection) -> None:
        """Publish that we are online, behind all states and events, and accept transient ones."""
        with self._changed:
            if (will := self._options.will) is not None:
                connection.publish(Outgoing(will.topic, will.online_payload, 1, retain=True))
            self._online = True
            self._failure = None
            self._connections += 1
            self._outbox.accept_transient()
        self._failure_log.connected(
            f"MQTT {self._protocol}{', TLS' if self._address.tls else ''}",
            None if self._lost_at is None else self._monotonic() - self._lost_at,
            self._outbox.dropped_transient - self._dropped_before,
        )

    def _on_offline(self, failure: Failure | None) -> None:
        """End the connection for all other threads: its messages, its state and why, at once."""
        with self._changed:
            if self._online:
                self._lost_at = self._monotonic()
                self._dropped_before = self._outbox.dropped_transient
            self._online = False
            self._connection = None
            self._failure = failure or self._failure
            self._outbox.drop_transient()

    def _diagnose(self, connection: MqttConnection, since: float, denied: str | None) -> Failure:
        """Return why the socket is closed although nothing here closed it."""
        ending, error = connection.ending, connection.socket_error
        if ending is not None and connection.ended_by_broker:
            self._takeovers = 0
            return diagnostics.ended_by_broker(
                ending.code, ending.name, self._address, self._options.client_id
            )
        if _is_keep_alive_timeout(connection) or (error is not None and error.errno in _DEAD_LINK):
            return diagnostics.half_open(self._address, self._options.keepalive_s)
        if denied is not None:
            # mosquitto 2.0 ends the connection after a message it does not allow.
            return diagnostics.denied(self._address, denied)
        # MQTT 3.1.1 gives no reason, but a second client with our id ends every connection soon.
        short = self._monotonic() - since < self._timeouts.stable_s
        self._takeovers = self._takeovers + 1 if short else 0
        if self._takeovers >= _TAKEOVERS_TO_SUSPECT:
            return diagnostics.repeated_disconnects(self._address, self._options.client_id)
        return diagnostics.lost(self._address)

    def _settle_version(self) -> None:
        if self._protocol != self._wanted_protocol and not self._version_settled:
            _log.info(
                "the MQTT broker %s does not know MQTT 5; using %s",
                self._address.netloc,
                self._protocol,
            )
        self._version_settled = True

    def _fall_back_to_311(self, failure: Failure) -> bool:
        """Change the version if the broker may not know this one; return whether to try at once.

        An old broker should answer that it does not know MQTT 5; some hang or end the connection.
        """
        if self._wanted_protocol != "5" or self._version_settled:
            return False
        if failure.kind == diagnostics.VERSION and self._protocol == "5":
            self._protocol = "3.1.1"
            return True
        if failure.kind in diagnostics.NO_ANSWER:
            self._protocol = "3.1.1" if self._protocol == "5" else "5"
        return False


def _is_keep_alive_timeout(connection: MqttConnection) -> bool:
    ending = connection.ending
    return (
        ending is not None and ending.code == _KEEP_ALIVE_TIMEOUT and not connection.ended_by_broker
    )
