"""A sink behind a queue, so that its peer never delays the main thread."""

import logging
from typing import Final

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
    is logged. `name` is used in logs.
    """

    def __init__(self, sink: Sink, *, name: str) -> None:
        self._sink = sink
        self._name = name
        self.dropped = 0
        self._dropping = self._failed = False
        self._writer = BackgroundWriter(f"sink-{name}", sink.publish, max_pending=MAX_PENDING)

    def publish(self, message: PoseMessage) -> None:
        """Queue a message; raises, once, the error with which the other sink ended."""
        queued = self._writer.submit(message)
        failure = self._writer.failure
        if failure is not None and not self._failed:
            self._failed = True
            raise failure
        if not (queued or self._dropping or self._failed):
            log.warning(
                "%s: not written as fast as messages come; messages are dropped until it is",
                self._name,
            )
        self._dropping = not queued
        self.dropped += not queued

    def close(self) -> None:
        """Wait 2 s for what is queued, then close the other sink; closing twice is fine."""
        if self._writer.close(CLOSE_TIMEOUT_S):
            self._sink.close()
        else:
            log.warning("%s: still blocked; the last messages are not written", self._name)
