"""Pose messages, states and events onto MQTT."""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edgepose import messages
from edgepose.errors import BrokerError
from edgepose.messages import PoseMessage
from edgepose.mqtt.client import MqttClient, MqttTimeouts
from edgepose.mqtt.connection import LastWill, Protocol
from edgepose.mqtt.event_store import EventStore
from edgepose.mqtt.topics import OFF, OFFLINE, ON, ONLINE, Kind, Topics
from edgepose.mqtt.url import BrokerAddress, Secret, TlsFiles
from edgepose.util.resource import Resource

SPOOL_FILE: Final = "waiting-events.ndjson"
_MAX_EVENTS: Final = 1000
_PUBLISHER_PATIENCE_S: Final = 10.0
_SWITCH: Final = {ON: True, OFF: False}


class MqttSink:
    """One node on the broker: its poses, states and events, and the orders it takes.

    No method waits for the network (but for `close`, briefly, and `open` where asked to). While
    the broker is away, pose messages are dropped and counted, of each state the newest is kept,
    and up to 1000 events wait in order, in `state_directory` even over a restart.

    `info` is the payload of the info topic. `on_command(camera, enabled)` is called on the network
    thread for a valid order to a camera's privacy switch. `protocol` "5" steps down to "3.1.1"
    where the broker knows no 5; MQTT 5 is the default because only its reason codes tell a lack of
    rights, or a second client with the same id, from a broken connection. `monotonic` is in
    seconds, `chance` in 0..1.
    Raises ConfigError for TLS files that cannot be used.
    """

    def __init__(
        self,
        *,
        address: BrokerAddress,
        topics: Topics,
        client_id: str,
        cameras: Sequence[str],
        info: bytes,
        username: str | None = None,
        password: Secret | None = None,
        tls: TlsFiles | None = None,
        protocol: Protocol = "5",
        keepalive_s: int = 10,
        state_directory: Path | None = None,
        on_command: Callable[[str, bool], None] | None = None,
        times: MqttTimeouts | None = None,
        chance: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.topics = topics
        self._pose_topics = {camera: topics.poses(camera) for camera in cameras}
        self._on_command = on_command
        self._client = MqttClient(
            address=address,
            client_id=client_id,
            spool=EventStore(
                None if state_directory is None else state_directory / SPOOL_FILE,
                max_messages=_MAX_EVENTS,
            ),
            username=username,
            password=password,
            tls=tls,
            protocol=protocol,
            keepalive_s=keepalive_s,
            will=LastWill(topics.availability, ONLINE, OFFLINE),
            subscriptions=(
                {topics.enabled_set(camera): self._switch(camera) for camera in cameras}
                if on_command is not None
                else None
            ),
            times=times,
            chance=chance,
            monotonic=monotonic,
        )
        self._client.set_state(topics.info, info, Kind.INFO.delivery.qos)

    @property
    def connected(self) -> bool:
        """Whether the broker is there and knows all states."""
        return self._client.online

    @property
    def alive(self) -> bool:
        """Whether its network thread does its work, with or without a broker."""
        return self._client.alive

    @property
    def failure(self) -> str | None:
        """Why the broker is not there, in a sentence; None while it is, or before the first try."""
        return self._client.failure

    def open(self, *, require_connection_within_s: float | None = None) -> None:
        """Start connecting; return at once, or where asked when the connection stands.

        Raises BrokerError, only where asked, with the first reason why there is none.
        """
        self._client.open(require_connection_within_s=require_connection_within_s)

    def publish(self, message: PoseMessage) -> None:
        """Hand over the poses of a frame; dropped and counted while the broker is away."""
        topic = self._pose_topics.get(message.camera)
        if topic is None:
            topic = self._pose_topics[message.camera] = self.topics.poses(message.camera)
        self._client.send_live(topic, messages.encode(message))

    def set_state(self, topic: str, payload: bytes) -> None:
        """Say what is so from now on (retained, QoS 1); nothing is sent where it is no news."""
        self._client.set_state(topic, payload, 1)

    def send_stats(self, payload: bytes) -> None:
        """Publish the statistics (retained, QoS 0)."""
        self._client.set_state(self.topics.stats, payload, Kind.STATS.delivery.qos)

    def send_event(self, camera: str, payload: bytes) -> None:
        """Say what happened (QoS 1); `payload` carries the time, since it may arrive late."""
        self._client.send_event(self.topics.event(camera), payload)

    def counters(self) -> dict[str, int | bool]:
        """Return connected, published, dropped_poses, waiting_events, dropped_events, reconnects.

        `waiting_events` are those the broker has not acknowledged.
        """
        return self._client.counters()

    def close(self) -> None:
        """Send what waits, and `offline`, for a few seconds at most, and disconnect."""
        self._client.close()

    def _switch(self, camera: str) -> Callable[[bytes], None]:
        def order(payload: bytes) -> None:
            enabled = _SWITCH.get(payload)
            if enabled is None:
                raise ValueError(f"expected ON or OFF, got {_excerpt(payload)}")
            if self._on_command is not None:
                self._on_command(camera, enabled)

        return order


class MqttPublisher(Resource):
    """A client for live messages on any topics, without the states and the will of a node.

    `with` connects, or raises BrokerError with the reason, and ends by sending what waits.
    """

    def __init__(
        self,
        *,
        address: BrokerAddress,
        client_id: str,
        password: Secret | None = None,
        tls: TlsFiles | None = None,
        protocol: Protocol = "5",
        times: MqttTimeouts | None = None,
    ) -> None:
        self._times = times or MqttTimeouts()
        self._client = MqttClient(
            address=address,
            client_id=client_id,
            spool=EventStore(None, max_messages=1),
            password=password,
            tls=tls,
            protocol=protocol,
            times=self._times,
        )

    def open(self) -> None:
        """Connect; raises BrokerError with the reason where that fails."""
        self._client.open(
            require_connection_within_s=self._times.connect_s + self._times.answer_s + 1
        )

    def close(self) -> None:
        """Send what waits, for a few seconds at most, and disconnect."""
        self._client.close()

    def send(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 0, after waiting for room; BrokerError where the broker stays away."""
        if not self._client.send_live(topic, payload, wait_s=_PUBLISHER_PATIENCE_S):
            reason = self._client.failure or "the MQTT broker takes no more messages"
            raise BrokerError(f"{reason}; gave up after {_PUBLISHER_PATIENCE_S:g} s")


def _excerpt(payload: bytes) -> str:
    text = ascii(payload[:40].decode("utf-8", "replace"))
    return f"{text}... ({len(payload)} bytes)" if len(payload) > 40 else text
