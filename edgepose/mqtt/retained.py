"""The retained topics of a node: leftovers are cleared, and what others overwrite is restored."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from edgepose.mqtt.announcements import Announcements
from edgepose.mqtt.outbox import Outbox
from edgepose.mqtt.topics import ONLINE, Topics, in_groups, state_filters, state_owner

_log = logging.getLogger("edgepose.mqtt")

RESTORE_INTERVAL_S: Final = 5.0
"""Two clients with one node id do not restore their states faster."""
_MAX_LEFTOVERS: Final = 200
"""So many are cleared for each connection; any client that may publish could leave more."""

_MAX_ENDED: Final = 2
_STABLE_CHECKS: Final = 30


class RetainedTopics:
    """Compares what the broker retains for a node with what the node published.

    Cleared are states of cameras and zones that the node does not have, and all states under
    `previous_root`, a prefix with an earlier node id or base topic, once no node is online there;
    `forget_previous` is called then. A state that another client changes is published again.
    `filters` are what to subscribe to, in groups. What `announcements` finds of a camera that is
    gone is removed before its states. After two connections that ended soon there are no filters:
    the broker may not allow them, or another client may have left a message there that is too
    large. Used by the network thread only.
    """

    def __init__(
        self,
        topics: Topics,
        outbox: Outbox,
        *,
        announcements: Announcements | None = None,
        previous_root: str | None = None,
        forget_previous: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topics = topics
        self._outbox = outbox
        self._announcements = announcements
        self._previous = previous_root
        self._forget_previous = forget_previous
        self._monotonic = monotonic
        self._warned = False
        self._restore_at_s = -math.inf
        self._ended = -1
        self.connected()

    @property
    def filters(self) -> Iterator[Sequence[str]]:
        """The filters for this connection."""
        if self._ended > _MAX_ENDED:
            return
        groups = [() if self._announcements is None else self._announcements.filters]
        groups += map(state_filters, filter(None, (self._topics.root, self._previous)))
        for group in groups:
            yield from in_groups(group)

    def subscribed(self) -> None:
        """Take the broker's answer to the subscriptions."""
        self._subscribed = True

    def connected(self) -> None:
        """Begin again on a new connection, on which the broker sends what it retains."""
        self._ended += 1
        self._subscribed = False
        self._received: dict[str, bytes] = {}
        self._different: dict[str, tuple[bytes, bytes]] = {}
        self._leftovers: set[str] = set()
        self._of_previous: dict[str, bytes] = {}
        self._checks = 0
        if self._announcements is not None:
            self._announcements.connected()

    def receive(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take a message on a topic; `retained` means that it is older than the subscription."""
        if self._announcements is not None:
            self._announcements.receive(topic, payload, retained=retained)
        owner = state_owner(self._topics.root, topic)
        if owner is not None and self._outbox.has_state(topic):
            if not retained:
                self._received[topic] = payload
        elif owner and retained and payload and len(self._leftovers) < _MAX_LEFTOVERS:
            self._leftovers.add(topic)
        of_previous = self._previous and state_owner(self._previous, topic) is not None
        if of_previous and len(self._of_previous) < _MAX_LEFTOVERS:
            self._of_previous[topic] = payload

    def check(self) -> None:
        """Clear and restore what is due; called every second while connected."""
        current = self._outbox.acknowledged_states()
        if current is None:
            return
        self._checks += 1
        if self._checks == _STABLE_CHECKS:
            self._ended = 0
        if not self._subscribed:
            return
        # By the second check, the broker has sent all that it retains.
        if self._checks > 1:
            self._clear_leftovers(current)
        self._restore(current)

    def _clear_leftovers(self, current: dict[str, bytes]) -> None:
        online = self._of_previous.get(f"{self._previous}/availability") == ONLINE
        replaced = self._previous is not None and not online
        # Discovery messages first: Home Assistant logs an error at an empty state.
        if self._announcements is not None:
            self._announcements.check(current)
            if replaced:
                self._announcements.clear_previous()
        self._clear(self._leftovers - current.keys())
        self._leftovers.clear()
        if replaced:
            self._clear({topic for topic, payload in self._of_previous.items() if payload})
            self._previous = None
            self._forget_previous()

    def _clear(self, topics: set[str]) -> None:
        for topic in sorted(topics):
            self._outbox.publish_retained(topic, b"")
        if topics:
            _log.info(
                "cleared %d retained topics of cameras, zones or node ids that are not configured "
                "any more, such as %s",
                len(topics),
                min(topics),
            )

    def _restore(self, current: dict[str, bytes]) -> None:
        """Publish the states again that are different in two checks, so not ours on its way."""
        before = self._different
        self._different = {
            topic: (payload, current[topic])
            for topic, payload in self._received.items()
            if topic in current and payload != current[topic]
        }
        lost = [topic for topic, pair in self._different.items() if before.get(topic) == pair]
        now_s = self._monotonic()
        if not lost or now_s < self._restore_at_s:
            return
        self._restore_at_s = now_s + RESTORE_INTERVAL_S
        for topic in lost:
            del self._received[topic]
            self._outbox.publish_retained(topic, current[topic])
        if not self._warned:
            self._warned = True
            _log.warning(
                "another client publishes on %s; publishing our value again, at most every %g s: "
                "check that only one edgepose runs with the node id %r",
                *(lost[0], RESTORE_INTERVAL_S, self._topics.node),
            )
