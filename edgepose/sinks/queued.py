"""A sink behind a queue, so that its peer never delays the main thread."""

import logging
import math
import threading
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
"""How long no message may be dropped before it is logged that messages are written again."""
BLOCKED_S: Final = 10.0
"""How long one message may take before that is logged."""


class QueuedSink:
    """Passes messages to another sink in a background thread.

    A message that finds the queue full, or with which the other sink raises SinkError, is dropped
    and counted in `dropped`; each reason is logged once. Everything else that the other sink raises
    ends it. `working` is whether messages are written. `prepare` is called first, in the
    background. `name` is used in logs and statistics.
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
        self.dropped = 0
        self.working = True
        self._sink = sink
        self._prepare = prepare
        self._monotonic = monotonic
        self._failed = False
        self._lock = threading.Lock()
        self._reasons: set[str] = set()
        self._stable_s = 0.0
        self._started_s = math.inf
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
        if not queued:
            self._fail("not written as fast as messages come", dropped=1)
        elif self._monotonic() > self._started_s + BLOCKED_S:
            self._fail(f"blocked for {BLOCKED_S:g} s", dropped=0)

    def close(self) -> None:
        """Wait 2 s until what is queued is written and the other sink closed; twice is fine."""
        if not self._writer.close(CLOSE_TIMEOUT_S):
            log.warning("%s: still blocked; the last messages are not written", self.name)

    def _write(self, attempt: Callable[[], None]) -> None:
        self._started_s = self._monotonic()
        try:
            attempt()
        except SinkError as error:
            self._fail(str(error), dropped=attempt is not self._prepare)
            return
        finally:
            self._started_s = math.inf
        self.working = True
        if self._reasons and self._monotonic() >= self._stable_s:
            self._reasons.clear()
            log.info("%s: messages are written again; %d were dropped", self.name, self.dropped)

    def _fail(self, reason: str, *, dropped: int) -> None:
        with self._lock:
            self.dropped += dropped
            self.working = False
            self._stable_s = self._monotonic() + STABLE_S
            is_new = reason not in self._reasons
            self._reasons.add(reason)
        if is_new:
            log.warning("%s: %s; messages are dropped until that changes", self.name, reason)
