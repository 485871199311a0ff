"""What is to be sent, with or without a connection; filled by any thread."""

import threading
from functools import partial
from typing import Final

from edgepose.mqtt.connection import MqttConnection, Outgoing
from edgepose.mqtt.event_store import EventStore, StoredEvent
from edgepose.mqtt.topics import OFFLINE, ONLINE

_MAX_TRANSIENT: Final = 32


class Outbox:
    """Three kinds of messages with three rules.

    States are retained: of each topic the newest is kept, and all are sent on every connection.
    Events are QoS 1 and stay in `store` until they are acknowledged. Transient messages are QoS 0,
    accepted only while online, and dropped, the oldest first, if 32 of them wait for the socket.

    On every connection the states come first, in the order in which they were first set, then the
    events, of which one may arrive twice, and `online` on the topic `availability`. The outbox is
    online once the broker has acknowledged all that. `failure` is the reason why there is no
    connection. `changed` is the lock of everything in here and of the connection.
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
            self._send_event(self._store.append(topic, payload))
            if self._connection is None:
                self._store.request_save()

    def add_transient(self, topic: str, payload: bytes, *, wait_s: float | None = None) -> bool:
        """Send a transient message; return False if it was dropped.

        With `wait_s`, wait that long for the broker and for room; without it an older message makes
        room.
        """
        with self.changed:
            if wait_s is not None:
                self.changed.wait_for(lambda: self._closed or self._has_room(), wait_s)
            connection = self._connection if self.online else None
            if connection is None or (wait_s is not None and not self._has_room()):
                self.dropped_transient += 1
                return False
            if not self._has_room():
                connection.waiting.popleft()
                self.dropped_transient += 1
            self._send(Outgoing(topic, payload))
            return True

    def _has_room(self) -> bool:
        connection = self._connection if self.online else None
        return connection is not None and len(connection.waiting) < _MAX_TRANSIENT

    def _send(self, message: Outgoing) -> None:
        if self._connection is not None:
            self._connection.publish(message)
            self._published += 1

    def _send_event(self, event: StoredEvent) -> None:
        remove = partial(self._store.remove, event)
        self._send(Outgoing(event.topic, event.payload, 1, on_acknowledged=remove))

    def attach(self, connection: MqttConnection) -> None:
        """Send every state, every unacknowledged event, and that we are online.

        Once the broker has them, transient messages are accepted.
        """
        with self.changed:
            self._connection = connection
            for state in self._states.values():
                self._send(state)
            for event in self._store:
                self._send_event(event)
            if self._availability is None:
                self._go_online()
            else:
                self._send(Outgoing(self._availability, ONLINE, 1, True, self._go_online))

    def _go_online(self) -> None:
        self.online = not self._closed
        self.failure = None
        self.connections += 1
        self.changed.notify_all()

    def detach(self, failure: str | None) -> None:
        """End a connection for all threads at once: its messages, its state and why it ended.

        Transient messages that wait for the socket are dropped: they would arrive too late.
        """
        with self.changed:
            if self._connection is not None:
                self.dropped_transient += len(self._connection.waiting)
            self._connection = None
            self.online = False
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
        """Send that we are offline."""
        with self.changed:
            if self._availability is not None:
                self._send(Outgoing(self._availability, OFFLINE, 1, retain=True))

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
