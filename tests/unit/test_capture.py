"""The capture thread: what it drops, what it never drops, and how it ends."""

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Self

import numpy as np
import pytest

from edgepose.clock import boottime_ns
from edgepose.daemon.capture import OPENING_NS, READ_AHEAD_NICENESS, CaptureThread
from edgepose.datatypes import Frame, Image
from edgepose.errors import ModelError, SourceError, SourceStalledError
from tests.helpers import as_it_is

PATIENCE_S = 10.0


class _Script:
    """A source that the test leads frame by frame: each `allow` lets one more be read."""

    description = "script"

    def __init__(
        self,
        count: int,
        *,
        live: bool,
        failure: BaseException | None = None,
        open_failure: BaseException | None = None,
    ) -> None:
        self.live = live
        self.count = count
        self.failure = failure
        self.open_failure = open_failure
        self.steps = threading.Semaphore(0)
        self.asked = threading.Semaphore(0)
        self.opened_in: str | None = None
        self.closed = threading.Event()
        self.images: list[weakref.ref[Image]] = []

    def __enter__(self) -> Self:
        self.opened_in = threading.current_thread().name
        if self.open_failure is not None:
            raise self.open_failure
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()

    def allow(self, count: int = 1) -> None:
        self.steps.release(count)

    def wait_until_asked(self, count: int = 1) -> None:
        """Wait until the thread came back for more, `count` times."""
        for _ in range(count):
            assert self.asked.acquire(timeout=PATIENCE_S)

    def frames(self) -> Iterator[Frame]:
        for sequence in range(self.count):
            self.asked.release()
            self.steps.acquire()
            image = np.full((4, 4, 3), sequence, np.uint8)
            self.images.append(weakref.ref(image))
            frame = Frame(image, 100 + sequence, sequence)
            del image
            yield frame
            del frame
        self.asked.release()
        self.steps.acquire()
        if self.failure is not None:
            raise self.failure


def _started(
    source: _Script,
    wake: threading.Condition | None = None,
    *,
    make: Callable[[Frame], Frame] = as_it_is,
) -> CaptureThread[Frame]:
    capture = CaptureThread(source, make, name="main", wake=wake)
    capture.start()
    return capture


def _sequence(frame: Frame | None) -> int:
    assert frame is not None
    return frame.sequence


def test_a_live_source_keeps_its_newest_frame_only_and_counts_the_others() -> None:
    source = _Script(5, live=True)
    capture = _started(source)
    source.wait_until_asked()
    source.allow(4)
    source.wait_until_asked(4)
    assert capture.frames_read == 4
    assert capture.dropped == 3
    assert _sequence(capture.take(PATIENCE_S)) == 3
    assert capture.take(0) is None
    source.allow()
    assert _sequence(capture.take(PATIENCE_S)) == 4
    assert (capture.dropped, capture.ended) == (3, False)
    source.allow(9)
    capture.close()


def test_a_file_loses_no_frame_however_slow_the_taker_is() -> None:
    source = _Script(50, live=False)
    source.allow(100)
    capture = _started(source)
    taken: list[int] = []
    while not capture.ended:
        frame = capture.take(PATIENCE_S)
        if frame is not None:
            taken.append(frame.sequence)
    assert taken == list(range(50))
    assert (capture.dropped, capture.frames_read) == (0, 50)


def test_a_file_is_read_one_frame_ahead_which_is_made_when_its_turn_comes() -> None:
    """Then it is cut to where the model has looked last."""
    source = _Script(50, live=False)
    source.allow(100)
    made: list[int] = []

    def make(frame: Frame) -> Frame:
        made.append(frame.sequence)
        return frame

    capture = _started(source, make=make)
    source.wait_until_asked(2)
    assert not source.asked.acquire(timeout=0.1)
    assert (made, capture.frames_read) == ([0], 1)
    assert _sequence(capture.take(PATIENCE_S)) == 0
    source.wait_until_asked()
    assert not source.asked.acquire(timeout=0.1)
    assert (made, capture.frames_read) == ([0, 1], 2)
    capture.close()
    assert source.closed.is_set()


@pytest.mark.parametrize("live", [True, False])
def test_who_reads_a_file_ahead_stands_back_and_a_camera_does_not(live: bool) -> None:
    source = _Script(1, live=live)
    source.allow(2)
    priorities: list[int] = []

    def prepare(frame: Frame) -> Frame:
        priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return frame

    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    capture = _started(source, make=prepare)
    assert _sequence(capture.take(PATIENCE_S)) == 0
    assert priorities == [mine if live else min(mine + READ_AHEAD_NICENESS, 19)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == mine
    capture.close()


def test_a_file_is_read_where_priorities_are_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the sandbox of the service."""
    asked: list[int] = []

    def forbidden(niceness: int) -> int:
        asked.append(niceness)
        raise PermissionError

    monkeypatch.setattr(os, "nice", forbidden)
    source = _Script(1, live=False)
    source.allow(2)
    capture = _started(source)
    assert _sequence(capture.take(PATIENCE_S)) == 0
    assert asked == [READ_AHEAD_NICENESS]
    capture.close()


def test_everything_happens_in_one_named_thread() -> None:
    source = _Script(0, live=True)
    capture = _started(source)
    source.wait_until_asked()
    assert source.opened_in == "capture-main"
    source.allow()
    assert source.closed.wait(PATIENCE_S)
    capture.close()


def test_the_last_frames_come_before_the_error_which_comes_once() -> None:
    source = _Script(2, live=False, failure=SourceStalledError("script: silent"))
    source.allow(10)
    capture = _started(source)
    assert [_sequence(capture.take(PATIENCE_S)) for _ in range(2)] == [0, 1]
    with pytest.raises(SourceStalledError, match="silent"):
        capture.take(PATIENCE_S)
    assert capture.take(0) is None
    assert capture.ended
    assert not capture.has_news()
    assert source.closed.wait(PATIENCE_S)


def test_the_end_is_news_once() -> None:
    source = _Script(0, live=True)
    source.allow()
    capture = _started(source)
    assert capture.take(PATIENCE_S) is None
    assert capture.ended
    assert capture.has_news()
    assert capture.claim_end()
    assert not capture.has_news()
    assert not capture.claim_end()


@pytest.mark.parametrize("failure", [None, SourceError("script: gone")])
def test_the_end_is_not_claimed_over_what_still_waits(failure: SourceError | None) -> None:
    """However late somebody asks for the end, no frame and no error is lost behind it."""
    source = _Script(1, live=False, failure=failure)
    source.allow(10)
    capture = _started(source)
    assert source.closed.wait(PATIENCE_S)
    assert not capture.claim_end()
    assert _sequence(capture.take(PATIENCE_S)) == 0
    if failure is not None:
        assert not capture.claim_end()
        with pytest.raises(SourceError, match="gone"):
            capture.take(PATIENCE_S)
        assert not capture.claim_end(), "the error told of the end already"
    else:
        assert capture.take(PATIENCE_S) is None
        assert capture.claim_end()


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (SourceError("script: gone"), "script: gone"),
        (ModelError("odd"), "odd"),
        (RuntimeError("driver"), "script: failed with RuntimeError: driver"),
    ],
)
@pytest.mark.parametrize("while_opening", [True, False])
def test_any_failure_reaches_the_taker_as_a_source_error(
    failure: Exception, says: str, while_opening: bool
) -> None:
    source = _Script(
        0,
        live=True,
        failure=None if while_opening else failure,
        open_failure=failure if while_opening else None,
    )
    source.allow()
    capture = _started(source)
    with pytest.raises(SourceError) as caught:
        capture.take(PATIENCE_S)
    assert str(caught.value) == says


def test_a_source_that_hangs_does_not_hold_up_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepose.daemon.capture.JOIN_TIMEOUT_S", 0.05)
    source = _Script(1, live=True)
    capture = _started(source)
    source.wait_until_asked()
    before_ns = boottime_ns()
    capture.close()
    capture.close()
    assert boottime_ns() - before_ns < 5_000_000_000
    assert not source.closed.is_set()
    # When it comes back, its frame is not delivered any more, and it is closed.
    source.allow()
    assert source.closed.wait(PATIENCE_S)
    assert capture.take(0) is None
    assert capture.frames_read == 0


def test_closing_wakes_a_reader_that_waits_for_room() -> None:
    source = _Script(50, live=False)
    source.allow(100)
    capture = _started(source)
    source.wait_until_asked(2)
    capture.close()
    assert source.closed.is_set()
    assert capture.take(0) is None


def test_an_error_that_closing_caused_is_not_reported() -> None:
    source = _Script(0, live=True, failure=SourceError("released under its feet"))
    capture = _started(source)
    source.wait_until_asked()
    threading.Timer(0.05, source.allow).start()
    capture.close()
    assert capture.take(0) is None


def test_nor_is_one_that_nobody_took_before() -> None:
    source = _Script(0, live=True, failure=SourceError("script: gone"))
    source.allow()
    capture = _started(source)
    assert source.closed.wait(PATIENCE_S)
    capture.close()
    assert capture.take(0) is None


def test_closing_one_that_never_started_is_fine() -> None:
    CaptureThread(_Script(0, live=True), as_it_is, name="main").close()


def test_one_condition_wakes_the_loop_of_several() -> None:
    wake = threading.Condition()
    sources = [_Script(1, live=True), _Script(1, live=False)]
    captures = [_started(source, wake) for source in sources]
    for source, capture in zip(sources, captures, strict=True):
        with wake:
            assert not any(one.has_news() for one in captures)
            source.allow()
            assert wake.wait_for(lambda: any(one.has_news() for one in captures), PATIENCE_S)
        assert _sequence(capture.take(0)) == 0
    for source, capture in zip(sources, captures, strict=True):
        source.allow(9)
        capture.close()


def test_frames_that_were_taken_or_dropped_are_freed() -> None:
    source = _Script(5, live=True)
    capture = _started(source)
    source.wait_until_asked()
    source.allow(3)
    source.wait_until_asked(3)
    frame = capture.take(PATIENCE_S)
    assert _sequence(frame) == 2
    assert [image() is not None for image in source.images] == [False, False, True]
    del frame
    assert source.images[2]() is None
    source.allow(9)
    capture.close()


def test_silence_counts_from_the_last_frame_of_a_live_source() -> None:
    source = _Script(2, live=True)
    capture = _started(source)
    source.wait_until_asked()
    assert not capture.silent_since(-1), "one that never delivered is still opening"
    capture._started_ns -= OPENING_NS
    assert capture.silent_since(-1), "but not for ever: a driver may hang there too"
    before_ns = boottime_ns()
    source.allow()
    assert capture.take(PATIENCE_S) is not None
    assert capture.last_frame_ns is not None
    assert before_ns <= capture.last_frame_ns <= boottime_ns()
    assert capture.silent_since(-1)
    assert not capture.silent_since(3_600_000_000_000)
    source.allow(9)
    capture.close()
    assert source.closed.is_set()


def test_a_failure_before_anybody_asked_is_not_lost() -> None:
    """A bad file that failed faster than the main thread looked was passed over in silence."""
    source = _Script(0, live=False)
    source.failure = SourceError("damaged")
    source.allow(2)
    capture = _started(source)
    capture._thread.join(PATIENCE_S)
    assert not capture.ended
    with pytest.raises(SourceError, match="damaged"):
        capture.take(0)
    assert capture.ended
