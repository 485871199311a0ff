"""Pose messages, states and events on MQTT."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgepose import messages
from edgepose.errors import BrokerError
from edgepose.homeassistant.discovery import with_removals
from edgepose.messages import PoseMessage
from edgepose.mqtt.announcements import Announcements
from edgepose.mqtt.client import MqttClient
from edgepose.mqtt.commands import Command, CommandReceiver
from edgepose.mqtt.event_store import EventStore
from edgepose.mqtt.options import ConnectOptions
from edgepose.mqtt.outbox import Outbox
from edgepose.mqtt.retained import RetainedTopics
from edgepose.mqtt.topics import DiscoveryTopics, Topics

EVENTS_FILE: Final = "events.sqlite"
_MAX_EVENTS: Final = 1000
_PUBLISHER_PATIENCE_S: Final = 10.0


class MqttSink:
    """One node on the broker: its poses, states and events, and the commands it receives.

    No method waits for the network (except `close`, briefly, and `open` if required). While the
    broker is unreachable, pose messages are dropped and counted, of each state the newest is kept,
    and up to 1000 events wait in their order, in `state_directory` even over a restart.

    States that another client overwrites are published again. Cleared are those of cameras and
    zones that there are no more, and those under `previous_root`; `forget_previous` is called on
    the network thread when that is done, as `on_command` is for each valid command. What is not
    announced any more on the topics of `discovery` is removed too. MQTT 5 is
    preferred because only its reason codes distinguish missing permissions, or a second client with
    the same id, from a broken connection.
    """

    def __init__(
        self,
        options: ConnectOptions,
        topics: Topics,
        *,
        cameras: Sequence[str],
        state_directory: Path | None = None,
        on_command: Callable[[Command], None] | None = None,
        previous_root: str | None = None,
        forget_previous: Callable[[], None] = lambda: None,
        discovery: DiscoveryTopics | None = None,
    ) -> None:
        self.topics = topics
        self._announced: Mapping[str, bytes] = {}
        self._pose_topics = {camera: topics.poses(camera) for camera in cameras}
        path = None if state_directory is None else state_directory / EVENTS_FILE
        options = replace(options, availability=topics.availability)
        self._outbox = Outbox(EventStore(path, max_events=_MAX_EVENTS), topics.availability)
        receiver = None if on_command is None else CommandReceiver(topics, cameras, on_command)
        retained = RetainedTopics(
            topics,
            self._outbox,
            announcements=self._announcements(discovery, previous_root),
            previous_root=previous_root,
            forget_previous=forget_previous,
        )
        self._client = MqttClient(options, self._outbox, receiver, retained)

    @property
    def alive(self) -> bool:
        """Whether the network thread runs, connected or not."""
        return self._client.alive

    def open(self, *, require_connection_within_s: float | None = None) -> None:
        """Start connecting; return at once, or once connected if required.

        Raises BrokerError with the first reason why it cannot connect, only if required.
        """
        self._client.open(require_connection_within_s=require_connection_within_s)

    def publish(self, message: PoseMessage) -> None:
        """Publish the poses of a frame; dropped and counted while the broker is unreachable."""
        self.publish_encoded(message.camera, messages.encode(message))

    def publish_encoded(self, camera: str, payload: bytes) -> None:
        """Publish a pose message of a camera that is encoded already."""
        self._outbox.add_transient(self._pose_topics[camera], payload)

    def set_state(self, topic: str, payload: bytes) -> None:
        """Publish a state (retained, QoS 1); nothing is sent if it did not change."""
        self._outbox.set_state(topic, payload, 1)

    def clear_state(self, topic: str) -> None:
        """Clear the topic of a state that there is no more."""
        self._outbox.clear_state(topic)

    def announce(self, messages: Mapping[str, bytes]) -> None:
        """Publish discovery messages by topic (retained, QoS 1), in place of the previous ones.

        They are sent before all states that are set later.
        """
        for topic in self._announced.keys() - messages.keys():
            self._outbox.clear_state(topic)
        for topic, message in messages.items():
            removal = with_removals(self._announced.get(topic, b""), message)
            if removal is not None:
                self._outbox.publish_retained(topic, removal)
            self._outbox.set_state(topic, message, 1)
        self._announced = messages

    def _announcements(
        self, topics: DiscoveryTopics | None, previous_root: str | None
    ) -> Announcements | None:
        if topics is None:
            return None
        node = (previous_root or "").rpartition("/")[2]
        previous = replace(topics, node=node) if node not in ("", topics.node) else None
        return Announcements(topics, self._outbox, with_removals, previous=previous)

    def send_stats(self, payload: bytes) -> None:
        """Publish the statistics (retained, QoS 0)."""
        self._outbox.set_state(self.topics.stats, payload, 0)

    def send_event(self, camera: str, payload: bytes) -> None:
        """Publish an event (QoS 1); `payload` carries its time, since it may arrive late."""
        self._outbox.add_event(self.topics.event(camera), payload)

    def counters(self) -> dict[str, int | bool]:
        """Return connected, published, dropped_poses, waiting_events, dropped_events, reconnects.

        `waiting_events` are those that the broker has not acknowledged.
        """
        return self._outbox.counters()

    def close(self) -> None:
        """Send what waits, and `offline`, for a few seconds at most, and disconnect."""
        self._client.close()


class MqttPublisher:
    """A client for transient messages on any topics, without the states and the will of a node.

    Raises BrokerError with the reason why it cannot connect.
    """

    def __init__(self, options: ConnectOptions) -> None:
        self._outbox = Outbox(EventStore(None, max_events=1))
        self._client = MqttClient(options, self._outbox)
        timeouts = options.timeouts
        self._client.open(require_connection_within_s=timeouts.connect_s + timeouts.answer_s + 1)

    def close(self) -> None:
        """Send what waits, for a few seconds at most, and disconnect."""
        self._client.close()

    @property
    def dropped(self) -> int:
        """How many messages of `send` were lost with a connection; final after `close`."""
        return self._outbox.dropped_transient

    def send(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 0, after waiting for room; raises BrokerError if there is none."""
        if not self._outbox.add_transient(topic, payload, wait_s=_PUBLISHER_PATIENCE_S):
            reason = self._outbox.failure or "the MQTT broker accepts no more messages"
            raise BrokerError(f"{reason}; gave up after {_PUBLISHER_PATIENCE_S:g} s")
