"""One connection to a broker, from CONNECT to the reason why it ended, by paho-mqtt.

Every connection has its own client, so nothing waits inside paho, and its `loop_read`,
`loop_write` and `loop_misc` are called by our network thread: `loop_start` hides why a connection
failed, ends for good at an exception in a callback, and waits the same time in every node.
"""

import logging
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edgepose.mqtt import diagnostics
from edgepose.mqtt.commands import CommandReceiver
from edgepose.mqtt.diagnostics import Failure
from edgepose.mqtt.options import ConnectOptions, Protocol
from edgepose.mqtt.tls import tls_context
from edgepose.mqtt.topics import OFF, OFFLINE, ON, in_groups
from edgepose.mqtt.watcher import RetainedWatcher

_log = logging.getLogger("edgepose.mqtt")

_PROTOCOLS: Final = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_KEEP_ALIVE_TIMEOUT: Final = 0x8D
_MAX_UNACKNOWLEDGED: Final = 20
"""What mosquitto holds; paho ignores that a broker may allow fewer."""
# Commands have a few bytes. A client that may write to their topics could otherwise send 256 MB,
# which paho keeps in memory as a whole. Announced in MQTT 5, and enforced in both versions.
_MAX_PACKET_BYTES: Final = 128 * 1024
_MAX_HEADER_BYTES: Final = 10
"""Of a PUBLISH: type, length, length of the topic, packet number and no properties."""
_SESSION_EXPIRY_S: Final = 7 * 86_400
"""How long an MQTT 5 broker keeps commands for a node that is away."""
_POLL_S: Final = 0.25
"""How long `serve` waits at most; a request to close is noticed within it."""


class Outgoing(NamedTuple):
    """One message; `on_acknowledged` is called once the broker has it (QoS 1)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    on_acknowledged: Callable[[], None] | None = None

    @property
    def transient(self) -> bool:
        """Whether it is worthless later."""
        return not (self.qos or self.retain)


class _Client(paho.Client):
    """Ends a connection before a packet that is too large is collected in memory."""

    def _sock_recv(self, bufsize: int) -> bytes:
        # paho asks for all that is missing of a packet.
        if bufsize > _MAX_PACKET_BYTES:
            raise diagnostics.oversized(bufsize, _MAX_PACKET_BYTES)
        return super()._sock_recv(bufsize)


class MqttConnection:
    """A connection that `connect` opens, and `serve` keeps until it raises why it ended.

    `connect` and `serve` are called by one thread, the others by any that holds `changed`, which is
    notified when messages were written. Transient messages are in `waiting` while the socket takes
    no more. What the broker refuses is appended to `refused`.

    The broker keeps commands for a client that is away, unless `clean`. The password and the files
    of TLS are read here; raises EdgeposeError if they cannot be.
    """

    def __init__(
        self,
        options: ConnectOptions,
        protocol: Protocol,
        receiver: CommandReceiver | None,
        changed: threading.Condition,
        *,
        clean: bool = False,
    ) -> None:
        self.refused: list[Failure] = []
        self.waiting: deque[Outgoing] = deque()
        self._options = options
        self._protocol = protocol
        self._receiver = receiver
        self._topics = () if receiver is None else receiver.topics
        self._retained: RetainedWatcher | None = None
        self._retained_subscriptions: set[int | None] = set()
        self._states: list[tuple[str, bytes, bool]] = []
        self._clean = clean or not (self._topics and options.client_id)
        self._password = options.read_password()
        self._changed = changed
        self._connack: ReasonCode | None = None
        self._disconnect: ReasonCode | None = None
        self._timed_out = self._malformed = False
        self._error: Exception | None = None
        self._first_sent: dict[str, float] = {}
        self._acknowledged: dict[str, float] = {}
        self._window = _MAX_UNACKNOWLEDGED
        self._max_bytes: int | None = None
        self._probed: set[str] | None = None
        self._queued_states: deque[Outgoing] = deque()
        self._queued_events: deque[Outgoing] = deque()
        self._unacknowledged: dict[int, tuple[float, Outgoing]] = {}
        self._subscribed = not self._topics
        self._subscribing: dict[int | None, Sequence[str]] = {}
        self._earlier_commands: dict[str, bytes] = {}
        self._commands: list[tuple[str, bytes]] = []
        self._client = self._make_client()

    def connect(self, closing: threading.Event) -> None:
        """Open the connection, subscribe, and wait for both answers, or until `closing`.

        Raises Failure.
        """
        address, timeouts = self._options.address, self._options.timeouts
        five: dict[str, Any] = {}
        if self._protocol == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = _MAX_PACKET_BYTES
            properties.SessionExpiryInterval = 0 if self._clean else _SESSION_EXPIRY_S
            five = {"properties": properties, "clean_start": self._clean}
        try:
            self._client.connect(address.host, address.port, self._options.keepalive_s, **five)
        except (OSError, ValueError) as error:
            raise diagnostics.connect_failure(error, tls=address.tls) from error
        answer_by = time.monotonic() + timeouts.answer_s
        while (self._connack is None or not self._subscribed) and not closing.is_set():
            if time.monotonic() > answer_by:
                if self._connack is None:
                    raise diagnostics.silent(timeouts.answer_s)
                raise diagnostics.unacknowledged("the subscription to commands", timeouts.answer_s)
            self.serve()

    def serve(self, timeout_s: float = _POLL_S) -> None:
        """Read and write what is due, waiting for that at most so long; raises Failure."""
        client = self._client
        sock: Any = client.socket()
        try:
            unwritten = [sock] if client.want_write() else []
            readable, writable, _ = select.select([sock], unwritten, [], timeout_s)
            with self._changed:
                if readable:
                    self._read()
                while isinstance(sock, ssl.SSLSocket) and client.socket() and sock.pending():
                    # Decrypted already, so that `select` does not report it.
                    self._read()
                if writable:
                    client.loop_write()
                client.loop_misc()
                while len(self._unacknowledged) < self._window and (
                    queued := self._queued_states or self._queued_events
                ):
                    self._publish(queued.popleft())
                while self.waiting and not client.want_write():
                    self._publish(self.waiting.popleft())
                self._changed.notify_all()
                self._check_acknowledgements()
                commands, self._commands = self._commands, []
                states, self._states = self._states, []
        except Failure:
            raise
        except Exception as error:
            # paho parses malformed packets unchecked. If another thread noticed, while it sent a
            # message, that the connection has ended, `select` finds the socket closed.
            _log.debug("the connection cannot be served", exc_info=True)
            self._error = self._error or error
            self._malformed = client.socket() is not None and not isinstance(error, OSError)
            raise self._diagnose() from error
        if self._receiver is not None and self._subscribed:
            while self._earlier_commands:
                self._receiver.receive_earlier(*self._earlier_commands.popitem())
            for topic, payload in commands:
                self._receiver.receive(topic, payload)
        for topic, payload, retained in states:
            if self._retained is not None:
                self._retained.receive(topic, payload, retained=retained)
        if client.socket() is None:
            raise self._diagnose()

    def _read(self) -> None:
        if self._client.loop_read() == paho.MQTT_ERR_PROTOCOL:
            self._malformed = True

    def publish(self, message: Outgoing) -> None:
        """Write a message, or as much of it as the socket takes; `serve` writes the rest.

        Writing in the thread that publishes saves waking the network thread, half of the processor
        time of a message.
        """
        if self._max_bytes is not None and self._is_too_large(message, self._max_bytes):
            return
        if message.qos and len(self._unacknowledged) >= self._window:
            (self._queued_states if message.retain else self._queued_events).append(message)
        elif (self.waiting or self._client.want_write()) and message.transient:
            self.waiting.append(message)
        else:
            self._publish(message)

    def probe(self) -> None:
        """Send the next QoS 0 message of each topic with QoS 1, so that a broker can refuse it."""
        with self._changed:
            self._probed = set()

    def _is_too_large(self, message: Outgoing, max_bytes: int) -> bool:
        size = len(message.topic.encode()) + len(message.payload) + _MAX_HEADER_BYTES
        if size <= max_bytes:
            return False
        self.refused.append(diagnostics.too_large(message.topic, size, max_bytes))
        if message.on_acknowledged is not None:
            message.on_acknowledged()
        return True

    def _publish(self, message: Outgoing) -> None:
        topic, payload, qos, retain, _ = message
        if not qos and self._probed is not None and topic not in self._probed:
            self._probed.add(topic)
            qos = int(len(self._unacknowledged) < self._window)
        if qos:
            # Only while an acknowledgement is awaited: paho calls it for QoS 0 too, with a reason
            # code and properties that take as long to build as the rest of its loop.
            self._client.on_publish = self._on_publish
        elif topic not in self._first_sent:
            self._first_sent[topic] = time.monotonic()
        info = self._client.publish(topic, payload, qos, retain)
        if qos:
            self._unacknowledged[info.mid] = time.monotonic(), message

    def _check_acknowledgements(self) -> None:
        timeout_s = self._options.timeouts.acknowledge_s
        before_s = time.monotonic() - timeout_s
        late = [
            message.topic for sent_s, message in self._unacknowledged.values() if sent_s < before_s
        ]
        if late:
            raise diagnostics.unacknowledged(f"a message on {late[0]}", timeout_s, late)

    def watch(self, retained: RetainedWatcher) -> None:
        """Subscribe to the states of the node, and pass what the broker sends of them on."""
        retained.connected()
        with self._changed:
            self._retained = retained
            for filters in retained.filters:
                five = self._protocol == "5"
                requests: Any = [(name, SubscribeOptions() if five else 0) for name in filters]
                self._retained_subscriptions.add(self._client.subscribe(requests)[1])

    @property
    def max_packet_bytes(self) -> int | None:
        """The largest packet that the broker takes; None if it states no limit."""
        return self._max_bytes

    @property
    def acknowledges(self) -> bool:
        """Whether the broker has acknowledged any message."""
        return bool(self._acknowledged)

    @property
    def idle(self) -> bool:
        """Whether everything is written, and acknowledged if it has to be."""
        return not (self._unacknowledged or self.waiting or self._client.want_write())

    def disconnect(self) -> None:
        """Send DISCONNECT, so that the broker discards the last will."""
        with self._changed:
            self._client.disconnect()

    def close(self) -> None:
        """Close the socket; without DISCONNECT before, the broker publishes the last will."""
        with self._changed:
            sock = self._client.socket()
            if sock is not None:
                sock.close()

    def _diagnose(self) -> Failure:
        """Return why the connection is not open although nothing here closed it."""
        options, code = self._options, self._connack
        if code is not None and code.is_failure:
            password = self._password is not None
            return diagnostics.refused(code, options.address.username, password=password)
        suspects = self._suspects()
        if self._disconnect is not None:
            return diagnostics.ended_by_broker(self._disconnect, options.client_id, suspects)
        timed_out = self._timed_out or isinstance(self._error, TimeoutError)
        if code is None:
            if timed_out:
                return diagnostics.silent(options.keepalive_s)
            return diagnostics.no_answer(self._error, tls=options.address.tls)
        if timed_out:
            return diagnostics.half_open(options.keepalive_s)
        if self._malformed:
            return diagnostics.malformed()
        return diagnostics.lost(self._error, suspects)

    def _suspects(self) -> list[str]:
        """Return the topics of the messages at which the broker may have ended the connection.

        At a topic that it does not accept, a broker ends it soon after the first message.
        """
        since_s = time.monotonic() - self._options.timeouts.blame_s
        with self._changed:
            # Brokers answer in the order of the messages. mosquitto 2.0 acknowledges one that it
            # does not allow, and then ends the connection.
            sent = {m.topic: sent_s for sent_s, m in islice(self._unacknowledged.values(), 1)}
            sent |= self._acknowledged | self._first_sent
            return [topic for topic, sent_s in sent.items() if sent_s > since_s]

    # -- paho's callbacks, from within `serve` -------------------------------------------------

    def _make_client(self) -> paho.Client:
        options = self._options
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            clean_session=None if self._protocol == "5" else self._clean,
            protocol=_PROTOCOLS[self._protocol],
            # paho would otherwise try MQTT 3.1 by its own decision.
            reconnect_on_failure=False,
        )
        client.connect_timeout = options.timeouts.connect_s
        if options.address.username is not None:
            password = None if self._password is None else self._password.reveal()
            client.username_pw_set(options.address.username, password)
        if options.address.tls:
            client.tls_set_context(tls_context(options.tls))
        if options.availability is not None:
            client.will_set(options.availability, OFFLINE, qos=1, retain=True)
        # Not from getLogger, which keeps every logger: there is one for each connection.
        logger = logging.Logger("paho", logging.ERROR)  # noqa: LOG001
        logger.addFilter(self._on_error)
        client.enable_logger(logger)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_socket_open = self._on_socket_open
        return client

    def _on_connect(self, *event: Any) -> None:
        client, _, _, self._connack, properties = event
        if self._connack.is_failure:
            return
        # Zero is a protocol error, and would keep everything back.
        self._window = max(
            1, min(self._window, getattr(properties, "ReceiveMaximum", self._window))
        )
        self._max_bytes = getattr(properties, "MaximumPacketSize", None)
        if not self._topics:
            return
        # Retained commands matter if the broker has lost the session, and what waited in it.
        options: Any = SubscribeOptions(qos=1, retainHandling=1) if self._protocol == "5" else 1
        for group in in_groups(self._topics):
            number = client.subscribe([(topic, options) for topic in group])[1]
            self._subscribing[number] = group

    def _on_disconnect(self, *event: Any) -> None:
        _, _, flags, code, _ = event
        if not flags.is_disconnect_packet_from_server:
            self._timed_out = code.value == _KEEP_ALIVE_TIMEOUT
        elif code.value != 0:
            # paho 2.1 overlooks the reason code of a DISCONNECT that carries nothing else.
            self._disconnect = code

    def _on_publish(self, *event: Any) -> None:
        _, _, number, code, _ = event
        _, message = self._unacknowledged.pop(number, (0.0, None))
        if message is None:
            return
        self._acknowledged = {message.topic: time.monotonic()}
        if code.is_failure:
            self._refuse(f"messages on {message.topic}", code)
        if message.on_acknowledged is not None:
            message.on_acknowledged()
        if not self._unacknowledged:
            self._client.on_publish = None

    def _on_subscribe(self, *event: Any) -> None:
        _, _, number, codes, _ = event
        if self._retained is not None and number in self._retained_subscriptions:
            self._retained.subscribed()
            return
        for topic, code in zip(self._subscribing.pop(number, ()), codes, strict=False):
            if code.is_failure:
                self._refuse(f"the subscription to {topic}", code)
        self._subscribed = not self._subscribing

    def _refuse(self, subject: str, code: ReasonCode) -> None:
        self.refused.append(diagnostics.denied(subject, code, self._options.address.username))

    def _on_message(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        if not message.topic.endswith("/set"):
            self._states.append((message.topic, bytes(message.payload), message.retain))
        elif self._subscribed and not message.retain:
            self._commands.append((message.topic, bytes(message.payload)))
        elif message.payload in (ON, OFF):
            # Of the commands that waited for this client the newest counts.
            self._earlier_commands[message.topic] = bytes(message.payload)

    def _on_socket_open(self, _client: object, _userdata: object, sock: Any) -> None:
        # Nagle's algorithm holds a small message back until the one before it is acknowledged,
        # which the other side delays by up to 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Unacknowledged data then ends a dead connection after one keepalive instead of two.
        timeout_ms = self._options.keepalive_s * 1000
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)

    def _on_error(self, record: logging.LogRecord) -> bool:
        """Keep the reason why a socket failed, which paho only logs."""
        for argument in record.args if isinstance(record.args, tuple) else ():
            if isinstance(argument, OSError):
                self._error = argument
        return False
