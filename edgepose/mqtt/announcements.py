"""The discovery messages that a broker retains for a node, and the birth of Home Assistant."""

import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Final

from edgepose.mqtt.outbox import Outbox
from edgepose.mqtt.topics import ONLINE, DiscoveryTopics

_log = logging.getLogger("edgepose.mqtt")

BIRTH_DELAY_S: Final = (0.5, 4.0)
"""Not all nodes of a home at the same moment; `check`, called every second, adds to it."""
_MAX_FOUND: Final = 100


class Announcements:
    """Removes what earlier runs announced, and announces again when Home Assistant starts.

    A retained discovery message that is not among our states is of a camera that is gone, or of a
    node for which discovery is off now: it is cleared. `with_removals` returns our message with the
    removal of the parts that only the retained one has, None without such parts; it is published
    once, followed by our message. Messages of the `previous` node id are cleared by
    `clear_previous`. Used by the network thread only.
    """

    def __init__(
        self,
        topics: DiscoveryTopics,
        outbox: Outbox,
        with_removals: Callable[[bytes, bytes], bytes | None],
        *,
        previous: DiscoveryTopics | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topics = topics
        self._outbox = outbox
        self._with_removals = with_removals
        self._previous = previous
        self._monotonic = monotonic
        self.connected()

    @property
    def filters(self) -> tuple[str, ...]:
        """The filters of everything that `receive` takes."""
        of_previous = () if self._previous is None else self._previous.filters
        return (self._topics.birth, *self._topics.filters, *of_previous)

    def connected(self) -> None:
        """Begin again on a new connection."""
        self._found: dict[str, bytes] = {}
        self._of_previous: dict[str, bytes] = {}
        self._send_at_s: float | None = None

    def receive(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take a message; `retained` means that it is older than the subscription."""
        if topic == self._topics.birth:
            # A retained one is older than the connection, on which everything was sent.
            if payload == ONLINE and not retained and self._send_at_s is None:
                self._send_at_s = self._monotonic() + random.uniform(*BIRTH_DELAY_S)  # noqa: S311
            return
        for topics, found in (
            (self._topics, self._found),
            (self._previous, self._of_previous),
        ):
            announced = topics is not None and topics.announces(topic)
            if announced and retained and payload and len(found) < _MAX_FOUND:
                found[topic] = payload

    def check(self, states: Mapping[str, bytes]) -> None:
        """Remove what was found and is not among our `states`; send all again if it is time."""
        self._clear([topic for topic in self._found if topic not in states])
        for topic, payload in self._found.items():
            ours = states.get(topic)
            removal = None if ours is None else self._with_removals(payload, ours)
            if ours is not None and removal is not None:
                self._outbox.publish_retained(topic, removal)
                self._outbox.publish_retained(topic, ours)
        self._found.clear()
        if self._send_at_s is not None and self._monotonic() >= self._send_at_s:
            self._send_at_s = None
            self._outbox.send_states()

    def clear_previous(self) -> None:
        """Clear what the previous node id announced."""
        self._clear(list(self._of_previous))
        self._previous = None
        self._of_previous.clear()

    def _clear(self, topics: list[str]) -> None:
        for topic in topics:
            self._outbox.publish_retained(topic, b"")
            _log.info("removed %s, which Home Assistant had from an earlier run", topic)
