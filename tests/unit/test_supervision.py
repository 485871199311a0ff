"""A camera's life, told with a source that does what it is told and a clock that does not run."""

import json
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import pytest

from edgepose import supervision
from edgepose.build import silence_ns
from edgepose.config import Camera as CameraConfig
from edgepose.datatypes import Frame
from edgepose.errors import SourceBusyError, SourceError, SourceStalledError
from edgepose.events.entrances import Entrances
from edgepose.events.presence import Presence
from edgepose.supervision import Camera, CameraRunner, LookingThread, Seen
from edgepose.topics import Topics
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
            Presence(on_delay_ms=0),
            Entrances(on_delay_ms=0),
            5 * SECOND_NS,
        )
        self.topics = Topics(node="node")
        self.events: list[dict[str, object]] = []
        self.runner = CameraRunner(camera, threading.Condition(), self, enabled=True)

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
    looking = LookingThread([stage.runner], stage.runner._wake)
    looking.start()
    with pytest.raises(ZeroDivisionError, match="a bug"):
        looking.take(1.0)
    looking.close()


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
