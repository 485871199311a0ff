"""A sink behind a queue, so that its peer never delays the main thread."""

import logging
from collections.abc import Callable
from typing import Final

from edgepose.errors import SinkError
from edgepose.messages import PoseMessage
from edgepose.protocols import Sink
from edgepose.util.background import BackgroundWriter

log = logging.getLogger(__name__)

MAX_PENDING: Final = 1000
"""About 1 MB of messages, half a minute of one person at 30 frames a second."""
CLOSE_TIMEOUT_S: Final = 2.0


class QueuedSink:
    """Passes messages to another sink in a background thread.

    A message that finds the queue full is dropped and counted in `dropped`; the first of a series
    is logged. `name` is used in logs. `on_idle` is called there after a second without a message.
    """

    def __init__(self, sink: Sink, *, name: str, on_idle: Callable[[], None] | None = None) -> None:
        self._sink = sink
        self._name = name
        self._dropping = self._failed = False
        self._writer = BackgroundWriter(
            f"sink-{name}", sink.publish, max_pending=MAX_PENDING, on_idle=on_idle
        )

    @property
    def dropped(self) -> int:
        """How many messages were dropped since the start."""
        return self._writer.dropped

    def publish(self, message: PoseMessage) -> None:
        """Queue a message; raises, once, the SinkError with which the other sink ended."""
        queued = self._writer.submit(message)
        if (failure := self._writer.failure) is not None:
            if self._failed:
                return
            self._failed = True
            if isinstance(failure, SinkError):
                raise failure
            raise SinkError(f"{self._name}: {type(failure).__name__}: {failure}") from failure
        if not queued and not self._dropping:
            log.warning(
                "%s: not written as fast as messages come; messages are dropped until it is",
                self._name,
            )
        self._dropping = not queued

    def close(self) -> None:
        """Wait 2 s for what is queued, then close the other sink; closing twice is fine."""
        if self._writer.close(CLOSE_TIMEOUT_S):
            self._sink.close()
        else:
            log.warning("%s: still blocked; the last messages are not written", self._name)
