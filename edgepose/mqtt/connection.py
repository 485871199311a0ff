"""One connection to a broker, from its beginning to its end.

paho-mqtt does the protocol; it is driven through its interface for outside event loops, because
its own loop hides why a connection failed, ends for good at an exception in a callback, keeps
messages without bound and waits the same time in every node. Only one thread at a time touches
paho, and every connection gets a client of its own, so nothing waits inside it.
"""

import logging
import os
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edgepose.mqtt.outbox import Outgoing
from edgepose.mqtt.url import BrokerAddress, Secret

_log = logging.getLogger("edgepose.mqtt")

Protocol = Literal["5", "3.1.1"]

_PROTOCOLS: Final = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_FIRST_ERROR_CODE: Final = 0x80
# paho and mosquitto both hold 20 unacknowledged messages; more would wait inside paho.
_MAX_UNACKNOWLEDGED: Final = 20
# Orders have three bytes. Whoever may write to their topics could otherwise send 256 MB, which
# paho keeps in memory as a whole; MQTT 3.1.1 has no such limit.
_MAX_PACKET_BYTES: Final = 128 * 1024
# Packet type 3; quality of service 0, neither retained nor sent before.
_PUBLISH: Final = b"\x30"


@dataclass(frozen=True, slots=True)
class LastWill:
    """What the broker tells the others: `here` while we are connected, `gone` when we are not."""

    topic: str
    here: bytes
    gone: bytes


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """Where to connect to, as whom and how."""

    address: BrokerAddress
    client_id: str
    password: Secret | None
    tls_context: ssl.SSLContext | None
    keepalive_s: int
    connect_s: float
    will: LastWill | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A reason code of MQTT 5, to which paho also translates what MQTT 3.1.1 says, and its name."""

    code: int
    name: str

    @property
    def is_error(self) -> bool:
        """Whether it means no."""
        return self.code >= _FIRST_ERROR_CODE


class UnreadableError(Exception):
    """Bytes from the broker that paho could not make sense of."""


class MqttConnection:
    """A connection with what is known of it.

    `answer` is what the broker said to CONNECT, `ending` its DISCONNECT or paho's own reason, and
    `socket_error` what the socket said, each None before it is known. `topics` are subscribed to;
    `receive(topic, payload, retained)` gets what arrives there. One thread serves it; others may
    `publish` while they hold `lock`, which that one lets go of while it waits, and end its wait by
    the file descriptor `wake_fd` (an eventfd).
    """

    def __init__(
        self,
        login: ConnectOptions,
        protocol: Protocol,
        *,
        topics: Sequence[str],
        receive: Callable[[str, bytes, bool], None],
        wake_fd: int,
    ) -> None:
        self.answer: Answer | None = None
        self.ending: Answer | None = None
        self.ended_by_broker = False
        self.socket_error: OSError | None = None
        self.refused_topics: list[tuple[str, Answer]] = []
        self.lock = threading.RLock()
        self._login = login
        self._protocol = protocol
        self._topics = tuple(topics)
        self._receive = receive
        self._wake_fd = wake_fd
        self._poller = select.poll()
        self._poller.register(wake_fd, select.POLLIN)
        self._window = _MAX_UNACKNOWLEDGED
        self._unacknowledged: dict[int, Outgoing] = {}
        self._acknowledged: deque[tuple[int, Answer]] = deque()
        self._unsent = b""
        self._heads: dict[str, bytes] = {}
        self._client = self._make_client()

    # -- what the network thread calls -------------------------------------------------------

    def connect(self) -> None:
        """Open the connection and say CONNECT; raises OSError or ValueError where that fails."""
        self._client.connect(
            self._login.address.host,
            self._login.address.port,
            self._login.keepalive_s,
            clean_start=(True if self._protocol == "5" else paho.MQTT_CLEAN_START_FIRST_ONLY),
            properties=_connect_properties() if self._protocol == "5" else None,
        )

    @property
    def open(self) -> bool:
        """Whether there still is a socket."""
        return self._client.socket() is not None

    @property
    def up(self) -> bool:
        """Whether the broker let us in."""
        return self.answer is not None and not self.answer.is_error

    @property
    def writable(self) -> bool:
        """Whether the socket has taken everything so far."""
        return self.open and not self._wants_write()

    @property
    def has_window(self) -> bool:
        """Whether another message may wait for its acknowledgement."""
        return len(self._unacknowledged) < self._window

    @property
    def idle(self) -> bool:
        """Whether everything is written, and acknowledged where it has to be."""
        return not self._unacknowledged and not self._wants_write()

    def step(self, patience_s: float) -> None:
        """Wait so long for something to do, and do it; raises UnreadableError."""
        with self.lock:
            sock: Any = self._client.socket()
            if sock is None:
                return
            fd = sock.fileno()
            writing = self._wants_write()
            self._poller.register(fd, select.POLLIN | (select.POLLOUT if writing else 0))
            # Bytes that TLS has already decrypted are invisible to poll.
            pending = getattr(sock, "pending", None)
            readable = bool(pending is not None and pending())
        # paho looks after its keepalive only when asked to.
        patience_s = 0 if readable else min(patience_s, self._login.keepalive_s / 4)
        for event_fd, event in self._poller.poll(patience_s * 1000):
            if event_fd == self._wake_fd:
                os.eventfd_read(self._wake_fd)
            elif event_fd == fd and event & ~select.POLLOUT:
                readable = True
        with self.lock:
            if readable:
                try:
                    self._client.loop_read()
                except Exception as error:
                    # paho takes malformed packets apart unchecked.
                    raise UnreadableError(type(error).__name__) from error
            self._write()
            self._client.loop_misc()

    def publish(self, message: Outgoing) -> bool:
        """Send a message, as far as the socket takes it now; return whether it took all."""
        with self.lock:
            sock: Any = self._client.socket()
            tls = self._login.tls_context is not None
            if not (message.qos or message.retain or tls or sock is None or self._wants_write()):
                self._send_past_paho(sock, message)
                return not self._unsent
            info = self._client.publish(
                message.topic, message.payload, qos=message.qos, retain=message.retain
            )
            if message.qos:
                self._unacknowledged[info.mid] = message
            self._write()
            return not self._wants_write()

    def _send_past_paho(self, sock: Any, message: Outgoing) -> None:
        """Send a message that nobody will ask after, past paho.

        paho keeps an account of every message, which for these takes longer than sending them.
        """
        topic, payload = message.topic, message.payload
        head = self._heads.get(topic)
        if head is None:
            head = self._heads[topic] = _publish_head(topic, self._protocol == "5")
        packet = b"".join((_PUBLISH, _variable_length(len(head) + len(payload)), head, payload))
        try:
            sent = sock.send(packet)
        except BlockingIOError:
            sent = 0
        except OSError:
            # paho finds out when it reads, and tells why.
            return
        if sent < len(packet):
            self._unsent = packet[sent:]

    def acknowledged(self) -> Iterator[tuple[Outgoing, Answer]]:
        """Yield the messages that the broker answered since the last call."""
        while self._acknowledged:
            number, answer = self._acknowledged.popleft()
            message = self._unacknowledged.pop(number, None)
            if message is not None:
                yield message, answer

    def forget_unacknowledged(self) -> None:
        """Wait for no answers to what was sent so far."""
        self._unacknowledged.clear()

    def disconnect(self) -> None:
        """Say goodbye, so that the broker keeps the will to itself."""
        with self.lock:
            self._client.disconnect()
            self._write()

    def close(self) -> None:
        """Close the socket, without a goodbye where none was said; twice is fine."""
        with self.lock:
            sock = self._client.socket()
            if sock is not None:
                sock.close()

    def _wants_write(self) -> bool:
        return bool(self._unsent) or self._client.want_write()

    def _write(self) -> None:
        """Go on sending, what is half sent first."""
        if self._unsent:
            sock: Any = self._client.socket()
            try:
                self._unsent = self._unsent[sock.send(self._unsent) :] if sock else b""
            except BlockingIOError:
                return
            except OSError:
                self._unsent = b""
            if self._unsent:
                return
        if self._client.want_write():
            self._client.loop_write()

    # -- paho's callbacks, on the same thread, from within `step` -------------------------------

    def _make_client(self) -> paho.Client:
        login = self._login
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=login.client_id,
            protocol=_PROTOCOLS[self._protocol],
            clean_session=None if self._protocol == "5" else True,
            # paho would otherwise try MQTT 3.1 behind our back.
            reconnect_on_failure=False,
        )
        client.connect_timeout = login.connect_s
        if login.address.username is not None:
            password = None if login.password is None else login.password.reveal()
            client.username_pw_set(login.address.username, password)
        if login.tls_context is not None:
            client.tls_set_context(login.tls_context)
        if login.will is not None:
            client.will_set(login.will.topic, login.will.gone, qos=1, retain=True)
        client.enable_logger(self._error_catcher())
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_socket_open = self._on_socket_open
        # With this callback set, paho leaves writing to `step`.
        client.on_socket_register_write = _do_nothing
        return client

    def _on_connect(
        self,
        client: paho.Client,
        _userdata: object,
        _flags: object,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self.answer = _answer(code)
        if not self.up:
            return
        self._window = min(self._window, getattr(properties, "ReceiveMaximum", self._window))
        if not self._topics:
            return
        if self._protocol == "5":
            # Only orders given now count: an old one that the broker kept must not open a camera.
            options = SubscribeOptions(qos=1, retainHandling=2)
            client.subscribe([(topic, options) for topic in self._topics])
        else:
            client.subscribe([(topic, 1) for topic in self._topics])

    def _on_disconnect(
        self,
        _client: paho.Client,
        _userdata: object,
        flags: paho.DisconnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self.ending = _answer(code)
        # paho 2.1 overlooks the reason code of a DISCONNECT that carries nothing else.
        self.ended_by_broker = flags.is_disconnect_packet_from_server and self.ending.code != 0

    def _on_publish(
        self,
        _client: paho.Client,
        _userdata: object,
        number: int,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._acknowledged.append((number, _answer(code)))

    def _on_subscribe(
        self,
        _client: paho.Client,
        _userdata: object,
        _number: int,
        codes: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        answers = zip(self._topics, map(_answer, codes), strict=False)
        self.refused_topics += [(topic, answer) for topic, answer in answers if answer.is_error]

    def _on_message(
        self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage
    ) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        self._receive(topic, bytes(message.payload), message.retain)

    def _on_socket_open(self, _client: paho.Client, _userdata: object, sock: Any) -> None:
        # Nagle's algorithm holds a small message back until the one before it is acknowledged,
        # which the other side delays by up to 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Unacknowledged data then ends a dead link after one keepalive instead of two.
        sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(2, self._login.keepalive_s) * 1000
        )

    def _error_catcher(self) -> logging.Logger:
        # Not from getLogger: it keeps every logger for ever, and there is one for each connection.
        logger = logging.Logger("paho", logging.ERROR)  # noqa: LOG001
        logger.addHandler(_ErrorCatcher(self))
        return logger


class _ErrorCatcher(logging.Handler):
    """Keeps the reason why a socket failed, which paho only tells its log."""

    def __init__(self, session: MqttConnection) -> None:
        super().__init__(logging.ERROR)
        self._session = session

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception that a record was made of."""
        for argument in record.args if isinstance(record.args, tuple) else ():
            if isinstance(argument, OSError):
                self._session.socket_error = argument


def _answer(code: ReasonCode) -> Answer:
    return Answer(code.value, str(code).lower())


def _publish_head(topic: str, has_properties: bool) -> bytes:
    """Return what stands between a PUBLISH's length and its payload (MQTT 5.0, section 3.3.2)."""
    name = topic.encode()
    return len(name).to_bytes(2, "big") + name + (b"\0" if has_properties else b"")


def _variable_length(length: int) -> bytes:
    """Return a length, 7 bits a byte, the lowest first (MQTT 5.0, section 1.5.5)."""
    digits = bytearray()
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    digits.append(length)
    return bytes(digits)


def _connect_properties() -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = _MAX_PACKET_BYTES
    return properties


def _do_nothing(_client: paho.Client, _userdata: object, _sock: object) -> None:
    pass
