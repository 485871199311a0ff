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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

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
from edgepose.mqtt.topics import OFFLINE

if TYPE_CHECKING:
    from edgepose.mqtt.retained import RetainedTopics

_log = logging.getLogger("edgepose.mqtt")

_PROTOCOLS: Final = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_KEEP_ALIVE_TIMEOUT: Final = 0x8D
_MAX_UNACKNOWLEDGED: Final = 20
"""What mosquitto holds; paho ignores that a broker may allow fewer."""
# Commands have a few bytes. A client that may write to their topics could otherwise send 256 MB,
# which paho keeps in memory as a whole; MQTT 3.1.1 has no such limit.
_MAX_PACKET_BYTES: Final = 128 * 1024
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


class MqttConnection:
    """A connection that `connect` opens, and `serve` keeps until it raises why it ended.

    `connect` and `serve` are called by one thread, the others by any that holds `changed`, which is
    notified when messages were written. Transient messages are in `waiting` while the socket takes
    no more. What the broker refuses is appended to `refused`, with the reason.
    """

    def __init__(
        self,
        options: ConnectOptions,
        protocol: Protocol,
        tls_context: ssl.SSLContext | None,
        receiver: CommandReceiver | None,
        changed: threading.Condition,
    ) -> None:
        self.refused: list[tuple[str, ReasonCode]] = []
        self.waiting: deque[Outgoing] = deque()
        self._options = options
        self._protocol = protocol
        self._receiver = receiver
        self._topics = () if receiver is None else receiver.topics
        self._retained: RetainedTopics | None = None
        self._retained_subscriptions: set[int | None] = set()
        self._states: list[tuple[str, bytes, bool]] = []
        self._changed = changed
        self._connack: ReasonCode | None = None
        self._disconnect: ReasonCode | None = None
        self._timed_out = False
        self._error: Exception | None = None
        self._denied_topic: str | None = None
        self._window = _MAX_UNACKNOWLEDGED
        self._queued: deque[Outgoing] = deque()
        self._unacknowledged: dict[int, Outgoing] = {}
        self._commands: list[tuple[str, bytes, bool]] = []
        self._client = self._make_client(tls_context)

    def connect(self, closing: threading.Event) -> None:
        """Open the connection and wait for CONNACK, or until `closing`; raises Failure."""
        address, timeouts = self._options.address, self._options.timeouts
        properties = None
        if self._protocol == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = _MAX_PACKET_BYTES
        try:
            self._client.connect(
                address.host, address.port, self._options.keepalive_s, properties=properties
            )
        except (OSError, ValueError) as error:
            raise diagnostics.connect_failure(error, tls=address.tls) from error
        answer_by = time.monotonic() + timeouts.answer_s
        while self._connack is None and not closing.is_set():
            if time.monotonic() > answer_by:
                raise diagnostics.silent(timeouts.answer_s)
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
                    client.loop_read()
                while isinstance(sock, ssl.SSLSocket) and client.socket() and sock.pending():
                    # Decrypted already, so that `select` does not report it.
                    client.loop_read()
                if writable:
                    client.loop_write()
                client.loop_misc()
                while self._queued and len(self._unacknowledged) < self._window:
                    self._publish(self._queued.popleft())
                while self.waiting and not client.want_write():
                    self._publish(self.waiting.popleft())
                self._changed.notify_all()
                commands, self._commands = self._commands, []
                states, self._states = self._states, []
        except Exception as error:
            # paho parses malformed packets unchecked. If another thread noticed, while it sent a
            # message, that the connection has ended, `select` finds the socket closed.
            _log.debug("the connection cannot be served", exc_info=True)
            self._error = self._error or error
            raise self._diagnose() from error
        for topic, payload, retained in commands:
            if self._receiver is not None:
                self._receiver.receive(topic, payload, retained=retained)
        for topic, payload, retained in states:
            if self._retained is not None:
                self._retained.receive(topic, payload, retained=retained)
        if client.socket() is None:
            raise self._diagnose()

    def publish(self, message: Outgoing) -> None:
        """Write a message, or as much of it as the socket takes; `serve` writes the rest.

        Writing in the thread that publishes saves waking the network thread, half of the processor
        time of a message.
        """
        if message.qos and len(self._unacknowledged) >= self._window:
            self._queued.append(message)
        elif message.transient and (self.waiting or self._client.want_write()):
            self.waiting.append(message)
        else:
            self._publish(message)

    def _publish(self, message: Outgoing) -> None:
        topic, payload, qos, retain, _ = message
        if qos:
            # Only while an acknowledgement is awaited: paho calls it for QoS 0 too, with a reason
            # code and properties that take as long to build as the rest of its loop.
            self._client.on_publish = self._on_publish
        info = self._client.publish(topic, payload, qos, retain)
        if qos:
            self._unacknowledged[info.mid] = message

    def watch(self, retained: "RetainedTopics") -> None:
        """Subscribe to the states of the node, and pass what the broker sends of them on."""
        retained.connected()
        with self._changed:
            self._retained = retained
            for filters in retained.filters:
                five = self._protocol == "5"
                requests: Any = [(name, SubscribeOptions() if five else 0) for name in filters]
                self._retained_subscriptions.add(self._client.subscribe(requests)[1])

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
            password = options.password is not None
            return diagnostics.refused(code, options.address.username, password=password)
        if self._disconnect is not None:
            return diagnostics.ended_by_broker(self._disconnect, options.client_id)
        timed_out = self._timed_out or isinstance(self._error, TimeoutError)
        if code is None:
            if timed_out:
                return diagnostics.silent(options.keepalive_s)
            return diagnostics.no_answer(self._error, tls=options.address.tls)
        if timed_out:
            return diagnostics.half_open(options.keepalive_s)
        if self._denied_topic is not None:
            # mosquitto 2.0 ends the connection after a message it does not allow.
            return diagnostics.denied(self._denied_topic)
        return diagnostics.lost(self._error)

    # -- paho's callbacks, from within `serve` -------------------------------------------------

    def _make_client(self, tls_context: ssl.SSLContext | None) -> paho.Client:
        options = self._options
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=_PROTOCOLS[self._protocol],
            # paho would otherwise try MQTT 3.1 by its own decision.
            reconnect_on_failure=False,
        )
        client.connect_timeout = options.timeouts.connect_s
        if options.address.username is not None:
            password = None if options.password is None else options.password.reveal()
            client.username_pw_set(options.address.username, password)
        if tls_context is not None:
            client.tls_set_context(tls_context)
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
        self._window = min(self._window, getattr(properties, "ReceiveMaximum", self._window))
        if not self._topics:
            return
        if self._protocol == "5":
            # A retained command is old: it must not open a camera.
            options = SubscribeOptions(qos=1, retainHandling=2)
            client.subscribe([(topic, options) for topic in self._topics])
        else:
            client.subscribe([(topic, 1) for topic in self._topics])

    def _on_disconnect(self, *event: Any) -> None:
        _, _, flags, code, _ = event
        if not flags.is_disconnect_packet_from_server:
            self._timed_out = code.value == _KEEP_ALIVE_TIMEOUT
        elif code.value != 0:
            # paho 2.1 overlooks the reason code of a DISCONNECT that carries nothing else.
            self._disconnect = code

    def _on_publish(self, *event: Any) -> None:
        _, _, number, code, _ = event
        message = self._unacknowledged.pop(number, None)
        if message is None:
            return
        if code.is_failure:
            self._denied_topic = message.topic
            self.refused.append((f"messages on {message.topic}", code))
        if message.on_acknowledged is not None:
            message.on_acknowledged()
        if not self._unacknowledged:
            self._client.on_publish = None

    def _on_subscribe(self, *event: Any) -> None:
        _, _, number, codes, _ = event
        if self._retained is not None and number in self._retained_subscriptions:
            self._retained.subscribed()
            return
        for topic, code in zip(self._topics, codes, strict=False):
            if code.is_failure:
                self.refused.append((f"the subscription to {topic}", code))

    def _on_message(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        if not message.topic.endswith("/set"):
            self._states.append((message.topic, bytes(message.payload), message.retain))
            return
        self._commands.append((message.topic, bytes(message.payload), message.retain))

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
