"""One thread per source, and the mailbox through which frames reach the inference thread."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

from edgepose.clock import boottime_ns
from edgepose.daemon.frame_rate_limit import FrameRateLimit
from edgepose.datatypes import Frame
from edgepose.detection.crop_state import CropState
from edgepose.errors import EdgeposeError, SourceError
from edgepose.pipeline import Pipeline
from edgepose.protocols import FrameSource
from edgepose.util.redact import masked_url

OPEN_TIMEOUT_NS: Final = 30_000_000_000
"""How long a live source may take from being opened to its first frame."""
CLOSE_TIMEOUT_NS: Final = 5_000_000_000
"""A source that does not close within this time counts as hung."""
MODEL_POLL_S: Final = 0.1


Captured = Frame | SourceError | None
"""A frame, or how the stream ended: with an error, or None at the end of a file."""


class FrameMailbox:
    """One slot per capture; the capture that has waited longest is served first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # Insertion order is the order of service.
        self._slots: dict[Capture, Captured] = {}

    def put(self, capture: "Capture", item: Captured, *, overwrite: bool) -> bool:
        """Store an item and return whether it replaced one; waits for the slot if not `overwrite`.

        Items of a closed capture are discarded.
        """
        with self._changed:
            if not overwrite:
                self._changed.wait_for(lambda: capture.closed or capture not in self._slots)
            if capture.closed:
                return False
            replaced = capture in self._slots
            self._slots[capture] = item
            self._changed.notify_all()
            return replaced

    def take(self, timeout_s: float) -> "tuple[Capture, Captured] | None":
        """Return the next item and its capture, or None if none came in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._slots), timeout_s):
                return None
            capture = next(iter(self._slots))
            item = self._slots.pop(capture)
            self._changed.notify_all()
            return capture, item

    def close(self, capture: "Capture") -> None:
        """Close a capture and discard its item."""
        with self._changed:
            capture.closed = True
            self._slots.pop(capture, None)
            self._changed.notify_all()


@dataclass(eq=False)
class Capture:
    """Creates, opens, reads and closes a source in its own thread.

    Live sources drop and count stale frames, and leave out those that `limit` does not accept; any
    other source waits, for the mailbox and for a model, and loses none. A source is stalled if it
    delivers no frame for `stall_timeout_ns`, or for 30 s if it is being opened or is not live.
    `crop` belongs to the inference thread: every stream begins with the whole frame.
    """

    name: str
    new_source: Callable[[], FrameSource]
    stall_timeout_ns: int
    pipeline: Pipeline
    mailbox: FrameMailbox
    limit: FrameRateLimit = field(default_factory=FrameRateLimit)
    clock: Callable[[], int] = boottime_ns

    def __post_init__(self) -> None:
        self.crop = CropState()
        self.closed = False
        self.dropped = 0
        self._stalled_at_ns: int | None = None
        self._hung_at_ns: int | None = None
        self._thread = threading.Thread(target=self._run, name=f"capture-{self.name}", daemon=True)

    def start(self) -> None:
        """Start reading; a failure to open arrives through the mailbox.

        Raises RuntimeError if the system has no thread left.
        """
        # Opening a camera takes seconds, and a driver may hang in it as well.
        self._stalled_at_ns = self.clock() + max(self.stall_timeout_ns, OPEN_TIMEOUT_NS)
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to close the source; does not wait."""
        self._hung_at_ns = self.clock() + (0 if self.overdue_ns else CLOSE_TIMEOUT_NS)
        self.mailbox.close(self)

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; return False if it still runs."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def hung(self) -> bool:
        """Whether the thread was asked to stop too long ago."""
        return self._hung_at_ns is not None and self.clock() >= self._hung_at_ns

    @property
    def overdue_ns(self) -> int:
        """For how long the next frame has been overdue; 0 if it is not."""
        stalled_at_ns = self._stalled_at_ns
        return 0 if stalled_at_ns is None else max(0, self.clock() - stalled_at_ns)

    def _run(self) -> None:
        end: Captured = None
        try:
            # Here, and not in the main thread: a disk or a network may be slow.
            source = self.new_source()
            live = source.live
            demand = None
            with closing(source.frames()) as frames:
                while True:
                    try:
                        frame = frames.send(demand)
                    except StopIteration:
                        break
                    # What follows may take its time without a fault of the source.
                    self._stalled_at_ns = None
                    if not live:
                        self._wait_for_model()
                        self.mailbox.put(self, frame, overwrite=False)
                    elif self.limit.accepts(self.clock()):
                        self.dropped += self.mailbox.put(self, frame, overwrite=True)
                    if self.closed:
                        break
                    # A frame that was taken or dropped would otherwise live until the next one.
                    del frame
                    demand = self.limit if live else None
                    self._stalled_at_ns = self.clock() + self._timeout_ns(live=live)
        except BaseException as error:  # noqa: BLE001 - camera drivers raise anything
            end = _source_error(error)
        self._stalled_at_ns = None
        # After the last frame, which must not be lost.
        self.mailbox.put(self, end, overwrite=False)

    def _timeout_ns(self, *, live: bool) -> int:
        """Return how long the next frame may take; a source may skip those that are not wanted."""
        if not live:
            return max(self.stall_timeout_ns, OPEN_TIMEOUT_NS)
        return max(self.stall_timeout_ns, 3 * self.limit.interval_ns)

    def _wait_for_model(self) -> None:
        """Hold a recorded frame back while there is no model: it can wait, a camera cannot."""
        while not (self.closed or self.pipeline.models.ready):
            time.sleep(MODEL_POLL_S)


def _source_error(error: BaseException) -> SourceError:
    if isinstance(error, SourceError):
        return error
    # A library may name the URL with its password.
    text = masked_url(str(error))
    if not isinstance(error, EdgeposeError):
        text = f"the source failed with {type(error).__name__}: {text}"
    return SourceError(text)
