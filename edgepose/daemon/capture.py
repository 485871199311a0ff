"""One thread per source, and the mailbox through which frames reach the inference thread."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from edgepose.clock import boottime_ns
from edgepose.datatypes import Frame
from edgepose.errors import SourceError
from edgepose.pipeline import CropState, Pipeline
from edgepose.protocols import FrameSource

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
    """Opens, reads and closes a source in its own thread.

    Live sources drop and count stale frames; any other source waits, for the mailbox and for a
    model, and loses none. A live source is stalled if it delivers no frame for `stall_timeout_ns`,
    or for 30 s at its start. `crop` belongs to the inference thread: every stream begins with the
    whole frame.
    """

    name: str
    source: FrameSource
    stall_timeout_ns: int
    pipeline: Pipeline
    mailbox: FrameMailbox
    clock: Callable[[], int] = boottime_ns

    def __post_init__(self) -> None:
        self.crop = CropState()
        self.closed = False
        self.dropped = 0
        self._stalled_at_ns: int | None = None
        self._hung_at_ns: int | None = None
        self._thread = threading.Thread(target=self._run, name=f"capture-{self.name}", daemon=True)

    def start(self) -> None:
        """Start reading; a failure to open arrives through the mailbox."""
        if self.source.live:
            # Opening a camera takes seconds, and a driver may hang in it as well.
            self._stalled_at_ns = self.clock() + max(self.stall_timeout_ns, OPEN_TIMEOUT_NS)
        self._thread.start()

    def stop(self, *, hung: bool = False) -> None:
        """Ask the thread to close the source; does not wait."""
        self._hung_at_ns = self.clock() + (0 if hung else CLOSE_TIMEOUT_NS)
        self.mailbox.close(self)

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; return False if the source hangs and the thread is left behind."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def hung(self) -> bool:
        """Whether the thread was asked to stop too long ago."""
        return self._hung_at_ns is not None and self.clock() >= self._hung_at_ns

    def is_stalled(self) -> bool:
        """Return whether the next frame is overdue."""
        stalled_at_ns = self._stalled_at_ns
        return stalled_at_ns is not None and self.clock() > stalled_at_ns

    def _run(self) -> None:
        live = self.source.live
        end: Captured = None
        try:
            with closing(self.source.frames()) as frames:
                for frame in frames:
                    if live:
                        self._stalled_at_ns = self.clock() + self.stall_timeout_ns
                    else:
                        self._wait_for_model()
                    self.dropped += self.mailbox.put(self, frame, overwrite=live)
                    if self.closed:
                        break
                    # A frame that was taken or dropped would otherwise live until the next one.
                    del frame
        except SourceError as error:
            end = error
        except Exception as error:  # noqa: BLE001 - camera drivers raise anything
            end = SourceError(
                f"{self.source.description}: failed with {type(error).__name__}: {error}"
            )
        self._stalled_at_ns = None
        # After the last frame, which must not be lost.
        self.mailbox.put(self, end, overwrite=False)

    def _wait_for_model(self) -> None:
        """Hold a recorded frame back while there is no model: it can wait, a camera cannot."""
        while not (self.closed or self.pipeline.models.ready):
            time.sleep(MODEL_POLL_S)
