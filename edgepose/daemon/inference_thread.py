"""The thread that runs the model."""

import queue
import threading
import time
from typing import Final

from msgspec import Struct

from edgepose.clock import boottime_ns
from edgepose.daemon.capture import Capture, Captured, FrameMailbox
from edgepose.datatypes import Frame
from edgepose.pipeline import Detection

POLL_S: Final = 0.1
"""How long a loop waits at most; a request to stop is noticed within it."""
MAX_PENDING_RESULTS: Final = 2


class Result(Struct, frozen=True):
    """What became of a captured frame: a detection, an error, or None at the end of the source.

    An EdgeposeError is expected, any other exception is a bug.
    """

    capture: Capture
    outcome: Detection | Exception | None


def detect(capture: Capture, item: Captured) -> Result:
    """Run the model on a captured frame; an error or the end of a source is passed on."""
    if not isinstance(item, Frame):
        return Result(capture, item)
    try:
        detection = capture.pipeline.detect(item, capture.crop)
        capture.limit.detected(pose=len(detection.poses) > 0, candidate=detection.candidate)
        return Result(capture, detection)
    except Exception as error:  # noqa: BLE001 - the main loop separates bugs from EdgeposeErrors
        return Result(capture, error)


class InferenceThread:
    """Runs the model on one captured frame after the other; never waits for the broker."""

    def __init__(self, mailbox: FrameMailbox) -> None:
        self.heartbeat_ns = boottime_ns()
        # Not a SimpleQueue, whose timeout begins again with each signal.
        self._results: queue.Queue[Result] = queue.Queue(MAX_PENDING_RESULTS)
        self._mailbox = mailbox
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> None:
        """Start serving the mailbox."""
        self.heartbeat_ns = boottime_ns()
        self._thread.start()

    def next_result(self, timeout_s: float) -> Result | None:
        """Return the next result, or None if none came in time."""
        try:
            return self._results.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def finish_current(self, timeout_s: float) -> bool:
        """Wait until an inference that runs now is over; return False if the model hangs."""
        asked_ns = boottime_ns()
        while self.heartbeat_ns <= asked_ns:
            if boottime_ns() - asked_ns > timeout_s * 1e9:
                return False
            time.sleep(0.005)
        return True

    def stop(self) -> None:
        """Ask the thread to end; does not wait."""
        self._stopping.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; return False if the model hangs and the thread is left behind."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.heartbeat_ns = boottime_ns()
            if (taken := self._mailbox.take(POLL_S)) is not None:
                self._deliver(detect(*taken))

    def _deliver(self, result: Result) -> None:
        """Queue a result: a slow publisher throttles inference instead of growing memory."""
        while not self._stopping.is_set():
            self.heartbeat_ns = boottime_ns()
            try:
                self._results.put(result, timeout=POLL_S)
            except queue.Full:
                continue
            return
