"""What is to be sent, with or without a connection; filled by any thread."""

import threading
from collections.abc import Sequence
from functools import partial
from typing import Final

from edgepose.mqtt.connection import MqttConnection, Outgoing
from edgepose.mqtt.event_store import EventStore, StoredEvent
from edgepose.mqtt.topics import OFFLINE, ONLINE

_MAX_TRANSIENT: Final = 32
_MIN_SUSPICIONS: Final = 2
_MAX_SUSPICIONS: Final = 3
"""After so many connections that ended at a message, its topic is put aside."""


class Outbox:
    """Three kinds of messages with three rules.

    States are retained: of each topic the newest is kept, and all are sent on every connection.
    Events are QoS 1 and stay in `store` until they are acknowledged. Transient messages are QoS 0,
    accepted only while online, and dropped, the oldest first, if 32 of them wait for the socket.

    On every connection the states come first, in the order in which they were first set, then
    `online` on the topic `availability`. Once the broker has acknowledged all that, the outbox is
    online and sends the events, of which one may arrive twice. `failure` is the reason why there is
    no connection. `changed` is the lock of everything in here and of the connection.

    Topics at whose messages the broker may have ended two connections in succession are suspects:
    they are sent after everything else and one after the other. What the connection outlives is
    forgotten; a suspect at which three connections end is put aside.
    """

    def __init__(self, store: EventStore, availability: str | None = None) -> None:
        self.changed = threading.Condition()
        self.online = False
        self.failure: str | None = None
        self.connections = 0
        self.dropped_transient = 0
        self._store = store
        self._availability = availability
        self._states: dict[str, Outgoing] = {}
        self._on_trial: str | None = None
        self._ticks = 0
        """Seconds since the connection or the trial began."""
        self._suspicions: dict[str, int] = {}
        """How many connections in succession may have ended at a message of a topic."""
        self._connection: MqttConnection | None = None
        self._published = 0
        self._closed = False
        self._oldest: StoredEvent | None = None

    def set_state(self, topic: str, payload: bytes, qos: int) -> None:
        """Set a state; nothing is sent if it did not change."""
        state = Outgoing(topic, payload, qos, retain=True)
        with self.changed:
            if self._states.get(topic) != state:
                self._states[topic] = state
                self._send(state)

    def clear_state(self, topic: str) -> None:
        """Forget a state, and clear it at the broker if there is a connection."""
        with self.changed:
            if self._states.pop(topic, None) is not None:
                self._send(Outgoing(topic, b"", 1, retain=True))

    def has_state(self, topic: str) -> bool:
        """Return whether a state was set on a topic, or it is that of the availability."""
        with self.changed:
            return topic in self._states or topic == self._availability

    def send_states(self) -> None:
        """Send all states again, in their order."""
        with self.changed:
            for state in self._states.values():
                self._send(state)

    def acknowledged_states(self) -> dict[str, bytes] | None:
        """Return the payloads of all states, None unless the broker has acknowledged them."""
        with self.changed:
            if self._connection is None or not (self.online and self._connection.idle):
                return None
            states = {topic: state.payload for topic, state in self._states.items()}
            return states if self._availability is None else states | {self._availability: ONLINE}

    def publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish a retained message that is no new state; an empty one clears the topic."""
        with self.changed:
            self._send(Outgoing(topic, payload, 1, retain=True))

    def add_event(self, topic: str, payload: bytes) -> None:
        """Add an event; beyond the store's bound the oldest one is dropped."""
        with self.changed:
            event = self._store.append(topic, payload)
            # The next tick sends a suspect's events, in their order.
            if self.online and (topic == self._on_trial or not self._is_suspect(topic)):
                self._send_event(event)
            if self._connection is None:
                self._store.request_save()

    def add_transient(self, topic: str, payload: bytes, *, wait_s: float | None = None) -> bool:
        """Send a transient message; return False if it was dropped.

        With `wait_s`, wait that long for the broker and for room; without it an older message makes
        room.
        """
        with self.changed:
            if wait_s is not None:
                self.changed.wait_for(
                    lambda: self._closed or (self._has_room() and self._may_send(topic)), wait_s
                )
            connection, has_room = self._connection, self._has_room()
            if connection is not None and self.online and not has_room and wait_s is None:
                connection.waiting.popleft()
                self.dropped_transient += 1
                has_room = True
            if has_room and self._send(Outgoing(topic, payload)):
                return True
            self.dropped_transient += 1
            return False

    def _has_room(self) -> bool:
        connection = self._connection if self.online else None
        return connection is not None and len(connection.waiting) < _MAX_TRANSIENT

    def _send(self, message: Outgoing) -> bool:
        """Send a message if there is a connection, and its topic may be sent now."""
        if self._connection is None or not self._may_send(message.topic):
            return False
        self._connection.publish(message)
        self._published += 1
        return True

    def _is_suspect(self, topic: str) -> bool:
        return self._suspicions.get(topic, 0) >= _MIN_SUSPICIONS

    def _may_send(self, topic: str) -> bool:
        """Return whether a topic is no suspect, or may be tried now."""
        if not self._is_suspect(topic):
            return True
        if not self.online or self._suspicions[topic] >= _MAX_SUSPICIONS:
            return False
        if self._on_trial is None:
            self._on_trial, self._ticks = topic, 0
        return topic == self._on_trial

    def _send_event(self, event: StoredEvent) -> None:
        remove = partial(self._store.remove, event)
        self._send(Outgoing(event.topic, event.payload, 1, on_acknowledged=remove))

    def attach(self, connection: MqttConnection) -> None:
        """Send every state, and that we are online.

        Once the broker has them, events are sent and transient messages accepted.
        """
        with self.changed:
            self._connection = connection
            self._ticks = 0
            self.send_states()
            if self._availability is None or not self._send(
                Outgoing(self._availability, ONLINE, 1, True, self._go_online)
            ):
                self._go_online()

    def _go_online(self) -> None:
        self.online = not self._closed
        self.failure = None
        self.connections += 1
        for event in self._store:
            if not self._is_suspect(event.topic):
                self._send_event(event)
        self.changed.notify_all()

    def suspect(self, topics: Sequence[str], *, unacknowledged: bool = False) -> str | None:
        """Count that a connection ended at a message on one of these topics, or the one on trial.

        Return a topic that is put aside now, if there is one. A broker that acknowledged nothing on
        this connection has another problem than a message. One that left a message unacknowledged
        for so long would do so again: then once is enough for a suspicion.
        """
        with self.changed:
            certain = self._connection is not None and self._connection.acknowledges
            if self._on_trial is not None and self._on_trial in topics:
                topics = (self._on_trial,)
            for topic in topics:
                count = self._suspicions.get(topic, 0)
                if certain or count < _MIN_SUSPICIONS:
                    count += 1
                least = _MIN_SUSPICIONS if unacknowledged else 1
                self._suspicions[topic] = max(count, least)
            return next((t for t in topics if self._suspicions[t] >= _MAX_SUSPICIONS), None)

    def try_suspects(self, *, again: bool) -> None:
        """Send the next suspect; `again` also what was put aside, which one failure repeats.

        Called every second. A connection that is there with the second call, and has had everything
        acknowledged, has outlived what was sent.
        """
        with self.changed:
            if again:
                most = _MAX_SUSPICIONS - 1
                self._suspicions = {t: min(n, most) for t, n in self._suspicions.items()}
            self._ticks += 1
            if self._ticks >= 2 and self._connection is not None and self._connection.idle:
                self._suspicions = {
                    topic: count
                    for topic, count in self._suspicions.items()
                    if self._is_suspect(topic) and topic != self._on_trial
                }
                self._on_trial = None
            if self._on_trial is not None:
                return
            for topic in filter(self._is_suspect, self._suspicions):
                if topic in self._states:
                    self._send(self._states[topic])
                elif topic == self._availability:
                    self._send(Outgoing(topic, ONLINE, 1, retain=True))
                for event in self._store:
                    if event.topic == topic:
                        self._send_event(event)

    def detach(self, failure: str | None) -> None:
        """End a connection for all threads at once: its messages, its state and why it ended.

        Transient messages that wait for the socket are dropped: they would arrive too late.
        """
        with self.changed:
            if self._connection is not None:
                self.dropped_transient += len(self._connection.waiting)
            self._connection = None
            self.online = False
            self._on_trial = None
            self.failure = failure or self.failure
            if len(self._store):
                # From now on only the file keeps what was sent and not acknowledged.
                self._store.request_save()
            self.changed.notify_all()

    def save_overdue_events(self) -> None:
        """Have the events saved if the oldest one already waited at the call before."""
        with self.changed:
            oldest = next(iter(self._store), None)
            if oldest is not None and oldest is self._oldest:
                self._store.request_save()
            self._oldest = oldest

    def send_offline(self) -> None:
        """Send that we are offline, after the states of suspects: there is no time for trials."""
        with self.changed:
            if self._availability is None or self._connection is None:
                return
            for topic, state in self._states.items():
                if self._is_suspect(topic) and self._suspicions[topic] < _MAX_SUSPICIONS:
                    self._connection.publish(state)
            self._connection.publish(Outgoing(self._availability, OFFLINE, 1, retain=True))

    def close(self) -> None:
        """Accept no transient messages any more."""
        with self.changed:
            self._closed = True
            self.online = False
            self.changed.notify_all()

    def close_store(self) -> None:
        """Save the events that wait, 2 s at most."""
        self._store.close()

    def counters(self) -> dict[str, int | bool]:
        """Return the counters of the `stats` message."""
        with self.changed:
            return {
                "connected": self.online,
                "published": self._published,
                "dropped_poses": self.dropped_transient,
                "waiting_events": len(self._store),
                "dropped_events": self._store.dropped,
                "reconnects": max(0, self.connections - 1),
            }
