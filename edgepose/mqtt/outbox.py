"""What waits to be sent, within bounds; filled and emptied by any thread."""

import threading
from collections import deque
from dataclasses import dataclass

from edgepose.mqtt.event_store import EventStore, StoredEvent


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to send; `event` is kept until the broker acknowledges it."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    event: StoredEvent | None = None


class Outbox:
    """Three kinds of messages with three rules.

    States are retained: the newest wins, and all are due again after `requeue_all`. Events are
    QoS 1 and stay in `store` until they are acknowledged. Transient messages are QoS 0, accepted
    only while online and dropped, the oldest first, beyond `max_transient`. `changed` is the lock
    of everything in here, and what threads wait on for room.
    """

    def __init__(self, store: EventStore, *, max_transient: int) -> None:
        self.changed = threading.Condition()
        self.published = 0
        self.dropped_transient = 0
        self._store = store
        self._max_transient = max_transient
        self._states: dict[str, tuple[bytes, int]] = {}
        self._due_states: dict[str, None] = {}
        self._due_events: deque[StoredEvent] = deque()
        self._transient: deque[tuple[str, bytes]] = deque()
        self._online = False
        self._closed = False

    def set_state(self, topic: str, payload: bytes, qos: int) -> None:
        """Set a state; it is due only if it changed."""
        with self.changed:
            state = (payload, qos)
            if self._states.get(topic) != state:
                self._states[topic] = state
                self._due_states[topic] = None

    def add_event(self, topic: str, payload: bytes) -> None:
        """Add an event; beyond the store's bound the oldest one is dropped."""
        with self.changed:
            event, dropped = self._store.append(topic, payload)
            self._due_events.append(event)
            if dropped is not None and self._due_events[0] is dropped:
                self._due_events.popleft()
            if not self._online:
                self._store.request_save()

    def add_transient(self, topic: str, payload: bytes, *, wait_s: float | None = None) -> bool:
        """Add a transient message; return False if it was dropped.

        With `wait_s`, wait that long for room; without it an older message makes room.
        """
        with self.changed:
            if wait_s is not None:
                self.changed.wait_for(self._has_room_or_is_closed, wait_s)
            full = len(self._transient) >= self._max_transient
            if not self._online or (full and wait_s is not None):
                self.dropped_transient += 1
                return False
            if full:
                self._transient.popleft()
                self.dropped_transient += 1
            self._transient.append((topic, payload))
        return True

    def _has_room_or_is_closed(self) -> bool:
        return self._closed or (self._online and len(self._transient) < self._max_transient)

    def requeue_all(self) -> None:
        """Make every state and every unacknowledged event due: a new connection starts empty."""
        with self.changed:
            self._due_states = dict.fromkeys(self._states)
            self._due_events = deque(self._store)

    def next_reliable(self) -> Outgoing | None:
        """Return the next state, or else the next event, that is due."""
        with self.changed:
            if self._due_states:
                topic = next(iter(self._due_states))
                del self._due_states[topic]
                payload, qos = self._states[topic]
                self.published += 1
                return Outgoing(topic, payload, qos, retain=True)
            if self._due_events:
                event = self._due_events.popleft()
                self.published += 1
                return Outgoing(event.topic, event.payload, 1, retain=False, event=event)
        return None

    def next_transient(self) -> Outgoing | None:
        """Return the oldest transient message."""
        with self.changed:
            if not self._transient:
                return None
            topic, payload = self._transient.popleft()
            self.published += 1
            # Waiting threads get much room at once: fewer switches of threads.
            if len(self._transient) <= self._max_transient // 2:
                self.changed.notify_all()
        return Outgoing(topic, payload, 0, retain=False)

    def accept_transient(self) -> None:
        """Accept transient messages from now on."""
        with self.changed:
            self._online = not self._closed
            self.changed.notify_all()

    def drop_transient(self) -> None:
        """Accept no transient messages, and drop those that wait: they would arrive too late."""
        with self.changed:
            self._online = False
            self.dropped_transient += len(self._transient)
            self._transient.clear()
            self.changed.notify_all()
        # From now on only the file keeps what was sent and not acknowledged.
        self.save_events()

    def close(self) -> None:
        """Accept no transient messages any more; what waits may still be taken out."""
        with self.changed:
            self._closed = True
            self._online = False
            self.changed.notify_all()

    def close_store(self) -> None:
        """Save the events that wait, 2 s at most."""
        self._store.close()

    def acknowledge(self, event: StoredEvent) -> None:
        """Remove an event that arrived."""
        with self.changed:
            self._store.remove(event)

    def save_events(self) -> None:
        """Have the unacknowledged events saved, if there are any."""
        with self.changed:
            if len(self._store):
                self._store.request_save()

    @property
    def empty(self) -> bool:
        """Whether nothing is due."""
        with self.changed:
            return not (self._due_states or self._due_events or self._transient)

    @property
    def oldest_event_id(self) -> int | None:
        """The oldest unacknowledged event; None if there is none."""
        return next((event.id for event in self._store), None)

    @property
    def waiting_events(self) -> int:
        """How many events are unacknowledged."""
        return len(self._store)

    @property
    def dropped_events(self) -> int:
        """How many events were dropped for newer ones."""
        return self._store.dropped
