"""A subscriber that reconnects, for programs beside the daemon."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from edgepose.errors import EdgeposeError
from edgepose.mqtt import diagnostics
from edgepose.mqtt.diagnostics import Failure
from edgepose.mqtt.options import ConnectOptions
from edgepose.mqtt.tls import tls_context

_POLL_S: Final = 0.5
_PAUSE_S: Final = 2.0
_CLEAR_POLL_S: Final = 0.01


class MqttSubscriber:
    """Receives what is published on a filter, in a thread, on a connection that is restored.

    `on_message` is called with topic and payload, `on_connection` with None once it is subscribed
    and with the reason whenever it is not; both in that thread.
    """

    def __init__(
        self,
        options: ConnectOptions,
        topic_filter: str,
        on_message: Callable[[str, bytes], None],
        on_connection: Callable[[str | None], None],
    ) -> None:
        self._options = options
        self._filter = topic_filter
        self._receive = on_message
        self._on_connection = on_connection
        self._closing = threading.Event()
        self._client: paho.Client | None = None
        # Set by paho's callbacks, from within `loop`.
        self._answer: list[ReasonCode] = []
        self._refused: list[ReasonCode] = []
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(self) -> None:
        """Start connecting; returns at once."""
        self._thread.start()

    def publish(self, topic: str, payload: bytes) -> bool:
        """Publish with QoS 1; return False without a connection."""
        client = self._client
        return client is not None and client.publish(topic, payload, 1).rc == paho.MQTT_ERR_SUCCESS

    def clear(self, topics: Iterable[str], timeout_s: float) -> None:
        """Clear what the broker retains on topics, and wait for it at most so long."""
        client, end_s = self._client, time.monotonic() + timeout_s
        if client is None:
            return
        sent = [client.publish(topic, None, 1, retain=True) for topic in topics]
        while any(not one.is_published() for one in sent if one.rc == paho.MQTT_ERR_SUCCESS):
            if time.monotonic() > end_s:
                return
            time.sleep(_CLEAR_POLL_S)

    def close(self) -> None:
        """End the connection; does not wait for a name lookup."""
        self._closing.set()
        self._thread.join(2 * _POLL_S)

    def _run(self) -> None:
        address = self._options.address
        while not self._closing.is_set():
            try:
                self._connect_and_serve()
            except Failure as failure:
                self._on_connection(f"the MQTT broker {address.netloc} {failure}")
            except EdgeposeError as error:
                self._on_connection(str(error))
            self._client = None
            self._closing.wait(_PAUSE_S)

    def _connect_and_serve(self) -> None:
        """Serve one connection until `close`; raises Failure, or EdgeposeError."""
        options, address = self._options, self._options.address
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            protocol=MQTTProtocolVersion.MQTTv5
            if options.protocol == "5"
            else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        self._answer, self._refused = [], []
        client.on_connect, client.on_subscribe = self._on_connect, self._on_subscribe
        client.on_message = self._on_message
        password = options.read_password()
        if address.username is not None:
            client.username_pw_set(
                address.username, None if password is None else password.reveal()
            )
        if address.tls:
            client.tls_set_context(tls_context(options.tls))
        try:
            client.connect(address.host, address.port, options.keepalive_s)
        except (OSError, ValueError) as error:
            raise diagnostics.connect_failure(error, tls=address.tls) from error
        answer_by = time.monotonic() + options.timeouts.answer_s
        while not self._closing.is_set():
            ended = client.loop(_POLL_S) != paho.MQTT_ERR_SUCCESS
            for code in self._answer:
                if code.is_failure:
                    given = password is not None
                    raise diagnostics.refused(code, address.username, password=given)
            for code in self._refused:
                subject = f"the subscription to {self._filter}"
                raise diagnostics.denied(subject, code, address.username)
            if ended and not self._answer:
                raise diagnostics.no_answer(None, tls=address.tls)
            if ended:
                raise diagnostics.lost(None, ())
            if not self._answer and time.monotonic() > answer_by:
                raise diagnostics.silent(options.timeouts.answer_s)
        client.disconnect()

    def _on_connect(self, client: paho.Client, *event: Any) -> None:
        self._answer.append(event[2])
        if not event[2].is_failure:
            client.subscribe(self._filter, 0)

    def _on_subscribe(self, client: paho.Client, *event: Any) -> None:
        (code,) = event[2]
        if code.is_failure:
            self._refused.append(code)
        else:
            self._client = client
            self._on_connection(None)

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self._receive(message.topic, bytes(message.payload))
