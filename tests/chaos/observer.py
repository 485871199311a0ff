"""A subscriber to all topics that keeps when each message arrived, and misses none."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.resource import Resource

_RETRY_S = 0.01
_SESSION_S = 3600
_MAX_PACKET_BYTES = 1_000_000
"""The broker withholds larger messages, such as commands that are to harm the daemon."""
_MARKER_TOPIC = "chaos/marker"
_markers = itertools.count()


class WaitTimeoutError(Exception):
    """A condition did not hold in time."""


def wait(condition: Callable[[], object], what: str, patience_s: float = 25.0) -> float:
    """Wait for a condition and return when it held (monotonic); raises WaitTimeoutError."""
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end:
            raise WaitTimeoutError(f"waited {patience_s:g} s in vain for {what}")
        time.sleep(0.005)
    return time.monotonic()


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message and when it arrived, in seconds of the monotonic clock."""

    at_s: float
    topic: str
    payload: bytes
    retained: bool


class Observer(Resource):
    """Reconnects within milliseconds, and resumes its session if the broker still has it."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        name: str = "chaos-observer",
        user: tuple[str, str] | None = None,
    ) -> None:
        self.arrivals: list[Arrival] = []
        self.subscribed = False
        self._address = host, port
        self._closing = False
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv5
        )
        if user is not None:
            client.username_pw_set(*user)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def open(self) -> None:
        self._thread.start()
        wait(lambda: self.subscribed, "the observer to be subscribed")

    def close(self) -> None:
        self._closing = True
        self._thread.join(5)

    def payloads(self, topic: str) -> list[bytes]:
        """Return the payloads of a topic in order."""
        return [arrival.payload for arrival in list(self.arrivals) if arrival.topic == topic]

    def last(self, topic: str) -> bytes | None:
        """Return the last payload of a topic."""
        return next((a.payload for a in reversed(list(self.arrivals)) if a.topic == topic), None)

    def wait_for(
        self,
        topic: str,
        matches: Callable[[bytes], object] = lambda _: True,
        *,
        after_s: float = 0.0,
        patience_s: float = 25.0,
    ) -> Arrival:
        """Return the first message on a topic that matches and arrived after `after_s`."""
        found: list[Arrival] = []
        start = 0

        def found_one() -> bool:
            nonlocal start
            arrivals = self.arrivals
            end = len(arrivals)
            for arrival in arrivals[start:end]:
                if arrival.topic == topic and arrival.at_s > after_s and matches(arrival.payload):
                    found.append(arrival)
                    return True
            start = end
            return False

        wait(found_one, f"a message on {topic}", patience_s)
        return found[0]

    def drain(self) -> None:
        """Wait until all messages that the broker has received so far have arrived here."""
        marker = next(_markers)
        self._client.publish(_MARKER_TOPIC, marker, 1)
        self.wait_for(_MARKER_TOPIC, lambda payload: payload == b"%d" % marker)

    def _on_connect(self, *_: object) -> None:
        self._client.subscribe("#", 1)

    def _on_subscribe(self, *_: object) -> None:
        self.subscribed = True

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self.arrivals.append(
            Arrival(time.monotonic(), message.topic, bytes(message.payload), message.retain)
        )

    def _run(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = _SESSION_S
        properties.MaximumPacketSize = _MAX_PACKET_BYTES
        while not self._closing:
            self.subscribed = False
            try:
                # Long, so that a broker frozen for a while is not taken for a dead one.
                self._client.connect(
                    *self._address, keepalive=600, clean_start=False, properties=properties
                )
            except OSError:
                time.sleep(_RETRY_S)
                continue
            while not self._closing and self._client.loop(0.1) == paho.MQTT_ERR_SUCCESS:
                pass
            self.subscribed = False
        with contextlib.suppress(OSError):
            self._client.disconnect()


def retained(host: str, port: int, user: tuple[str, str] | None = None) -> dict[str, bytes]:
    """Return the retained messages of a broker, as a new subscriber receives them."""
    with Observer(host, port, name="chaos-retained", user=user) as subscriber:
        subscriber.drain()
        return {a.topic: a.payload for a in list(subscriber.arrivals) if a.retained}
