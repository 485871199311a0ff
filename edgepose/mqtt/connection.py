"""One connection to a broker, from its beginning to its end, by paho-mqtt.

Every connection has a client of its own, so nothing waits inside paho, and its loop runs in our
network thread: `loop_start` hides why a connection failed, ends for good at an exception in a
callback, and waits the same time in every node.
"""

import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode as PahoReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edgepose.mqtt.outbox import Outgoing
from edgepose.mqtt.url import BrokerAddress, Secret

Protocol = Literal["5", "3.1.1"]

_PROTOCOLS: Final = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_FIRST_ERROR_CODE: Final = 0x80
# paho and mosquitto both hold 20 unacknowledged messages; more would wait inside paho.
_MAX_UNACKNOWLEDGED: Final = 20
_MAX_UNWRITTEN: Final = 4
"""Transient messages that paho may hold while the socket takes no more."""
# Commands have a few bytes. A client that may write to their topics could otherwise send 256 MB,
# which paho keeps in memory as a whole; MQTT 3.1.1 has no such limit.
_MAX_PACKET_BYTES: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class LastWill:
    """A retained topic with its payloads while we are connected, and after that."""

    topic: str
    online_payload: bytes
    offline_payload: bytes


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """Where to connect to, as which client and how."""

    address: BrokerAddress
    client_id: str
    password: Secret | None
    tls_context: ssl.SSLContext | None
    keepalive_s: int
    connect_s: float
    will: LastWill | None


@dataclass(frozen=True, slots=True)
class ReasonCode:
    """A reason code of MQTT 5 and its name; paho translates those of MQTT 3.1.1 to it."""

    code: int
    name: str

    @property
    def is_error(self) -> bool:
        """Whether it is a refusal."""
        return self.code >= _FIRST_ERROR_CODE


class UnreadableError(Exception):
    """Bytes from the broker that paho could not parse."""


class MqttConnection:
    """A connection and what is known of it.

    `connack` is the broker's answer to CONNECT, `ending` its DISCONNECT or paho's own reason, and
    `socket_error` the error of the socket, each None before it is known. `topics` are subscribed
    to; `receive(topic, payload, retained)` gets what arrives there. `serve` is called by one
    thread; `publish`, `has_window` and `takes_transient` by any, one at a time.
    """

    def __init__(
        self,
        options: ConnectOptions,
        protocol: Protocol,
        *,
        topics: Sequence[str],
        receive: Callable[[str, bytes, bool], None],
    ) -> None:
        self.connack: ReasonCode | None = None
        self.ending: ReasonCode | None = None
        self.ended_by_broker = False
        self.socket_error: OSError | None = None
        self.refused_topics: list[tuple[str, ReasonCode]] = []
        self._options = options
        self._protocol = protocol
        self._topics = tuple(topics)
        self._receive = receive
        self._window = _MAX_UNACKNOWLEDGED
        self._unacknowledged: dict[int, Outgoing] = {}
        self._unwritten: deque[paho.MQTTMessageInfo] = deque()
        self._published: deque[tuple[int, ReasonCode]] = deque()
        self._client = self._make_client()

    def connect(self) -> None:
        """Open the connection and send CONNECT; raises OSError or ValueError."""
        self._client.connect(
            self._options.address.host,
            self._options.address.port,
            self._options.keepalive_s,
            clean_start=(True if self._protocol == "5" else paho.MQTT_CLEAN_START_FIRST_ONLY),
            properties=_connect_properties() if self._protocol == "5" else None,
        )

    @property
    def open(self) -> bool:
        """Whether there is a socket."""
        return self._client.socket() is not None

    @property
    def has_window(self) -> bool:
        """Whether another message may wait for its acknowledgement."""
        return len(self._unacknowledged) < self._window

    @property
    def takes_transient(self) -> bool:
        """Whether the socket has taken nearly everything so far."""
        while self._unwritten and self._unwritten[0].is_published():
            self._unwritten.popleft()
        return len(self._unwritten) < _MAX_UNWRITTEN

    @property
    def idle(self) -> bool:
        """Whether everything is written, and acknowledged if it has to be."""
        written = all(info.is_published() for info in tuple(self._unwritten))
        return written and not (self._unacknowledged or self._client.want_write())

    def serve(self, timeout_s: float) -> None:
        """Read and write what is due, waiting for that at most so long; raises UnreadableError."""
        try:
            # paho checks its keepalive only when it is called.
            self._client.loop(min(timeout_s, self._options.keepalive_s / 4))
        except Exception as error:
            # paho parses malformed packets unchecked.
            raise UnreadableError(type(error).__name__) from error

    def publish(self, message: Outgoing) -> None:
        """Queue a message and wake `serve`, which sends it."""
        if message.qos:
            # Only while an acknowledgement is awaited: paho calls it for QoS 0 too, with a reason
            # code and properties that take as long to build as the rest of its loop.
            self._client.on_publish = self._on_publish
        info = self._client.publish(
            message.topic, message.payload, qos=message.qos, retain=message.retain
        )
        if message.qos:
            self._unacknowledged[info.mid] = message
        elif info.rc is paho.MQTT_ERR_SUCCESS:
            self._unwritten.append(info)

    def acknowledged(self) -> Iterator[tuple[Outgoing, ReasonCode]]:
        """Yield the messages that the broker acknowledged since the last call."""
        while self._published:
            number, reason = self._published.popleft()
            message = self._unacknowledged.pop(number, None)
            if message is not None:
                yield message, reason
        if not self._unacknowledged:
            self._client.on_publish = None

    def forget_unacknowledged(self) -> None:
        """Wait for no more acknowledgements."""
        self._unacknowledged.clear()

    def disconnect(self) -> None:
        """Send DISCONNECT, so that the broker discards the last will."""
        self._client.disconnect()
        self._client.loop(0.1)

    def close(self) -> None:
        """Close the socket, without DISCONNECT if none was sent; closing twice is fine."""
        client = self._client
        sock = client.socket()
        if sock is not None:
            sock.close()
        # Its callbacks refer to us: without them it is freed, with the sockets that wake its loop,
        # as soon as this connection is.
        client.disable_logger()
        client.on_connect = client.on_disconnect = client.on_publish = None
        client.on_subscribe = client.on_message = client.on_socket_open = None

    # -- paho's callbacks, from within `serve` -------------------------------------------------

    def _make_client(self) -> paho.Client:
        options = self._options
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=_PROTOCOLS[self._protocol],
            clean_session=None if self._protocol == "5" else True,
            # paho would otherwise try MQTT 3.1 by its own decision.
            reconnect_on_failure=False,
        )
        client.connect_timeout = options.connect_s
        if options.address.username is not None:
            password = None if options.password is None else options.password.reveal()
            client.username_pw_set(options.address.username, password)
        if options.tls_context is not None:
            client.tls_set_context(options.tls_context)
        if options.will is not None:
            client.will_set(options.will.topic, options.will.offline_payload, qos=1, retain=True)
        client.enable_logger(self._error_catcher())
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_socket_open = self._on_socket_open
        # With this callback set, `publish` never writes in the thread that calls it.
        client.on_socket_register_write = _do_nothing
        return client

    def _on_connect(
        self,
        client: paho.Client,
        _userdata: object,
        _flags: object,
        code: PahoReasonCode,
        properties: Properties | None,
    ) -> None:
        self.connack = _reason(code)
        if self.connack.is_error:
            return
        self._window = min(self._window, getattr(properties, "ReceiveMaximum", self._window))
        if not self._topics:
            return
        if self._protocol == "5":
            # A retained command is old: it must not open a camera.
            options = SubscribeOptions(qos=1, retainHandling=2)
            client.subscribe([(topic, options) for topic in self._topics])
        else:
            client.subscribe([(topic, 1) for topic in self._topics])

    def _on_disconnect(
        self,
        _client: paho.Client,
        _userdata: object,
        flags: paho.DisconnectFlags,
        code: PahoReasonCode,
        _properties: Properties | None,
    ) -> None:
        self.ending = _reason(code)
        # paho 2.1 overlooks the reason code of a DISCONNECT that carries nothing else.
        self.ended_by_broker = flags.is_disconnect_packet_from_server and self.ending.code != 0

    def _on_publish(
        self,
        _client: paho.Client,
        _userdata: object,
        number: int,
        code: PahoReasonCode,
        _properties: Properties | None,
    ) -> None:
        # paho holds locks here that `publish` needs: no lock of ours may be taken.
        self._published.append((number, _reason(code)))

    def _on_subscribe(
        self,
        _client: paho.Client,
        _userdata: object,
        _number: int,
        codes: list[PahoReasonCode],
        _properties: Properties | None,
    ) -> None:
        reasons = zip(self._topics, map(_reason, codes), strict=False)
        self.refused_topics += [(topic, reason) for topic, reason in reasons if reason.is_error]

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
        # Unacknowledged data then ends a dead connection after one keepalive instead of two.
        sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(2, self._options.keepalive_s) * 1000
        )

    def _error_catcher(self) -> logging.Logger:
        # Not from getLogger, which keeps every logger: there is one for each connection.
        logger = logging.Logger("paho", logging.ERROR)  # noqa: LOG001
        logger.addHandler(_ErrorCatcher(self))
        return logger


class _ErrorCatcher(logging.Handler):
    """Keeps the reason why a socket failed, which paho only logs."""

    def __init__(self, connection: MqttConnection) -> None:
        super().__init__(logging.ERROR)
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception in a record's arguments."""
        for argument in record.args if isinstance(record.args, tuple) else ():
            if isinstance(argument, OSError):
                self._connection.socket_error = argument


def _reason(code: PahoReasonCode) -> ReasonCode:
    return ReasonCode(code.value, str(code).lower())


def _connect_properties() -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = _MAX_PACKET_BYTES
    return properties


def _do_nothing(_client: paho.Client, _userdata: object, _sock: object) -> None:
    pass
