"""One connection to a broker that is kept up: its own thread, queues with bounds, few words.

paho-mqtt does the protocol; it is driven through its interface for outside event loops, because
its own loop hides why a connection failed, ends for good at an exception in a callback, keeps
messages without bound and waits the same time in every node. Only the network thread touches
paho. Other threads fill bounded queues and wake it. Every connection gets a paho client of its
own, so what waits is in one place: here.
"""

import errno
import logging
import os
import random
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edgepose.errors import BrokerError
from edgepose.mqtt_url import BrokerAddress, Secret, TlsFiles
from edgepose.sinks import _failures as failures
from edgepose.sinks._backoff import Backoff
from edgepose.sinks._failures import Failure
from edgepose.sinks._spool import Spool, WaitingMessage
from edgepose.sinks._tls import tls_context

_log = logging.getLogger("edgepose.mqtt")

Protocol = Literal["5", "3.1.1"]

_PROTOCOLS: Final = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_KEEP_ALIVE_TIMEOUT: Final = 0x8D
_FIRST_ERROR_CODE: Final = 0x80
# paho and mosquitto both hold 20 unacknowledged messages; more would wait inside paho.
_MAX_UNACKNOWLEDGED: Final = 20
_EVICTIONS_TO_SUSPECT: Final = 3
_DEAD_LINK: Final = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


@dataclass(frozen=True, slots=True)
class LinkTimes:
    """How patient a link is, in seconds."""

    connect_s: float = 5.0
    answer_s: float = 10.0
    backoff_min_s: float = 1.0
    backoff_max_s: float = 60.0
    stable_s: float = 30.0
    eviction_memory_s: float = 600.0
    spool_s: float = 30.0
    close_s: float = 3.0


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker tells the others: `here` while the link is up, `gone` when it is not."""

    topic: str
    here: bytes
    gone: bytes


@dataclass(slots=True)
class LinkCounters:
    """What a link did since it was made."""

    published: int = 0
    dropped_live: int = 0
    connections: int = 0


@dataclass(frozen=True, slots=True)
class _Outgoing:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    event: WaitingMessage | None = None


class _Session:
    """What is known of one connection, from its beginning to its end."""

    def __init__(self) -> None:
        self.answer_by = 0.0
        self.up = False
        self.since = 0.0
        self.window = _MAX_UNACKNOWLEDGED
        self.refused: Failure | None = None
        self.end: tuple[int, str, bool] | None = None
        self.socket_error: OSError | None = None
        self.unacknowledged: dict[int, _Outgoing] = {}
        self.acknowledged: deque[tuple[int, ReasonCode]] = deque()
        self.announced = False
        self.stable = False
        self.said_goodbye = False
        self.denied: str | None = None


class Link:
    """A connection to a broker that comes back by itself.

    Three kinds of messages: live ones (QoS 0, dropped while the broker is away, the oldest first
    when it is slow), states (retained, the newest wins, all sent again on every connect) and events
    (QoS 1, in order, kept in `spool` until acknowledged; one may arrive twice). On every connect:
    subscriptions, states in the order in which they were first set, events, then `will.here`.

    `protocol` "5" steps down to 3.1.1 where the broker knows no 5. A handler of `subscriptions`
    gets the payload, on the network thread. Raises ConfigError for TLS files that cannot be used.
    """

    def __init__(
        self,
        *,
        address: BrokerAddress,
        client_id: str,
        spool: Spool,
        username: str | None = None,
        password: Secret | None = None,
        tls: TlsFiles | None = None,
        protocol: Protocol = "5",
        keepalive_s: int = 10,
        will: Will | None = None,
        subscriptions: Mapping[str, Callable[[bytes], None]] | None = None,
        max_live: int = 32,
        times: LinkTimes | None = None,
        chance: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        user = address.username if username is None else username
        self._address = BrokerAddress(address.host, address.port, address.tls, user)
        self._client_id = client_id
        self._password = password
        self._tls_context = tls_context(tls or TlsFiles()) if address.tls else None
        self._protocol: Protocol = protocol
        self._wanted_protocol: Protocol = protocol
        self._version_settled = False
        self._keepalive_s = keepalive_s
        self._will = will
        self._subscriptions = dict(subscriptions or {})
        self._times = times or LinkTimes()
        self._monotonic = monotonic
        self._backoff = Backoff(self._times.backoff_min_s, self._times.backoff_max_s, chance)

        # Shared between threads, under the lock.
        self._changed = threading.Condition()
        self._states: dict[str, tuple[bytes, int]] = {}
        self._unsent_states: dict[str, None] = {}
        self._spool = spool
        self._unsent_events: deque[WaitingMessage] = deque()
        self._live: deque[tuple[str, bytes]] = deque()
        self._max_live = max_live
        self._counters = LinkCounters()
        self._online = False
        self._close_by: float | None = None
        self._closed = False
        self._failure: Failure | None = None
        self._reports = True

        # The network thread's own.
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread: threading.Thread | None = None
        self._session = _Session()
        self._reported: set[str] = set()
        self._silenced = False
        self._lost_at: float | None = None
        self._dropped_before = 0
        self._evictions = 0
        self._spool_touched_at: float | None = None
        self._refused_topics: set[str] = set()

    # -- what other threads call -------------------------------------------------------------

    def open(self, *, require_connection_within_s: float | None = None) -> None:
        """Start connecting; return at once, or where asked when the connection stands.

        Raises BrokerError with the first reason why there is none.
        """
        with self._changed:
            if self._thread is not None or self._closed:
                return
            self._reports = require_connection_within_s is None
            if self._tls_context is not None and self._tls_context.verify_mode is ssl.CERT_NONE:
                _log.warning(
                    "any certificate is taken for that of the MQTT broker %s (TLS is set to "
                    "insecure): whoever is in between can read and change everything",
                    self._address.netloc,
                )
            self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
            self._thread.start()
            if require_connection_within_s is None:
                return
            self._changed.wait_for(
                lambda: self._online or self._failure is not None, require_connection_within_s
            )
            self._reports = True
            online, failure = self._online, self._failure
        if not online:
            self.close()
            raise BrokerError(
                failure.sentence
                if failure is not None
                else failures.silent(self._address, require_connection_within_s).sentence
            )

    def send_live(self, topic: str, payload: bytes, *, wait_s: float | None = None) -> bool:
        """Hand over a message that is worth nothing later; False where it was dropped.

        With `wait_s`, wait so long for room, and for the broker to come back, before that.
        """
        with self._changed:
            room = wait_s is None or self._changed.wait_for(self._has_room, wait_s)
            if not room or not self._online or self._close_by is not None:
                self._counters.dropped_live += 1
                return False
            if len(self._live) >= self._max_live:
                self._live.popleft()
                self._counters.dropped_live += 1
            self._live.append((topic, payload))
            self._wake()
        return True

    def _has_room(self) -> bool:
        return self._close_by is not None or (self._online and len(self._live) < self._max_live)

    def set_state(self, topic: str, payload: bytes, qos: int) -> None:
        """Say what is so from now on; nothing is sent where that is no news."""
        with self._changed:
            state = (payload, qos)
            if self._closed or self._states.get(topic) == state:
                return
            self._states[topic] = state
            self._unsent_states[topic] = None
            self._wake()

    def send_event(self, topic: str, payload: bytes) -> None:
        """Say what happened; it arrives, in order, as soon as the broker is there."""
        with self._changed:
            message = WaitingMessage(topic, payload)
            dropped = self._spool.append(message)
            self._unsent_events.append(message)
            if dropped is not None and self._unsent_events[0] is dropped:
                self._unsent_events.popleft()
            if not self._closed:
                self._wake()

    @property
    def online(self) -> bool:
        """Whether the broker is there and knows all states."""
        return self._online

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
                "published": self._counters.published,
                "dropped_poses": self._counters.dropped_live,
                "waiting_events": len(self._spool),
                "dropped_events": self._spool.dropped,
                "reconnects": max(0, self._counters.connections - 1),
            }

    def close(self) -> None:
        """Send what waits and `will.gone`, for a few seconds at most, and end; twice is fine."""
        with self._changed:
            if self._closed:
                return
            if self._close_by is None:
                self._close_by = self._monotonic() + self._times.close_s
            thread = self._thread
            self._changed.notify_all()
            self._wake()
        if thread is not None and thread is not threading.current_thread():
            # A name lookup cannot be interrupted; the thread then ends by itself, later.
            thread.join(self._times.close_s + 0.5)
        with self._changed:
            self._closed = True
            self._online = False
            self._spool.save()
            self._changed.notify_all()
            if self._wake_fd >= 0 and (thread is None or not thread.is_alive()):
                os.close(self._wake_fd)
                self._wake_fd = -1

    def _wake(self) -> None:
        if self._wake_fd >= 0:
            os.eventfd_write(self._wake_fd, 1)

    # -- the network thread ------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing():
            try:
                failure = self._connection()
            except Exception as error:  # noqa: BLE001 - a bug here must not silence the node for ever
                failure = Failure(
                    f"unexpected {type(error).__name__}",
                    f"the connection to the MQTT broker {self._address.netloc} ended by a mistake "
                    f"in edgepose ({type(error).__name__}: {error})",
                )
                _log.debug("%s", failure.sentence, exc_info=True)
            finally:
                self._offline()
            if failure is None or self._closing():
                return
            if self._step_down(failure):
                continue
            self._report(failure)
            self._pause(self._backoff.next_s())

    def _closing(self) -> bool:
        return self._close_by is not None

    def _connection(self) -> Failure | None:
        """Connect, and keep at it until it ends; return why, None where it was to end."""
        session = self._session = _Session()
        client = self._client(session)
        try:
            client.connect(
                self._address.host,
                self._address.port,
                self._keepalive_s,
                clean_start=(True if self._protocol == "5" else paho.MQTT_CLEAN_START_FIRST_ONLY),
            )
        except (OSError, ValueError) as error:
            return failures.connect_failure(error, self._address)
        session.answer_by = self._monotonic() + self._times.answer_s
        poller = select.poll()
        poller.register(self._wake_fd, select.POLLIN)
        try:
            while (sock := client.socket()) is not None:
                readable = self._wait(poller, sock, writing=client.want_write())
                if readable:
                    client.loop_read()
                self._settle(session)
                if session.refused is not None:
                    return session.refused
                if session.up:
                    self._pump(client, session)
                    if self._finished(client, session):
                        return None
                elif self._closing():
                    return None
                elif self._monotonic() >= session.answer_by:
                    return failures.silent(self._address, self._times.answer_s)
                if client.want_write():
                    client.loop_write()
                client.loop_misc()
                self._look_after_spool()
                self._notice_stability(session)
            return self._ended(session)
        finally:
            _shut(client)

    def _client(self, session: "_Session") -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=_PROTOCOLS[self._protocol],
            clean_session=None if self._protocol == "5" else True,
            # paho would otherwise try MQTT 3.1 behind our back.
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._times.connect_s
        if self._address.username is not None:
            password = None if self._password is None else self._password.reveal()
            client.username_pw_set(self._address.username, password)
        if self._tls_context is not None:
            client.tls_set_context(self._tls_context)
        if self._will is not None:
            client.will_set(self._will.topic, self._will.gone, qos=1, retain=True)
        client.enable_logger(_error_catcher(session))

        def on_connect(
            client: paho.Client,
            _userdata: object,
            _flags: object,
            code: ReasonCode,
            properties: Properties | None,
        ) -> None:
            self._answered(client, session, code, properties)

        def on_disconnect(
            _client: paho.Client,
            _userdata: object,
            flags: paho.DisconnectFlags,
            code: ReasonCode,
            _properties: Properties | None,
        ) -> None:
            session.end = (code.value, str(code), flags.is_disconnect_packet_from_server)

        def on_publish(
            _client: paho.Client,
            _userdata: object,
            number: int,
            code: ReasonCode,
            _properties: Properties | None,
        ) -> None:
            session.acknowledged.append((number, code))

        def on_subscribe(
            _client: paho.Client,
            _userdata: object,
            _number: int,
            codes: list[ReasonCode],
            _properties: Properties | None,
        ) -> None:
            for topic, code in zip(self._subscriptions, codes, strict=False):
                if code.value >= _FIRST_ERROR_CODE:
                    self._refused_topic(topic, "to listen to", code)

        def on_message(_client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
            self._received(message)

        def on_socket_open(_client: paho.Client, _userdata: object, sock: Any) -> None:
            self._tune(sock)

        def on_register_write(_client: paho.Client, _userdata: object, _sock: object) -> None:
            """Keep paho from writing to the socket within `publish`; the loop does."""

        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        client.on_publish = on_publish
        client.on_subscribe = on_subscribe
        client.on_message = on_message
        client.on_socket_open = on_socket_open
        client.on_socket_register_write = on_register_write
        return client

    def _tune(self, sock: socket.socket) -> None:
        # Nagle's algorithm holds a small message back until the one before it is acknowledged,
        # which the other side delays by up to 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Unacknowledged data then ends a dead link after one keepalive instead of two.
        sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(2, self._keepalive_s) * 1000
        )

    def _wait(self, poller: select.poll, sock: Any, *, writing: bool) -> bool:
        poller.register(sock, select.POLLIN | (select.POLLOUT if writing else 0))
        # Bytes that TLS has already decrypted are invisible to poll.
        pending = getattr(sock, "pending", None)
        ready = bool(pending is not None and pending())
        fd = sock.fileno()
        readable = ready
        # paho looks after its keepalive only when asked to.
        patience_s = 0.05 if self._closing() else min(1.0, self._keepalive_s / 4)
        for event_fd, event in poller.poll(0 if ready else patience_s * 1000):
            if event_fd == self._wake_fd:
                os.eventfd_read(self._wake_fd)
            elif event_fd == fd and event & ~select.POLLOUT:
                readable = True
        return readable

    def _answered(
        self,
        client: paho.Client,
        session: "_Session",
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if code.is_failure:
            session.refused = failures.refused_by_broker(
                code.value,
                str(code).lower(),
                self._address,
                password=self._password is not None,
            )
            return
        session.up = True
        if self._protocol != self._wanted_protocol and not self._version_settled:
            _log.info(
                "the MQTT broker %s knows no MQTT 5; using %s", self._address.netloc, self._protocol
            )
        self._version_settled = True
        session.since = self._monotonic()
        maximum = getattr(properties, "ReceiveMaximum", _MAX_UNACKNOWLEDGED)
        session.window = min(_MAX_UNACKNOWLEDGED, maximum)
        if self._subscriptions:
            # Only orders given now count: an old one that the broker kept must not open a camera.
            client.subscribe(
                [
                    (topic, SubscribeOptions(qos=1, retainHandling=2))
                    for topic in self._subscriptions
                ]
                if self._protocol == "5"
                else [(topic, 1) for topic in self._subscriptions]
            )
        with self._changed:
            self._unsent_states = dict.fromkeys(self._states)
            self._unsent_events = deque(self._spool)

    def _received(self, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        handler = self._subscriptions.get(topic)
        if handler is None:
            return
        if message.retain:
            _log.warning(
                "%s: a retained order is ignored, since it may be old: publish it without the "
                "retain flag",
                topic,
            )
            return
        try:
            handler(bytes(message.payload))
        except Exception as error:  # noqa: BLE001 - whoever listens must not end the connection
            _log.warning("%s: the order could not be carried out: %s", topic, error)

    # -- sending -----------------------------------------------------------------------------

    def _pump(self, client: paho.Client, session: "_Session") -> None:
        """Give paho one message after the other, as long as the socket takes them."""
        while not client.want_write():
            message = self._next(session)
            if message is None:
                return
            info = client.publish(
                message.topic, message.payload, qos=message.qos, retain=message.retain
            )
            if message.qos:
                session.unacknowledged[info.mid] = message
            client.loop_write()
            if client.socket() is None:
                return

    def _next(self, session: "_Session") -> _Outgoing | None:
        """Take the message that is due: states, events, then that we are here, then live ones."""
        if session.said_goodbye:
            return None
        with self._changed:
            if len(session.unacknowledged) < session.window:
                if self._unsent_states:
                    topic = next(iter(self._unsent_states))
                    del self._unsent_states[topic]
                    payload, qos = self._states[topic]
                    return self._counted(_Outgoing(topic, payload, qos, retain=True))
                if self._unsent_events:
                    event = self._unsent_events.popleft()
                    return self._counted(
                        _Outgoing(event.topic, event.payload, 1, retain=False, event=event)
                    )
                if not session.announced:
                    session.announced = True
                    self._now_online()
                    if self._will is not None:
                        return _Outgoing(self._will.topic, self._will.here, 1, retain=True)
            if self._live and session.announced:
                message = _Outgoing(*self._live.popleft(), qos=0, retain=False)
                # Whoever waits for room gets much of it at once: fewer switches of threads.
                if len(self._live) == self._max_live // 2:
                    self._changed.notify_all()
                return self._counted(message)
        return None

    def _counted(self, message: _Outgoing) -> _Outgoing:
        self._counters.published += 1
        return message

    def _settle(self, session: "_Session") -> None:
        """Forget what the broker has acknowledged."""
        while session.acknowledged:
            number, code = session.acknowledged.popleft()
            message = session.unacknowledged.pop(number, None)
            if message is None:
                continue
            if code.value >= _FIRST_ERROR_CODE:
                session.denied = message.topic
                self._refused_topic(message.topic, "messages on", code)
            if message.event is not None:
                with self._changed:
                    self._spool.remove(message.event)

    def _refused_topic(self, topic: str, what: str, code: ReasonCode) -> None:
        if topic in self._refused_topics:
            return
        self._refused_topics.add(topic)
        _log.warning(
            "the MQTT broker %s refuses %s %s (%s): check the access rights of %s there",
            self._address.netloc,
            what,
            topic,
            str(code).lower(),
            f"user {self._address.username!r}" if self._address.username else "anonymous clients",
        )

    def _finished(self, client: paho.Client, session: "_Session") -> bool:
        """Bring a connection that is to end to its end, step by step; True when it has."""
        if self._close_by is None:
            return False
        now = self._monotonic()
        with self._changed:
            waiting = bool(self._unsent_states or self._unsent_events or self._live)
        if not session.said_goodbye:
            # Half the time for what waits, the other half for the goodbye.
            patient = now < self._close_by - self._times.close_s / 2
            if patient and (waiting or session.unacknowledged or client.want_write()):
                return False
            session.said_goodbye = True
            if self._will is not None:
                info = client.publish(self._will.topic, self._will.gone, qos=1, retain=True)
                session.unacknowledged = {
                    info.mid: _Outgoing(self._will.topic, self._will.gone, 1, retain=True)
                }
                client.loop_write()
        if now < self._close_by and (session.unacknowledged or client.want_write()):
            return False
        client.disconnect()
        client.loop_write()
        return True

    # -- ups and downs -----------------------------------------------------------------------

    def _now_online(self) -> None:
        """Note, under the lock, that the broker knows everything."""
        self._online = True
        self._failure = None
        self._counters.connections += 1
        self._changed.notify_all()
        if self._silenced:
            return
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
            self._counters.dropped_live - self._dropped_before,
        )

    def _offline(self) -> None:
        with self._changed:
            if self._online:
                self._lost_at = self._monotonic()
                self._dropped_before = self._counters.dropped_live
            self._online = False
            # What could not be sent is too old to be sent later.
            self._counters.dropped_live += len(self._live)
            self._live.clear()
            self._changed.notify_all()

    def _ended(self, session: "_Session") -> Failure:
        """Explain why the socket is closed although nobody here closed it."""
        code, name, by_broker = session.end or (_FIRST_ERROR_CODE, "", False)
        error = session.socket_error
        if not session.up:
            if code == _KEEP_ALIVE_TIMEOUT and not by_broker:
                return failures.silent(self._address, self._keepalive_s)
            return failures.ended_before_answer(self._address, error)
        if not by_broker and (
            code == _KEEP_ALIVE_TIMEOUT or (error is not None and error.errno in _DEAD_LINK)
        ):
            return failures.half_open(self._address, self._keepalive_s)
        if session.denied is not None:
            # mosquitto 2.0 ends the connection after a message it does not allow.
            return failures.denied(self._address, session.denied)
        failure = failures.ended(
            code, name.lower(), self._address, self._client_id, by_broker=by_broker
        )
        # MQTT 3.1.1 gives no reason, but who is thrown out by a second client is so over and over.
        short = self._monotonic() - session.since < self._times.stable_s
        self._evictions = self._evictions + 1 if short and not by_broker else 0
        if self._evictions >= _EVICTIONS_TO_SUSPECT:
            return failures.thrown_out_again_and_again(self._address, self._client_id)
        return failure

    def _report(self, failure: Failure) -> None:
        with self._changed:
            self._failure = failure
            self._changed.notify_all()
            speaks = self._reports
        # A failure already told is not told again at every try, nor is what follows from it.
        self._silenced = failure.kind in self._reported
        if not speaks:
            return
        self._reported.add(failure.kind)
        _log.log(
            logging.DEBUG if self._silenced else logging.WARNING,
            "%s; trying again, at least every %g s",
            failure.sentence,
            self._backoff.maximum_s,
        )

    def _notice_stability(self, session: "_Session") -> None:
        """After a while of peace, forget the failures, so that they are told when they return."""
        if session.stable or not session.announced:
            return
        wait_s = (
            self._times.eviction_memory_s
            if failures.TAKEN_OVER in self._reported
            else self._times.stable_s
        )
        if self._monotonic() - session.since >= wait_s:
            session.stable = True
            self._reported.clear()
            self._evictions = 0
            self._backoff.reset()

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
        while not self._closing() and (left := until - self._monotonic()) > 0:
            if poller.poll(min(left, 1.0) * 1000):
                os.eventfd_read(self._wake_fd)
            self._look_after_spool()

    def _look_after_spool(self) -> None:
        """Write waiting events to disk, but only those that have waited for long."""
        with self._changed:
            if not self._spool.changed:
                self._spool_touched_at = None
                return
            now = self._monotonic()
            if self._spool_touched_at is None:
                self._spool_touched_at = now
            # A file of events that have all arrived goes at once: they would be sent again.
            if not self._spool or now - self._spool_touched_at >= self._times.spool_s:
                self._spool.save()
                self._spool_touched_at = None


def _shut(client: paho.Client) -> None:
    """Close the socket without a goodbye, so that the broker publishes the will."""
    sock = client.socket()
    if sock is not None:
        sock.close()


class _ErrorCatcher(logging.Handler):
    """Keeps the reason why a socket failed, which paho only tells its log."""

    def __init__(self, session: _Session) -> None:
        super().__init__(logging.ERROR)
        self._session = session

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception that a record was made of."""
        for argument in record.args if isinstance(record.args, tuple) else ():
            if isinstance(argument, OSError):
                self._session.socket_error = argument


def _error_catcher(session: _Session) -> logging.Logger:
    # Not from getLogger: it keeps every logger for ever, and there is one for each connection.
    logger = logging.Logger("paho", logging.ERROR)  # noqa: LOG001
    logger.addHandler(_ErrorCatcher(session))
    return logger
