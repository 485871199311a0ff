"""A connection to a broker that is kept up: its own thread, bounded queues, few words."""

import errno
import logging
import math
import os
import random
import select
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from edgepose.errors import BrokerError
from edgepose.mqtt import diagnostics as failures
from edgepose.mqtt.backoff import Backoff
from edgepose.mqtt.connection import (
    Answer,
    ConnectOptions,
    LastWill,
    MqttConnection,
    Protocol,
    UnreadableError,
)
from edgepose.mqtt.diagnostics import Failure
from edgepose.mqtt.event_store import EventStore
from edgepose.mqtt.outbox import Outbox, Outgoing
from edgepose.mqtt.rate_limit import RateLimitedLogger
from edgepose.mqtt.tls import tls_context
from edgepose.mqtt.url import BrokerAddress, Secret, TlsFiles

_log = logging.getLogger("edgepose.mqtt")

_KEEP_ALIVE_TIMEOUT: Final = 0x8D
_EVICTIONS_TO_SUSPECT: Final = 3
_DEAD_LINK: Final = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


@dataclass(frozen=True, slots=True)
class MqttTimeouts:
    """How patient a link is, in seconds.

    With `backoff_max_s` poses are back within 5 s of the broker's return, a try included. Two
    clients with one id throw each other out at every try, so the longest pause between those is
    `eviction_patience` times as long. Events that the broker leaves unacknowledged for
    `unacknowledged_s` are written to the disk, which is asked to keep what is written every
    `spool_s` at most: a power cut loses no more.
    """

    connect_s: float = 5.0
    answer_s: float = 10.0
    backoff_min_s: float = 1.0
    backoff_max_s: float = 3.0
    eviction_patience: float = 20.0
    stable_s: float = 30.0
    eviction_memory_s: float = 600.0
    unacknowledged_s: float = 1.0
    spool_s: float = 5.0
    close_s: float = 3.0


class MqttClient:
    """A connection to a broker that comes back by itself.

    On every connect: subscriptions, states in the order in which they were first set, events, then
    `will.here`, and only then live messages. An event may arrive twice. Each way of failing is
    logged once, until the connection has been stable for a while; tries go on with backoff.

    `protocol` "5" steps down to 3.1.1 where the broker knows no 5. A handler of `subscriptions`
    gets the payload, on the network thread; it raises ValueError with a sentence for one that is no
    order. Raises ConfigError for TLS files that cannot be used.
    """

    def __init__(
        self,
        *,
        address: BrokerAddress,
        client_id: str,
        spool: EventStore,
        username: str | None = None,
        password: Secret | None = None,
        tls: TlsFiles | None = None,
        protocol: Protocol = "5",
        keepalive_s: int = 10,
        will: LastWill | None = None,
        subscriptions: Mapping[str, Callable[[bytes], None]] | None = None,
        max_live: int = 32,
        times: MqttTimeouts | None = None,
        chance: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        user = address.username if username is None else username
        self._address = BrokerAddress(address.host, address.port, address.tls, user)
        self._times = times or MqttTimeouts()
        self._login = ConnectOptions(
            self._address,
            client_id,
            password,
            tls_context(tls or TlsFiles()) if address.tls else None,
            keepalive_s,
            self._times.connect_s,
            will,
        )
        self._subscriptions = dict(subscriptions or {})
        self._monotonic = monotonic
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._outbox = Outbox(spool, max_live=max_live, wake=self._wake)
        self._thread: threading.Thread | None = None

        # Written by one thread, read by others, under the outbox's lock where they wait for it.
        self._changed = self._outbox.changed
        self._online = False
        self._connections = 0
        self._failure: Failure | None = None
        self._speaks = True
        self._close_by: float | None = None

        # The connection that stands.
        self._session: MqttConnection | None = None

        # The network thread's own.
        self._wanted_protocol: Protocol = protocol
        self._protocol: Protocol = protocol
        self._version_settled = False
        self._backoff = Backoff(self._times.backoff_min_s, self._times.backoff_max_s, chance)
        self._eviction_backoff = Backoff(
            self._times.backoff_min_s,
            self._times.backoff_max_s * self._times.eviction_patience,
            chance,
        )
        self._reported: set[str] = set()
        self._refused_topics: set[str] = set()
        self._complaints = RateLimitedLogger(_log, monotonic)
        self._told = False
        self._lost_at: float | None = None
        self._dropped_before = 0
        self._evictions = 0
        self._unsaved_since: float | None = None
        self._saved_at = -math.inf

    # -- what other threads call -------------------------------------------------------------

    def open(self, *, require_connection_within_s: float | None = None) -> None:
        """Start connecting; return at once, or where asked when the connection stands.

        Raises BrokerError with the first reason why there is none.
        """
        if self._thread is not None or self._closing():
            return
        context = self._login.tls_context
        if context is not None and context.verify_mode is ssl.CERT_NONE:
            _log.warning(
                "any certificate is taken for that of the MQTT broker %s (TLS is set to insecure): "
                "whoever is in between can read and change everything",
                self._address.netloc,
            )
        self._speaks = require_connection_within_s is None
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._thread.start()
        if require_connection_within_s is None:
            return
        with self._changed:
            self._changed.wait_for(
                lambda: self._online or self._failure is not None, require_connection_within_s
            )
            self._speaks = True
            online, failure = self._online, self._failure
        if not online:
            self.close()
            if failure is None:
                failure = failures.silent(self._address, require_connection_within_s)
            raise BrokerError(failure.sentence)

    def set_state(self, topic: str, payload: bytes, qos: int) -> None:
        """Say what is so from now on; nothing is sent where that is no news."""
        self._outbox.set_state(topic, payload, qos)

    def send_event(self, topic: str, payload: bytes) -> None:
        """Say what happened; it arrives, in order, as soon as the broker is there."""
        self._outbox.add_event(topic, payload)

    def send_live(self, topic: str, payload: bytes, *, wait_s: float | None = None) -> bool:
        """Hand over a message that is worth nothing later; False where it was dropped.

        With `wait_s`, wait so long for the broker and for room, instead of dropping at once.
        """
        if wait_s is None and self._send_past_queue(topic, payload):
            return True
        return self._outbox.add_live(topic, payload, wait_s=wait_s)

    def _send_past_queue(self, topic: str, payload: bytes) -> bool:
        """Send a live message in the calling thread, where the network thread has nothing to do.

        To wake that one takes longer than to send.
        """
        session = self._session
        if session is None or not session.lock.acquire(blocking=False):
            return False
        try:
            if not (session.writable and self._outbox.lets_pass()):
                return False
            sent = session.publish(Outgoing(topic, payload, 0, retain=False))
        finally:
            session.lock.release()
        if not sent:
            # The network thread waits for room in the socket and sends the rest.
            self._wake()
        return True

    @property
    def online(self) -> bool:
        """Whether the broker is there and knows all states."""
        return self._online

    @property
    def alive(self) -> bool:
        """Whether its thread does its work; one that died would never connect again."""
        return self._thread is None or self._thread.is_alive()

    @property
    def failure(self) -> str | None:
        """Why the broker is not there, in a sentence; None while it is."""
        failure = self._failure
        return None if failure is None else failure.sentence

    def counters(self) -> dict[str, int | bool]:
        """Return what a look at `stats` should tell."""
        with self._changed:
            return {
                "connected": self._online,
                "published": self._outbox.published,
                "dropped_poses": self._outbox.dropped_live,
                "waiting_events": self._outbox.waiting_events,
                "dropped_events": self._outbox.dropped_events,
                "reconnects": max(0, self._connections - 1),
            }

    def close(self) -> None:
        """Send what waits and `will.gone`, for a few seconds at most, and end; twice is fine."""
        if self._close_by is None:
            self._close_by = self._monotonic() + self._times.close_s
        self._outbox.close()
        self._wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            # A name lookup cannot be interrupted; the thread then ends by itself, later.
            thread.join(self._times.close_s + 0.5)
        self._online = False
        self._outbox.save()
        with self._changed:
            if self._wake_fd >= 0 and (thread is None or not thread.is_alive()):
                os.close(self._wake_fd)
                self._wake_fd = -1

    def _wake(self) -> None:
        if self._wake_fd >= 0:
            os.eventfd_write(self._wake_fd, 1)

    def _closing(self) -> bool:
        return self._close_by is not None

    # -- the network thread ------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing():
            try:
                failure = self._connection()
            except Exception as error:  # noqa: BLE001 - a bug must not silence the node for ever
                failure = failures.mistake(self._address, error)
                _log.debug("%s", failure.sentence, exc_info=True)
            finally:
                self._now_offline()
            if failure is None or self._closing():
                return
            if self._step_down(failure):
                continue
            backoff = (
                self._eviction_backoff if failure.kind == failures.TAKEN_OVER else self._backoff
            )
            self._report(failure, backoff)
            self._pause(backoff.next_s())

    def _connection(self) -> Failure | None:
        """Connect, and keep at it until it ends; return why, None where it was to end."""
        session = MqttConnection(
            self._login,
            self._protocol,
            topics=tuple(self._subscriptions),
            receive=self._received,
            wake_fd=self._wake_fd,
        )
        try:
            session.connect()
        except (OSError, ValueError) as error:
            return failures.connect_failure(error, self._address)
        try:
            refusal = self._await_answer(session)
            if refusal is not None or self._closing():
                return refusal
            return self._keep_up(session)
        except UnreadableError as error:
            _log.debug("unreadable packet", exc_info=True)
            return failures.unreadable(self._address, str(error))
        finally:
            session.close()

    def _await_answer(self, session: MqttConnection) -> Failure | None:
        answer_by = self._monotonic() + self._times.answer_s
        while session.answer is None and not self._closing():
            if not session.open:
                hung = _is_keep_alive_timeout(session)
                return (
                    failures.silent(self._address, self._login.keepalive_s)
                    if hung
                    else failures.ended_before_answer(self._address, session.socket_error)
                )
            left_s = answer_by - self._monotonic()
            if left_s <= 0:
                return failures.silent(self._address, self._times.answer_s)
            session.step(min(left_s, 1.0))
        answer = session.answer
        if answer is None or not answer.is_error:
            return None
        return failures.refused_by_broker(
            answer.code,
            answer.name,
            self._address,
            password=self._login.password is not None,
        )

    def _keep_up(self, session: MqttConnection) -> Failure | None:
        """Serve a connection that stands, until it ends or is ended."""
        since = self._monotonic()
        self._settle_version()
        self._outbox.renew()
        self._session = session
        announced = stable = False
        denied: str | None = None
        while session.open:
            if self._closing():
                self._say_goodbye(session)
                return None
            announced = self._pump(session, announced=announced)
            if session.open:
                session.step(1.0)
            denied = self._settle(session) or denied
            self._save_when_due()
            if announced and not stable and self._is_stable(since):
                stable = True
                self._forget_failures()
        return self._why_ended(session, since, denied)

    # -- sending -----------------------------------------------------------------------------

    def _pump(self, session: MqttConnection, *, announced: bool) -> bool:
        """Send what is due, as long as the socket takes it; return whether all know we are here."""
        # Under the lock, so that nothing overtakes what was taken out of the queue.
        with session.lock:
            while session.writable:
                message = self._outbox.take_lasting() if session.has_window else None
                if message is None and not announced and session.has_window:
                    announced = True
                    self._now_online()
                    if (will := self._login.will) is not None:
                        message = Outgoing(will.topic, will.here, 1, retain=True)
                if message is None and announced:
                    message = self._outbox.take_live()
                if message is None:
                    break
                session.publish(message)
        return announced

    def _settle(self, session: MqttConnection) -> str | None:
        """Let go of what the broker acknowledged; return the topic of a message it refused."""
        denied = None
        for message, answer in session.acknowledged():
            if answer.is_error:
                denied = message.topic
                self._report_refused("messages on", message.topic, answer)
            if message.event is not None:
                self._outbox.settle(message.event)
        while session.refused_topics:
            topic, answer = session.refused_topics.pop()
            self._report_refused("to listen to", topic, answer)
        return denied

    def _say_goodbye(self, session: MqttConnection) -> None:
        """Send what waits for half the time there is, and in the other half that we are gone."""
        assert self._close_by is not None
        goodbye_at = self._close_by - self._times.close_s / 2
        self._serve_until(session, goodbye_at, lambda: self._outbox.empty and session.idle)
        if not session.open:
            return
        session.forget_unacknowledged()
        if (will := self._login.will) is not None:
            session.publish(Outgoing(will.topic, will.gone, 1, retain=True))
        self._serve_until(session, self._close_by, lambda: session.idle, pump=False)
        if session.open:
            session.disconnect()

    def _serve_until(
        self, session: MqttConnection, end: float, done: Callable[[], bool], *, pump: bool = True
    ) -> None:
        while session.open and not done() and (left_s := end - self._monotonic()) > 0:
            if pump:
                self._pump(session, announced=True)
            if session.open:
                session.step(min(left_s, 0.05))
            self._settle(session)

    def _received(self, topic: str, payload: bytes, retained: bool) -> None:
        handler = self._subscriptions.get(topic)
        if handler is None:
            return
        if retained:
            self._complaints.say(
                "%s: a retained order is ignored, since it may be old: publish it without the "
                "retain flag",
                topic,
            )
            return
        try:
            handler(payload)
        except ValueError as error:
            self._complaints.say("%s: %s; ignored", topic, error)
        except Exception as error:  # noqa: BLE001 - whoever listens must not end the connection
            self._complaints.say("%s: the order could not be carried out: %s", topic, error)

    # -- ups and downs -----------------------------------------------------------------------

    def _now_online(self) -> None:
        with self._changed:
            self._online = True
            self._failure = None
            self._connections += 1
        self._outbox.open_live()
        if self._lost_at is not None and not self._told:
            return
        self._told = False
        version = f"MQTT {self._protocol}{', TLS' if self._address.tls else ''}"
        if self._lost_at is None:
            _log.info("connected to the MQTT broker %s (%s)", self._address.netloc, version)
            return
        _log.info(
            "connected to the MQTT broker %s again (%s) after %.0f s; %d pose messages were "
            "dropped meanwhile",
            self._address.netloc,
            version,
            self._monotonic() - self._lost_at,
            self._outbox.dropped_live - self._dropped_before,
        )

    def _now_offline(self) -> None:
        if self._online:
            self._lost_at = self._monotonic()
            self._dropped_before = self._outbox.dropped_live
        self._online = False
        self._session = None
        self._outbox.drop_live()
        # From now on nothing but the file keeps what was sent and not acknowledged.
        self._save()

    def _why_ended(self, session: MqttConnection, since: float, denied: str | None) -> Failure:
        """Explain why the socket is closed although nobody here closed it."""
        ending, error = session.ending, session.socket_error
        if ending is not None and session.ended_by_broker:
            self._evictions = 0
            return failures.ended_by_broker(
                ending.code, ending.name, self._address, self._login.client_id
            )
        if _is_keep_alive_timeout(session) or (error is not None and error.errno in _DEAD_LINK):
            return failures.half_open(self._address, self._login.keepalive_s)
        if denied is not None:
            # mosquitto 2.0 ends the connection after a message it does not allow.
            return failures.denied(self._address, denied)
        # MQTT 3.1.1 gives no reason, but who is thrown out by a second client is so over and over.
        short = self._monotonic() - since < self._times.stable_s
        self._evictions = self._evictions + 1 if short else 0
        if self._evictions >= _EVICTIONS_TO_SUSPECT:
            return failures.thrown_out_again_and_again(self._address, self._login.client_id)
        return failures.lost(self._address)

    def _report(self, failure: Failure, backoff: Backoff) -> None:
        with self._changed:
            self._failure = failure
            self._changed.notify_all()
            speaks = self._speaks
        if not speaks:
            return
        # A failure already told is not told again at every try, nor is the recovery from it.
        news = failure.kind not in self._reported
        self._told = self._told or news
        self._reported.add(failure.kind)
        _log.log(
            logging.WARNING if news else logging.DEBUG,
            "%s; trying again, at least every %g s",
            failure.sentence,
            backoff.maximum_s,
        )

    def _report_refused(self, what: str, topic: str, answer: Answer) -> None:
        if topic in self._refused_topics:
            return
        self._refused_topics.add(topic)
        user = self._address.username
        _log.warning(
            "the MQTT broker %s refuses %s %s (%s): check the access rights of %s there",
            self._address.netloc,
            what,
            topic,
            answer.name,
            "anonymous clients" if user is None else f"user {user!r}",
        )

    def _is_stable(self, since: float) -> bool:
        evicted = failures.TAKEN_OVER in self._reported
        needed_s = self._times.eviction_memory_s if evicted else self._times.stable_s
        return self._monotonic() - since >= needed_s

    def _forget_failures(self) -> None:
        """Tell failures again when they return, after a while of peace."""
        self._reported.clear()
        self._evictions = 0
        self._backoff.reset()
        self._eviction_backoff.reset()

    def _settle_version(self) -> None:
        if self._protocol != self._wanted_protocol and not self._version_settled:
            _log.info(
                "the MQTT broker %s knows no MQTT 5; using %s", self._address.netloc, self._protocol
            )
        self._version_settled = True

    def _step_down(self, failure: Failure) -> bool:
        """Change to the other version where the broker may not know this one; True: try at once.

        An old broker should answer that it knows no MQTT 5; some just hang or end the connection.
        """
        if self._wanted_protocol != "5" or self._version_settled:
            return False
        if failure.kind == failures.VERSION and self._protocol == "5":
            self._protocol = "3.1.1"
            return True
        if failure.kind in failures.NO_ANSWER:
            self._protocol = "3.1.1" if self._protocol == "5" else "5"
        return False

    def _pause(self, seconds: float) -> None:
        """Wait for the next try; closing cuts it short."""
        until = self._monotonic() + seconds
        poller = select.poll()
        poller.register(self._wake_fd, select.POLLIN)
        while not self._closing() and (left_s := until - self._monotonic()) > 0:
            if poller.poll(min(left_s, 1.0) * 1000):
                os.eventfd_read(self._wake_fd)
            self._save_when_due()

    def _save_when_due(self) -> None:
        """Bring waiting events to the disk, but only those that have waited for a while."""
        if not self._outbox.unsaved:
            self._unsaved_since = None
            return
        now = self._monotonic()
        if self._unsaved_since is None:
            self._unsaved_since = now
        waited = now - self._unsaved_since >= self._times.unacknowledged_s
        # A file of events that have all arrived goes at once: they would be sent again.
        if not self._outbox.waiting_events or (
            waited and now - self._saved_at >= self._times.spool_s
        ):
            self._save()

    def _save(self) -> None:
        self._outbox.save()
        self._saved_at = self._monotonic()
        self._unsaved_since = None


def _is_keep_alive_timeout(session: MqttConnection) -> bool:
    ending = session.ending
    return ending is not None and ending.code == _KEEP_ALIVE_TIMEOUT and not session.ended_by_broker
