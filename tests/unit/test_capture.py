"""Capture thread and mailbox: what is dropped, what is never dropped, and how a stream ends."""

import errno
import threading
from typing import Any

import pytest

from edgepose.daemon.capture import (
    CLOSE_TIMEOUT_NS,
    OPEN_TIMEOUT_NS,
    Capture,
    Captured,
    FrameMailbox,
)
from edgepose.daemon.frame_rate_limit import FrameRateLimit
from edgepose.datatypes import Frame
from edgepose.errors import SourceError, SourceStalledError, UsageError
from edgepose.protocols import FrameDemand, FrameSource, FrameStream
from tests.builders import SECOND_NS, frame_of
from tests.fakes.pipeline import FakeModels, FakePoseModel, PipelineRig
from tests.fakes.sources import PATIENCE_S, SteppedSource
from tests.mosquitto import wait_for


class CaptureRig:
    """A capture of a stepped source, its mailbox, and a clock that the test sets."""

    def __init__(
        self, source: SteppedSource, mailbox: FrameMailbox | None = None, *, start: bool = True
    ) -> None:
        self.now_ns = 100_000_000_000
        self.source = source
        self.mailbox = mailbox or FrameMailbox()
        self.pipeline = PipelineRig(FakePoseModel(0.6, 0.9)).pipeline
        self.capture = Capture(
            "main", lambda: source, 5, self.pipeline, self.mailbox, clock=lambda: self.now_ns
        )
        if start:
            self.capture.start()

    def take(self) -> Captured:
        taken = self.mailbox.take(PATIENCE_S)
        assert taken is not None
        capture, item = taken
        assert capture is self.capture
        return item

    def sequence(self) -> int:
        """Take the next item, which must be a frame, and return its number."""
        frame = self.take()
        assert isinstance(frame, Frame)
        return frame.sequence


def test_capture_live_source_drops_and_counts_stale_frames() -> None:
    source = SteppedSource(5, live=True)
    rig = CaptureRig(source)
    source.wait_until_requested()
    source.allow(4)
    source.wait_until_requested(4)
    assert rig.capture.dropped == 3
    assert rig.sequence() == 3
    assert rig.mailbox.take(0) is None
    source.allow()
    assert rig.sequence() == 4
    assert rig.capture.dropped == 3
    source.allow(9)
    rig.capture.stop()


def test_capture_file_loses_no_frame() -> None:
    source = SteppedSource(50, live=False)
    source.allow(100)
    rig = CaptureRig(source)
    assert [rig.sequence() for _ in range(50)] == list(range(50))
    assert rig.take() is None
    assert rig.capture.dropped == 0


def test_capture_file_is_read_one_frame_ahead() -> None:
    source = SteppedSource(50, live=False)
    source.allow(100)
    rig = CaptureRig(source)
    source.wait_until_requested(2)
    assert not source.requested.acquire(timeout=0.1)
    assert rig.sequence() == 0
    source.wait_until_requested()
    assert not source.requested.acquire(timeout=0.1)
    rig.capture.stop()
    assert source.closed.wait(PATIENCE_S)


def test_capture_file_waits_for_a_model() -> None:
    source = SteppedSource(3, live=False)
    rig = CaptureRig(source, start=False)
    models = FakeModels()
    ready = rig.pipeline.models.current
    rig.pipeline.models = models
    rig.capture.start()
    source.allow(9)
    assert rig.mailbox.take(0.3) is None
    models.models.append(ready)
    assert [rig.sequence() for _ in range(3)] == [0, 1, 2]


def test_capture_live_source_does_not_wait_for_a_model() -> None:
    source = SteppedSource(1, live=True)
    rig = CaptureRig(source, start=False)
    rig.pipeline.models = FakeModels()
    rig.capture.start()
    source.allow()
    assert rig.sequence() == 0
    source.allow(9)


def test_capture_live_source_skips_frames_beyond_the_limit() -> None:
    """They are not dropped ones; the first frame that is due again is taken."""
    source = SteppedSource(9, live=True)
    rig = CaptureRig(source, start=False)
    rig.capture.limit = FrameRateLimit(10, clock=lambda: rig.now_ns)
    rig.capture.start()
    taken = []
    for _ in range(9):
        source.wait_until_requested()
        source.allow()
        while (item := rig.mailbox.take(0.02)) is not None:
            assert isinstance(item[1], Frame)
            taken.append(item[1].sequence)
        rig.now_ns += 33_000_000
    assert taken == [0, 3, 6]
    assert rig.capture.dropped == 0
    source.allow(9)
    rig.capture.stop()


def test_capture_file_is_never_idle() -> None:
    """All frames of a file are processed, whatever the limit and whoever is in it."""
    source = SteppedSource(50, live=False)
    source.allow(100)
    rig = CaptureRig(source, start=False)
    rig.capture.limit = FrameRateLimit(1, clock=lambda: rig.now_ns)
    rig.capture.limit.set_idle(fps=1, after_s=0)
    rig.capture.start()
    assert [rig.sequence() for _ in range(50)] == list(range(50))
    assert rig.take() is None


def test_capture_tells_a_live_source_what_it_needs() -> None:
    demands: list[FrameDemand | None] = []

    class Source(SteppedSource):
        def frames(self) -> FrameStream:
            for sequence in range(3):
                demands.append((yield frame_of(sequence=sequence)))

    for live in (True, False):
        rig = CaptureRig(Source(0, live=live))
        while rig.take() is not None:
            pass
        assert demands == [rig.capture.limit if live else None] * 3
        demands.clear()


def test_capture_overdue_allows_for_a_low_limit() -> None:
    """A source may skip what is not wanted: with a frame in 10 s, 5 s without one is no fault."""
    source = SteppedSource(2, live=True)
    rig = CaptureRig(source, start=False)
    rig.capture.limit = FrameRateLimit(0.1, clock=lambda: rig.now_ns)
    rig.capture.start()
    source.wait_until_requested()
    source.allow()
    source.wait_until_requested()
    assert rig.sequence() == 0
    rig.now_ns += 30 * SECOND_NS
    assert rig.capture.overdue_ns == 0
    rig.now_ns += 1
    assert rig.capture.overdue_ns == 1
    source.allow(9)
    rig.capture.stop()


def test_capture_opens_and_closes_in_its_own_thread() -> None:
    source = SteppedSource(0, live=True)
    rig = CaptureRig(source)
    source.wait_until_requested()
    assert source.opened_in == "capture-main"
    source.allow()
    assert source.closed.wait(PATIENCE_S)
    assert rig.capture.join(PATIENCE_S)


@pytest.mark.parametrize("failure", [None, SourceStalledError("stepped: silent")])
def test_capture_last_frame_comes_before_the_end(failure: SourceError | None) -> None:
    source = SteppedSource(2, live=False, failure=failure)
    source.allow(10)
    rig = CaptureRig(source)
    assert [rig.sequence() for _ in range(2)] == [0, 1]
    assert rig.take() is failure
    assert rig.mailbox.take(0) is None
    assert source.closed.is_set()


def test_capture_live_frame_is_not_replaced_by_the_end() -> None:
    """However late it is taken, the last frame of a camera is not lost to its error."""
    source = SteppedSource(1, live=True, failure=SourceError("stepped: gone"))
    source.allow(10)
    rig = CaptureRig(source)
    assert source.closed.wait(PATIENCE_S)
    assert rig.sequence() == 0
    assert str(rig.take()) == "stepped: gone"


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (SourceError("stepped: gone"), "stepped: gone"),
        (RuntimeError("driver"), "the source failed with RuntimeError: driver"),
    ],
)
@pytest.mark.parametrize("while_opening", [True, False])
def test_capture_any_failure_is_a_source_error(
    failure: Exception, text: str, while_opening: bool
) -> None:
    expected: dict[str, Any] = {"open_failure" if while_opening else "failure": failure}
    source = SteppedSource(0, live=True, **expected)
    source.allow()
    error = CaptureRig(source).take()
    assert isinstance(error, SourceError)
    assert str(error) == text


def test_capture_stop_does_not_wait_for_a_source_that_hangs() -> None:
    source = SteppedSource(1, live=True)
    rig = CaptureRig(source)
    source.wait_until_requested()
    rig.capture.stop()
    assert not rig.capture.join(0.05)
    assert not source.closed.is_set()
    hung = [rig.capture.hung]
    rig.now_ns += CLOSE_TIMEOUT_NS
    hung.append(rig.capture.hung)
    assert hung == [False, True]
    # When the source answers again, its frame is discarded and it is closed.
    source.allow()
    assert source.closed.wait(PATIENCE_S)
    assert rig.capture.join(PATIENCE_S)
    assert rig.mailbox.take(0) is None


def test_capture_stop_wakes_a_reader_that_waits_for_the_mailbox() -> None:
    source = SteppedSource(50, live=False)
    source.allow(100)
    rig = CaptureRig(source)
    source.wait_until_requested(2)
    rig.capture.stop()
    assert source.closed.wait(PATIENCE_S)
    assert rig.mailbox.take(0) is None


@pytest.mark.parametrize("before", [True, False])
def test_capture_error_of_a_stopped_source_is_discarded(before: bool) -> None:
    """Neither an error that stopping caused nor one that was not taken before is delivered."""
    source = SteppedSource(0, live=True, failure=SourceError("released"))
    rig = CaptureRig(source)
    source.wait_until_requested()
    if before:
        source.allow()
        assert source.closed.wait(PATIENCE_S)
    rig.capture.stop()
    source.allow()
    assert rig.capture.join(PATIENCE_S)
    assert rig.mailbox.take(0) is None


def test_capture_frees_frames_that_were_taken_or_dropped() -> None:
    source = SteppedSource(5, live=True)
    rig = CaptureRig(source)
    source.wait_until_requested()
    source.allow(3)
    source.wait_until_requested(3)
    frame = rig.take()
    assert isinstance(frame, Frame)
    assert frame.sequence == 2
    assert [image() is not None for image in source.images] == [False, False, True]
    del frame
    assert source.images[2]() is None
    source.allow(9)
    rig.capture.stop()


def test_capture_overdue_counts_from_the_last_frame() -> None:
    source = SteppedSource(2, live=True)
    rig = CaptureRig(source)
    source.wait_until_requested()
    rig.now_ns += OPEN_TIMEOUT_NS
    assert rig.capture.overdue_ns == 0, "opening a camera takes time"
    rig.now_ns += 1
    assert rig.capture.overdue_ns == 1, "but a driver may hang while opening too"
    source.allow()
    source.wait_until_requested()
    assert rig.sequence() == 0
    rig.now_ns += 5
    assert rig.capture.overdue_ns == 0
    rig.now_ns += 1
    assert rig.capture.overdue_ns == 1
    source.allow(9)
    rig.capture.stop()


def test_capture_file_overdue_counts_the_time_in_the_source_only() -> None:
    """A file on a network disk that hung was never reported; a busy model is no fault of it."""
    source = SteppedSource(3, live=False)
    rig = CaptureRig(source)
    source.wait_until_requested()
    source.allow()
    source.wait_until_requested()
    rig.now_ns += OPEN_TIMEOUT_NS
    assert rig.capture.overdue_ns == 0
    rig.now_ns += 1
    assert rig.capture.overdue_ns == 1
    source.allow()
    wait_for(lambda: not rig.capture.overdue_ns, "the second frame")
    rig.now_ns += 10 * OPEN_TIMEOUT_NS
    assert rig.capture.overdue_ns == 0, "it waits for the mailbox"
    source.allow(9)
    rig.capture.stop()


def test_capture_source_that_cannot_be_created_fails_in_its_thread() -> None:
    """Whatever it raised ended the daemon: it was created on the main thread."""
    created_in: list[str] = []

    def new_source() -> FrameSource:
        created_in.append(threading.current_thread().name)
        raise failures.pop()

    failures: list[BaseException] = [
        SystemExit(3),
        UsageError("rtsp:: no host"),
        PermissionError(errno.EACCES, "Permission denied", "stick/v.mp4"),
        RuntimeError("no memory for rtsp://admin:s3cret@192.0.2.7/live"),
    ]
    texts = []
    while failures:
        rig = CaptureRig(SteppedSource(0, live=True), start=False)
        rig.capture.new_source = new_source
        rig.capture.start()
        error = rig.take()
        assert isinstance(error, SourceError)
        texts.append(str(error))
    assert created_in == ["capture-main"] * 4
    assert texts == [
        "the source failed with RuntimeError: no memory for rtsp:********@192.0.2.7/live",
        "the source failed with PermissionError: [Errno 13] Permission denied: 'stick/v.mp4'",
        "rtsp:: no host",
        "the source failed with SystemExit: 3",
    ]


def test_mailbox_serves_the_capture_that_waited_longest() -> None:
    mailbox = FrameMailbox()
    rigs = [CaptureRig(SteppedSource(0, live=True), mailbox, start=False) for _ in range(3)]
    for rig, sequence in ((rigs[1], 0), (rigs[0], 1), (rigs[2], 2), (rigs[1], 3)):
        mailbox.put(rig.capture, frame_of(sequence=sequence), overwrite=True)
    items = [taken[1] for _ in range(3) if (taken := mailbox.take(0)) is not None]
    assert [item.sequence for item in items if isinstance(item, Frame)] == [3, 1, 2]


def test_mailbox_take_without_items_returns_none() -> None:
    assert FrameMailbox().take(0) is None


def test_mailbox_wakes_a_taker() -> None:
    mailbox = FrameMailbox()
    rig = CaptureRig(SteppedSource(0, live=True), mailbox, start=False)
    timer = threading.Timer(0.05, lambda: mailbox.put(rig.capture, frame_of(), overwrite=True))
    timer.start()
    assert mailbox.take(PATIENCE_S) is not None
