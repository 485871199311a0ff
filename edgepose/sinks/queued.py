"""A sink behind a queue, so that its peer never delays the main thread."""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from edgepose.errors import SinkError
from edgepose.messages import PoseMessage
from edgepose.protocols import Sink
from edgepose.util.background import BackgroundWriter

log = logging.getLogger(__name__)

MAX_PENDING: Final = 1000
"""About 1 MB of messages, half a minute of one person at 30 frames a second."""
CLOSE_TIMEOUT_S: Final = 2.0
STABLE_S: Final = 10.0
"""How long no message may be lost before it is logged that messages are written again."""


class QueuedSink:
    """Passes messages to another sink in a background thread.

    A message that finds the queue full, or with which the other sink raises SinkError, is dropped
    and counted; the reason is logged once. Everything else that the other sink raises ends it.
    `prepare` is called first, in the background. `name` is used in logs and statistics.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        name: str,
        prepare: Callable[[], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._sink = sink
        self._prepare = prepare
        self._failed = False
        # Each belongs to one thread, this one and that of the writer.
        self._queue_losses = _Losses(name, monotonic)
        self._write_losses = _Losses(name, monotonic)
        self._writer = BackgroundWriter(
            f"sink-{name}", self._write, max_pending=MAX_PENDING, on_end=sink.close
        )
        if prepare is not None:
            self._writer.submit(prepare)

    def publish(self, message: PoseMessage) -> None:
        """Queue a message; raises, once, the error with which the other sink ended."""
        queued = self._writer.submit(partial(self._sink.publish, message))
        failure = self._writer.failure
        if failure is not None and not self._failed:
            self._failed = True
            raise failure
        if queued:
            self._queue_losses.end()
        else:
            self._queue_losses.add("not written as fast as messages come")

    @property
    def working(self) -> bool:
        """Whether the newest messages are written."""
        return not (self._queue_losses.losing or self._write_losses.losing)

    @property
    def dropped(self) -> int:
        """How many messages were not written."""
        return self._queue_losses.count + self._write_losses.count

    def close(self) -> None:
        """Wait 2 s until what is queued is written and the other sink closed; twice is fine."""
        if not self._writer.close(CLOSE_TIMEOUT_S):
            log.warning("%s: still blocked; the last messages are not written", self.name)

    def _write(self, attempt: Callable[[], None]) -> None:
        try:
            attempt()
        except SinkError as error:
            self._write_losses.add(str(error), lost=attempt is not self._prepare)
        else:
            self._write_losses.end()


class _Losses:
    """The messages lost in one place: counted, and logged when that begins and when it ends."""

    def __init__(self, name: str, monotonic: Callable[[], float]) -> None:
        self.count = 0
        self.losing = False
        self._name = name
        self._monotonic = monotonic
        self._reason = ""
        self._stable_s = 0.0

    def add(self, reason: str, *, lost: bool = True) -> None:
        """Note that messages are lost, and that this one was."""
        self.losing = True
        self.count += lost
        self._stable_s = self._monotonic() + STABLE_S
        if reason != self._reason:
            self._reason = reason
            log.warning("%s: %s; messages are dropped until that changes", self._name, reason)

    def end(self) -> None:
        """Note that a message was not lost."""
        self.losing = False
        if self._reason and self._monotonic() >= self._stable_s:
            self._reason = ""
            log.info("%s: messages are written again; %d were lost", self._name, self.count)
