"""What waits to be sent, within bounds; filled by any thread, emptied by the network thread."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edgepose.mqtt.event_store import EventStore, StoredEvent


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message on its way; `event` is what has to be kept until it is acknowledged."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    event: StoredEvent | None = None


class Outbox:
    """Three kinds of messages with three rules.

    States are retained: the newest wins, and all are due again after `renew`. Events are QoS 1 and
    stay in `spool` until they are settled. Live messages are QoS 0, taken in only while `live` and
    dropped, the oldest first, beyond `max_live`. `changed` is the lock of everything in here, and
    what waiting threads wait for; `wake` tells the network thread that something is due.
    """

    def __init__(self, spool: EventStore, *, max_live: int, wake: Callable[[], None]) -> None:
        self.changed = threading.Condition()
        self.published = 0
        self.dropped_live = 0
        self._spool = spool
        self._max_live = max_live
        self._wake = wake
        self._states: dict[str, tuple[bytes, int]] = {}
        self._due_states: dict[str, None] = {}
        self._due_events: deque[StoredEvent] = deque()
        self._live: deque[tuple[str, bytes]] = deque()
        self._takes_live = False
        self._closed = False

    def set_state(self, topic: str, payload: bytes, qos: int) -> None:
        """Take in a state; nothing is due where it is no news."""
        with self.changed:
            state = (payload, qos)
            if self._states.get(topic) != state:
                self._states[topic] = state
                self._due_states[topic] = None
                self._wake()

    def add_event(self, topic: str, payload: bytes) -> None:
        """Take in an event; beyond the spool's bound the oldest one goes.

        While the broker is away, the event is in the spool's file when this returns.
        """
        with self.changed:
            event = StoredEvent(topic, payload)
            dropped = self._spool.append(event, jot=not self._takes_live)
            self._due_events.append(event)
            if dropped is not None and self._due_events[0] is dropped:
                self._due_events.popleft()
            self._wake()

    def add_live(self, topic: str, payload: bytes, *, wait_s: float | None = None) -> bool:
        """Take in a live message; False where it was dropped.

        With `wait_s`, wait so long for room; without it an older message makes room.
        """
        with self.changed:
            if wait_s is not None:
                self.changed.wait_for(self._has_room_or_never_will, wait_s)
            full = len(self._live) >= self._max_live
            if not self._takes_live or (full and wait_s is not None):
                self.dropped_live += 1
                return False
            if full:
                self._live.popleft()
                self.dropped_live += 1
            self._live.append((topic, payload))
            self._wake()
        return True

    def lets_pass(self) -> bool:
        """Whether a live message may go out past what is in here, which then counts it as sent."""
        with self.changed:
            due = self._due_states or self._due_events or self._live
            if due or not self._takes_live:
                return False
            self.published += 1
            return True

    def _has_room_or_never_will(self) -> bool:
        return self._closed or (self._takes_live and len(self._live) < self._max_live)

    def renew(self) -> None:
        """Make every state and every unsettled event due: a new connection knows nothing."""
        with self.changed:
            self._due_states = dict.fromkeys(self._states)
            self._due_events = deque(self._spool)

    def take_lasting(self) -> Outgoing | None:
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

    def take_live(self) -> Outgoing | None:
        """Return the oldest live message."""
        with self.changed:
            if not self._live:
                return None
            topic, payload = self._live.popleft()
            self.published += 1
            # Whoever waits for room gets much of it at once: fewer switches of threads.
            if len(self._live) == self._max_live // 2:
                self.changed.notify_all()
        return Outgoing(topic, payload, 0, retain=False)

    def open_live(self) -> None:
        """Take live messages in from now on."""
        with self.changed:
            self._takes_live = not self._closed
            self.changed.notify_all()

    def drop_live(self) -> None:
        """Take no live messages any more, and drop what waits: it is too old to be sent later."""
        with self.changed:
            self._takes_live = False
            self.dropped_live += len(self._live)
            self._live.clear()
            self.changed.notify_all()

    def close(self) -> None:
        """Take no live messages for good; what is here may still be taken out."""
        with self.changed:
            self._closed = True
            self._takes_live = False
            self.changed.notify_all()

    def settle(self, event: StoredEvent) -> None:
        """Let go of an event that arrived."""
        with self.changed:
            self._spool.remove(event)

    @property
    def empty(self) -> bool:
        """Whether nothing is due."""
        with self.changed:
            return not (self._due_states or self._due_events or self._live)

    @property
    def waiting_events(self) -> int:
        """How many events have not been settled."""
        return len(self._spool)

    @property
    def dropped_events(self) -> int:
        """How many events were dropped for newer ones."""
        return self._spool.dropped

    @property
    def unsaved(self) -> bool:
        """Whether the file of events is not what it should be."""
        return self._spool.changed

    def save(self) -> None:
        """Bring the file of events up to date; the lock is not held while the disk works."""
        with self.changed:
            save = self._spool.begin_save()
        if save is None:
            return
        self._spool.write(save)
        with self.changed:
            self._spool.end_save()
