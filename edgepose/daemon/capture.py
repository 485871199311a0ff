"""A source in a thread of its own, so that waiting for pixels never holds up the line."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from edgepose.clock import boottime_ns
from edgepose.datatypes import Frame
from edgepose.errors import EdgeposeError, SourceError
from edgepose.protocols import FrameSource

READ_AHEAD_NICENESS: Final = 10
"""How far whoever reads a file ahead stands back from whoever looks, of the 19 there are."""
JOIN_TIMEOUT_S: Final = 2.0
OPENING_NS: Final = 30_000_000_000
"""How long a live source may take from being opened to its first frame."""


T = TypeVar("T")


class CaptureThread(Generic[T]):
    """Opens a source, reads it, and closes it, in its own thread.

    There is one slot, for the newest frame. A live source drops and counts an older one that nobody
    took; any other waits until the slot is free and loses none. `make` turns each frame into what
    is handed over: work that can be done here keeps no model waiting. `at_once` may take what a
    live source gave, in this thread, where it says True; it is asked while nothing waits. `wake` is
    notified at every other piece of news, so one loop can wait for several captures.
    """

    def __init__(
        self,
        source: FrameSource,
        make: Callable[[Frame], T],
        *,
        name: str,
        at_once: Callable[["CaptureThread[T]", T], bool] | None = None,
        wake: threading.Condition | None = None,
    ) -> None:
        self.dropped = 0
        self.frames_read = 0
        self.last_frame_ns: int | None = None
        self._started_ns = boottime_ns()
        self._source = source
        self._make = make
        self._at_once = at_once if source.live else None
        self._wake = wake or threading.Condition()
        self._frame: T | None = None
        self._error: SourceError | None = None
        self._finished = False
        self._end_claimed = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"capture-{name}", daemon=True)

    def start(self) -> None:
        """Start reading; a failure to open is raised by `take`."""
        self._started_ns = boottime_ns()
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether all is over, and `take` has nothing to return or raise; `wake` may be held."""
        with self._wake:
            return self._finished and self._frame is None and self._error is None

    def has_news(self) -> bool:
        """Whether `take` would return or raise at once; the caller may hold `wake`."""
        with self._wake:
            return self._frame is not None or (self._finished and not self._end_claimed)

    def claim_end(self) -> bool:
        """Say whether the end has come and is news, which it is once, after the last frame."""
        with self._wake:
            if self._end_claimed or not self.ended:
                return False
            self._end_claimed = True
            return True

    def silent_since(self, duration_ns: int) -> bool:
        """Whether a live source has been silent for `duration_ns`, or longer where it is new."""
        if not self._source.live or self._finished:
            return False
        last_ns = self.last_frame_ns
        if last_ns is None:
            # Opening takes a camera seconds, and a driver may hang in it as well.
            last_ns, duration_ns = self._started_ns, max(duration_ns, OPENING_NS)
        return boottime_ns() - last_ns > duration_ns

    def take(self, timeout_s: float) -> T | None:
        """Return the next frame, or None when none came in time or the source has ended.

        Raises the source's SourceError, once, after the frames before it.
        """
        with self._wake:
            self._wake.wait_for(lambda: self._frame is not None or self._finished, timeout_s)
            if self._frame is not None:
                frame, self._frame = self._frame, None
                self._wake.notify_all()
                return frame
            if self._error is not None:
                error, self._error = self._error, None
                self._end_claimed = True
                raise error
            return None

    def close(self) -> None:
        """Stop reading and close the source; a source that hangs is left to its thread."""
        with self._wake:
            self._closing = True
            self._frame = self._error = None
            self._wake.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(JOIN_TIMEOUT_S)

    def _run(self) -> None:
        error: SourceError | None = None
        if not self._source.live:
            _stand_back()
        try:
            with self._source as source:
                for frame in source.frames():
                    if not source.live:
                        self._wait_for_room()
                    made = self._make(frame)
                    if not self._pass_on(made):
                        break
                    # Else a frame that was taken, or dropped, would live until the next one.
                    del frame, made
        except SourceError as failure:
            error = failure
        except EdgeposeError as failure:
            error = SourceError(str(failure))
        except Exception as failure:  # noqa: BLE001 - a driver may raise anything; the loop must know
            error = SourceError(
                f"{self._source.description}: failed with {type(failure).__name__}: {failure}"
            )
        finally:
            with self._wake:
                self._error = None if self._closing else error
                self._finished = True
                self._wake.notify_all()

    def _pass_on(self, frame: T) -> bool:
        """Have one frame taken at once, or hand it over; False where nobody wants any more."""
        # Only this thread fills the slot.
        if self._at_once is not None and self._frame is None:
            # Before: it is not the camera's silence if the model takes long.
            self.last_frame_ns = boottime_ns()
            if self._at_once(self, frame):
                self.frames_read += 1
                return not self._closing
        return self._put(frame)

    def _wait_for_room(self) -> None:
        """Wait until the slot is free, before the frame is cut: then it is known where to look."""
        with self._wake:
            self._wake.wait_for(lambda: self._closing or self._frame is None)

    def _put(self, frame: T) -> bool:
        with self._wake:
            if self._closing:
                return False
            if self._frame is not None:
                self.dropped += 1
            self._frame = frame
            self.frames_read += 1
            self.last_frame_ns = boottime_ns()
            self._wake.notify_all()
            return True


def _stand_back() -> None:
    """Let the scheduler prefer other threads of this process to the calling one, where it can.

    Woken on the core on which the model runs, reading ahead would interrupt it: with two cores and
    Motion JPEG, once a frame. A live source is not to wait, for its driver's buffers are few.
    """
    # Elsewhere than on Linux the whole process would stand back.
    if sys.platform == "linux":
        # A sandbox may forbid it.
        with contextlib.suppress(OSError):
            os.nice(READ_AHEAD_NICENESS)
