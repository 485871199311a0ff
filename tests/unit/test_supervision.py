"""A camera's life, told with a source that does what it is told and a clock that does not run."""

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import pytest

from edgepose.build import silence_ns
from edgepose.clock import boottime_ns
from edgepose.config import Camera as CameraConfig
from edgepose.daemon import camera as supervision
from edgepose.daemon.camera import Camera, CameraSupervisor, InferenceThread, Seen
from edgepose.datatypes import Frame
from edgepose.errors import SinkError, SourceBusyError, SourceError, SourceStalledError
from edgepose.events.occupancy import OccupancyDetector
from edgepose.events.track_events import TrackEventDetector
from edgepose.mqtt.topics import Topics
from edgepose.pipeline import Look, Prepared
from tests.helpers import SECOND_NS, frame_of
from tests.unit.test_pipeline import FakeModel, Line

PATIENCE_S = 5.0


class Scripted:
    """A source that plays a script: frames, errors, or the end."""

    live = True
    description = "scripted"

    def __init__(self, script: list[int | SourceError]) -> None:
        self._script = script

    def __enter__(self) -> Self:
        if self._script and isinstance(self._script[0], SourceBusyError):
            raise self._script[0]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def frames(self) -> Iterator[Frame]:
        for item in self._script:
            if isinstance(item, SourceError):
                raise item
            yield frame_of(timestamp_ns=item * SECOND_NS, sequence=item)


class Stage:
    """A runner, its scripts, and what it published."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *scripts: list[int | SourceError]) -> None:
        self.now_ns = 100 * SECOND_NS
        monkeypatch.setattr(supervision, "boottime_ns", lambda: self.now_ns)
        monkeypatch.setattr("random.uniform", lambda _low, _high: 1.0)
        self.states: dict[str, bytes] = {}
        self.history: list[bytes] = []
        self.opened = 0
        self._scripts = list(scripts)
        line = Line(FakeModel(0.6, 0.9, crops=False))
        self.messages = line.sink.messages
        camera = Camera(
            "main",
            self._open,
            line.pipeline,
            OccupancyDetector(on_delay_ms=0),
            TrackEventDetector(on_delay_ms=0),
            5 * SECOND_NS,
        )
        self.topics = Topics(node="node")
        self.events: list[dict[str, object]] = []
        self.runner = CameraSupervisor(camera, threading.Condition(), self, enabled=True)

    def _open(self) -> Scripted:
        self.opened += 1
        return Scripted(self._scripts[min(self.opened, len(self._scripts)) - 1])

    def set_state(self, topic: str, payload: bytes) -> None:
        self.states[topic.rpartition("/")[2]] = payload
        if topic.endswith("/status"):
            self.history.append(payload)

    def send_event(self, camera: str, payload: bytes) -> None:
        self.events.append(json.loads(payload))

    def next(self) -> Seen:
        """Wait for the next piece of news, look at it, and tell of it."""
        capture = self.runner._capture
        assert capture is not None
        with capture._wake:
            assert capture._wake.wait_for(self.runner.has_news, PATIENCE_S)
        waiting = self.runner.prepare()
        assert waiting is not None
        seen = waiting.see()
        self.runner.tell(seen)
        return seen


def test_frames_then_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, [1])
    stage.runner.announce()
    stage.runner.start()
    stage.next()
    assert stage.states["status"] == b"online"
    assert (stage.states["presence"], stage.states["count"]) == (b"ON", b"1")
    stage.next()
    assert stage.runner.ended
    assert stage.states["status"] == b"offline"
    assert (stage.states["presence"], stage.states["count"]) == (b"OFF", b"0")
    assert [len(message.poses) for message in stage.messages] == [1, 0]


def test_a_source_that_never_opened_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, [SourceBusyError("camera: held by another")])
    stage.runner.start()
    with pytest.raises(SourceError, match="held by another"):
        stage.next()


def test_a_lost_camera_is_opened_again_with_more_and_more_patience(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gone = SourceError("camera: unplugged")
    stage = Stage(monkeypatch, [1, gone], [gone], [gone], [1])
    stage.runner.start()
    stage.next()
    stage.next()
    assert stage.states["status"] == b"offline"
    for wait_s, opened in ((1, 2), (2, 3), (3, 4)):
        stage.runner.tick(stage.now_ns + wait_s * SECOND_NS - 1)
        assert stage.opened == opened - 1
        stage.now_ns += wait_s * SECOND_NS
        stage.runner.tick(stage.now_ns)
        assert stage.opened == opened
        stage.next()
    assert stage.states["status"] == b"online"
    # The same failure is said once, not at every try.
    assert caplog.text.count("unplugged") == 1
    assert stage.runner.reopened == 3


def test_a_stalled_camera_is_called_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, [1, SourceStalledError("camera: silent")])
    stage.runner.start()
    stage.next()
    stage.next()
    assert stage.states["status"] == b"stalled"


def test_off_closes_and_on_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, [1, 2, 3])
    stage.runner.start()
    seen = stage.next()
    stage.runner.switch(enabled=False)
    assert stage.states["enabled"] == b"OFF"
    assert stage.states["presence"] == b"OFF"
    count = len(stage.messages)
    # What was being looked at when the switch fell must not leave any more.
    stage.runner.tell(seen)
    stage.runner.tick(stage.now_ns + 100 * SECOND_NS)
    assert len(stage.messages) == count
    assert stage.opened == 1
    stage.runner.switch(enabled=True)
    stage.next()
    assert stage.opened == 2
    assert stage.states["status"] == b"online"


def test_a_mistake_of_ours_ends_the_looking_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, [1, 2, 3])

    def broken(_frame: Frame) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(stage.runner.camera.pipeline, "see", broken)
    stage.runner.start()
    looking = InferenceThread([stage.runner], stage.runner._wake, threading.Lock())
    looking.start()
    with pytest.raises(ZeroDivisionError, match="a bug"):
        looking.take(1.0)
    looking.close()


class Ticking:
    """A live source of frames a second apart by their timestamps, each when the test lets it."""

    live = True
    description = "ticking"

    def __init__(self) -> None:
        self.steps = threading.Semaphore(0)
        self.ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def end(self) -> None:
        self.ended = True
        self.steps.release()

    def frames(self) -> Iterator[Frame]:
        for number in itertools.count():
            self.steps.acquire()
            if self.ended:
                return
            yield frame_of(timestamp_ns=number * SECOND_NS, sequence=number)


class Looked:
    """A runner and its looking thread, as the daemon has them, and in which thread what was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stage = Stage(monkeypatch, [])
        monkeypatch.setattr(supervision, "boottime_ns", boottime_ns)
        self.source = Ticking()
        self.runner = self.stage.runner
        pipeline = self.runner.camera.pipeline
        self.runner.camera.open_source = lambda: self.source
        self.threads: list[tuple[int, str]] = []
        self.see = pipeline.see
        monkeypatch.setattr(pipeline, "see", self._see)
        self.telling = threading.Lock()
        self.looking = InferenceThread([self.runner], self.runner._wake, self.telling)
        self.looking.start()
        self.runner.start()

    def _see(self, prepared: Prepared) -> Look:
        self.threads.append((prepared.frame.sequence, threading.current_thread().name))
        return self.see(prepared)

    def tell(self) -> None:
        """Tell of the next that was handed over, as the main thread does."""
        end = time.monotonic() + PATIENCE_S
        while (seen := self.looking.take(0.1)) is None:
            assert time.monotonic() < end
        with self.telling:
            self.runner.tell(seen)
            self.looking.told()

    def wait_for_told(self, count: int) -> None:
        end = time.monotonic() + PATIENCE_S
        while len(self.stage.messages) < count:
            assert time.monotonic() < end
            time.sleep(0.001)

    @property
    def sequences(self) -> list[int]:
        return [message.sequence for message in self.stage.messages]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Looked]:
    looked = Looked(monkeypatch)
    yield looked
    looked.source.end()
    looked.runner.close()
    looked.looking.close()


def test_frames_with_time_between_them_stay_in_the_capture_thread(looked: Looked) -> None:
    # How long looking takes is not known before the first.
    looked.source.steps.release()
    looked.tell()
    for count in (2, 3, 4):
        looked.source.steps.release()
        looked.wait_for_told(count)
    assert looked.threads == [(0, "looking"), *((n, "capture-main") for n in (1, 2, 3))]
    assert looked.looking.take(0) is None
    assert looked.stage.states["status"] == b"online"


def test_frames_that_come_faster_than_they_are_looked_at_go_to_the_looking_thread(
    looked: Looked,
) -> None:
    looked.source.steps.release()
    looked.tell()
    # As if one had taken longer than half of the second between two frames.
    looked.looking._took_ns = SECOND_NS // 2 + 1
    looked.source.steps.release()
    looked.tell()
    assert [thread for _, thread in looked.threads] == ["looking", "looking"]


def test_no_frame_overtakes_another(looked: Looked) -> None:
    looked.source.steps.release()
    looked.tell()
    # The main thread is busy with something else: the frame is looked at, and told of by it.
    with looked.telling:
        looked.source.steps.release()
        seen = looked.looking.take(PATIENCE_S)
    assert looked.threads[-1] == (1, "capture-main")
    # It has been taken, but not told of yet, when the next one comes.
    looked.source.steps.release()
    later = looked.looking.take(PATIENCE_S)
    assert looked.threads[-1] == (2, "looking")
    for each in (seen, later):
        assert each is not None
        with looked.telling:
            looked.runner.tell(each)
            looked.looking.told()
    looked.source.steps.release()
    looked.wait_for_told(4)
    assert looked.threads[-1] == (3, "capture-main")
    assert looked.sequences == [0, 1, 2, 3]


def test_nothing_leaves_of_a_camera_closed_while_its_thread_looked(looked: Looked) -> None:
    looked.source.steps.release()
    looked.tell()
    see, entered, go_on = looked.see, threading.Event(), threading.Event()

    def slow(prepared: Prepared) -> Look:
        entered.set()
        assert go_on.wait(PATIENCE_S)
        return see(prepared)

    looked.see = slow
    looked.source.steps.release()
    assert entered.wait(PATIENCE_S)
    with looked.telling:
        threading.Timer(0.1, go_on.set).start()
        looked.runner.switch(enabled=False)
    assert len(looked.stage.messages[-1].poses) == 0
    count = len(looked.stage.messages)
    looked.tell()
    assert len(looked.stage.messages) == count


def test_a_sink_that_fails_in_the_capture_thread_is_heard_of(
    looked: Looked, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked.source.steps.release()
    looked.tell()

    def full(_look: Look) -> None:
        raise SinkError("disk: full")

    monkeypatch.setattr(looked.runner.camera.pipeline, "tell", full)
    looked.source.steps.release()
    with pytest.raises(SinkError, match="disk: full"):
        looked.tell()


def test_a_mistake_of_ours_in_the_capture_thread_is_heard_of(
    looked: Looked, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked.source.steps.release()
    looked.tell()

    def broken(_look: Look) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(looked.runner.camera.pipeline, "tell", broken)
    looked.source.steps.release()
    with pytest.raises(ZeroDivisionError, match="a bug"):
        looked.tell()


def test_signals_never_make_the_wait_endless() -> None:
    """A signal just as the time was up made `queue.SimpleQueue` wait for ever (CPython 3.11)."""
    script = (
        "import signal, threading\n"
        "from edgepose.daemon.camera import InferenceThread\n"
        "looking = InferenceThread([], threading.Condition(), threading.Lock())\n"
        "signal.signal(signal.SIGALRM, lambda *_: None)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.00101)\n"
        "for _ in range(2000):\n"
        "    assert looking.take(0.001) is None\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_slow_camera_may_be_silent_for_longer() -> None:
    assert silence_ns(CameraConfig(source="picamera:0")) == 5 * SECOND_NS
    assert silence_ns(CameraConfig(source="picamera:0", fps=30.0)) == 5 * SECOND_NS
    assert silence_ns(CameraConfig(source="picamera:0?fps=0.1", fps=30.0)) == 30 * SECOND_NS


def test_who_comes_and_goes_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, [101, SourceError("camera: unplugged")])
    stage.runner.start()
    stage.next()
    (entered,) = stage.events
    assert (entered["type"], entered["node"], entered["camera"]) == ("enter", "node", "main")
    # Nobody leaves while a frame that was taken may still show them.
    stage.runner.tick(102 * SECOND_NS + SECOND_NS // 2)
    assert len(stage.events) == 1
    stage.next()
    assert [event["type"] for event in stage.events] == ["enter", "leave"]
    assert stage.events[1]["track_id"] == entered["track_id"]
    assert str(entered["time"]) <= str(stage.events[1]["time"])
