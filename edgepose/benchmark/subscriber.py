"""A subscriber in another process that records when each pose message arrived."""

import json
import os
import queue
import select
import ssl
from multiprocessing import get_context, parent_process
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any, Final

import paho.mqtt.client as paho
from msgspec.structs import replace
from paho.mqtt.enums import CallbackAPIVersion

from edgepose.clock import boottime_ns
from edgepose.config.schema import MqttConfig
from edgepose.errors import BrokerError, EdgeposeError
from edgepose.mqtt.tls import tls_context

PATIENCE_S: Final = 5.0
"""How long to wait for missing messages after the last one that arrived."""
_POLL_S: Final = 1.0
_CONNECT_S: Final = 30.0
_CLOSE_S: Final = 5.0
_SUBSCRIBED: Final = "subscribed"


class Subscriber:
    """Subscribes to all topics under `root`, and deletes its retained messages at the end.

    Raises BrokerError if it cannot subscribe.
    """

    def __init__(self, mqtt: MqttConfig, root: str) -> None:
        context = get_context("spawn")
        self._messages: Queue[Any] = context.Queue()
        self._stop: Event = context.Event()
        # A secret is not pickled, and the arguments are in no list of processes.
        secret = mqtt.read_password()
        password = None if secret is None else secret.reveal()
        arguments = (self._messages, self._stop, replace(mqtt, password=None), password, root)
        self._process = context.Process(target=_record, args=arguments, daemon=True)
        self._process.start()
        answer = self._next(_CONNECT_S) or "no answer in time"
        if answer != _SUBSCRIBED:
            self.close()
            raise BrokerError(
                f"the benchmark cannot subscribe at {mqtt.address.netloc} ({answer}): check the "
                "broker, the user and its rights"
            )

    def collect(self, count: int) -> dict[int, int]:
        """Return the CLOCK_BOOTTIME of arrival by sequence number, of all since the last call.

        Waits until `count` have arrived, or no more arrive.
        """
        arrivals: dict[int, int] = {}
        while arrived := self._next(PATIENCE_S if len(arrivals) < count else 0):
            # A broker may deliver a message twice.
            arrivals.setdefault(*arrived)
        return arrivals

    def close(self) -> None:
        """End the process; closing twice is fine."""
        self._stop.set()
        self._process.join(_CLOSE_S)
        self._process.kill()
        self._process.join()

    def _next(self, timeout_s: float) -> Any:
        try:
            return self._messages.get(timeout=timeout_s)
        except queue.Empty:
            return None


def _record(
    messages: "Queue[Any]", stop: Event, mqtt: MqttConfig, password: str | None, root: str
) -> None:
    """Put (sequence number, time of arrival) of each pose message into the queue until `stop`.

    The first item is `subscribed`, or the reason why it is not.
    """
    # Ctrl-C ends the parent, which then clears the broker with this process's help.
    os.setsid()
    topics: set[str] = set()
    client = paho.Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)

    def on_connect(_client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            messages.put(str(code))
        else:
            client.subscribe(f"{root}/#", 0)

    def on_subscribe(_client: Any, _data: Any, _id: Any, codes: Any, _properties: Any) -> None:
        refused = any(code.is_failure for code in codes)
        messages.put("the subscription is refused" if refused else _SUBSCRIBED)

    arrived_ns = 0

    def on_message(_client: Any, _data: Any, message: Any) -> None:
        if message.topic.endswith("/poses"):
            messages.put((json.loads(message.payload)["sequence"], arrived_ns))
        else:
            topics.add(message.topic)

    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    try:
        if mqtt.address.username is not None:
            client.username_pw_set(mqtt.address.username, password)
        if mqtt.address.tls:
            client.tls_set_context(tls_context(mqtt.tls_files))
        client.connect(mqtt.address.host, mqtt.address.port)
    except (EdgeposeError, OSError, ValueError) as error:
        messages.put(getattr(error, "strerror", None) or str(error))
        return
    parent: Any = parent_process()
    while parent.is_alive() and not stop.is_set() and (sock := client.socket()) is not None:
        decrypted = isinstance(sock, ssl.SSLSocket) and sock.pending()
        if decrypted or select.select([sock], [], [], _POLL_S)[0]:
            # Before paho parses the message, which takes 0.1 ms.
            arrived_ns = boottime_ns()
            client.loop_read()
        client.loop_write()
        client.loop_misc()
    if client.is_connected():
        client.loop_start()
        for topic in topics:
            client.publish(topic, b"", 1, retain=True).wait_for_publish(PATIENCE_S)
