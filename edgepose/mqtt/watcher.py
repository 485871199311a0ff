"""What a connection needs of the object that watches the retained topics of a node."""

from collections.abc import Iterable, Sequence
from typing import Protocol


class RetainedWatcher(Protocol):
    """Receives what the broker retains for a node; called by the network thread only."""

    @property
    def filters(self) -> Iterable[Sequence[str]]:
        """What to subscribe to on this connection, in groups."""

    def connected(self) -> None:
        """Begin again on a new connection."""

    def subscribed(self) -> None:
        """Take the broker's answer to the subscriptions."""

    def receive(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take a message on a topic; `retained` means that it is older than the subscription."""
