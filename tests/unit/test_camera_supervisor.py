"""A camera's life, with a scripted source and a clock that the test sets."""

import json
import logging
import threading
from collections.abc import Callable

import pytest

from edgepose.build import stall_timeout_ns
from edgepose.build_events import apply_detectors, build_detectors
from edgepose.config.people import PresenceConfig, ZoneConfig
from edgepose.config.schema import CameraConfig, Config
from edgepose.daemon.camera import CameraParts, CameraSupervisor
from edgepose.daemon.capture import OPEN_TIMEOUT_NS, FrameMailbox
from edgepose.daemon.frame_rate_limit import FrameRateLimit
from edgepose.daemon.inference_thread import Result, detect
from edgepose.daemon.reopening import STABLE_NS
from edgepose.datatypes import Frame
from edgepose.errors import (
    AcceleratorLostError,
    SourceBusyError,
    SourceError,
    SourceLoginError,
    SourceStalledError,
)
from edgepose.events.visits import Delays
from edgepose.messages import boot_id
from edgepose.mqtt.topics import Topics
from edgepose.protocols import FrameSource
from tests.builders import SECOND_NS, presence_of
from tests.fakes.pipeline import FakeModels, FakePoseModel, PipelineRig
from tests.fakes.sources import PATIENCE_S, ScriptedSource, SteppedSource
from tests.mosquitto import wait_for

UNPLUGGED = SourceError("camera: unplugged")


class Rig:
    """A supervisor, its sources, and what it published."""

    def __init__(self, *sources: list[int | SourceError] | FrameSource) -> None:
        self.now_ns = 100 * SECOND_NS
        self.states: dict[str, bytes] = {}
        self.state_history: list[tuple[str, bytes]] = []
        self.events: list[dict[str, object]] = []
        self.failures: list[SourceError] = []
        self.opened = 0
        self.topics = Topics(node="node")
        self._sources = list(sources)
        self.mailbox = FrameMailbox()
        rig = PipelineRig(FakePoseModel(0.6, 0.9, crops=False))
        self.pipeline = rig.pipeline
        self.model = rig.model
        self.messages = rig.sink.messages
        self.camera = CameraSupervisor(
            CameraParts(
                "main",
                self._open,
                5 * SECOND_NS,
                rig.pipeline,
                presence_of(Delays(on_ms=0, leave_ms=1000)),
            ),
            self.mailbox,
            self,
            enabled=True,
            clock=lambda: self.now_ns,
        )

    def _open(self) -> FrameSource:
        self.opened += 1
        source = self._sources[min(self.opened, len(self._sources)) - 1]
        return ScriptedSource(source) if isinstance(source, list) else source

    def set_state(self, topic: str, payload: bytes) -> None:
        name = topic.removeprefix(f"{self.topics.root}/main/")
        self.states[name] = payload
        self.state_history.append((name, payload))

    def clear_state(self, topic: str) -> None:
        del self.states[topic.removeprefix(f"{self.topics.root}/main/")]

    def send_event(self, camera: str, payload: bytes) -> None:
        self.events.append(json.loads(payload))

    def camera_failed(self, camera: str, error: SourceError) -> None:
        self.failures.append(error)

    def next(self) -> Result:
        """Wait for the next item, run the model on it, and handle the result."""
        taken = self.mailbox.take(PATIENCE_S)
        assert taken is not None
        capture, item = taken
        result = detect(capture, item)
        self.camera.handle(result)
        if not isinstance(item, Frame):
            # The source is opened again only after its thread ended.
            assert capture.join(PATIENCE_S)
        return result

    def wait_s(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND_NS)
        self.camera.tick(self.now_ns)


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda _low, _high: 1.0)


def wait_until(condition: Callable[[], bool], rig: Rig) -> None:
    """Tick until a condition holds."""

    def holds() -> bool:
        rig.wait_s(0.1)
        return condition()

    wait_for(holds, "the supervisor")


def test_supervisor_frames_then_the_end() -> None:
    rig = Rig([1])
    rig.camera.publish_states()
    rig.camera.start()
    rig.next()
    assert rig.states["status"] == b"online"
    assert (rig.states["presence"], rig.states["count"]) == (b"ON", b"1")
    rig.next()
    assert rig.camera.finished
    assert rig.states["status"] == b"offline"
    assert (rig.states["presence"], rig.states["count"]) == (b"OFF", b"0")
    assert [len(message.poses) for message in rig.messages] == [1, 0]


def test_supervisor_order_of_states_when_a_camera_comes_and_goes() -> None:
    """As in the contract: presence and count before `online`, `offline` before they fall."""
    rig = Rig([1, UNPLUGGED])
    rig.camera.publish_states()
    rig.state_history.clear()
    rig.camera.start()
    rig.next()
    rig.next()
    assert rig.state_history == [
        ("count", b"1"),
        ("presence", b"ON"),
        ("status", b"online"),
        ("status", b"offline"),
        ("count", b"0"),
        ("presence", b"OFF"),
    ]


def test_supervisor_online_after_the_first_verdict() -> None:
    """After an outage, a person who is still there must not be seen to leave and enter."""
    rig = Rig([101, 102, 103])
    rig.camera.parts.detectors = presence_of(Delays(on_ms=2000))
    rig.camera.publish_states()
    rig.state_history.clear()
    rig.camera.start()
    for _ in range(2):
        rig.next()
        assert rig.camera.has_delivered
        assert rig.state_history == []
    rig.next()
    assert rig.state_history == [("count", b"1"), ("presence", b"ON"), ("status", b"online")]


def test_supervisor_online_without_a_person() -> None:
    """The verdict on an empty room comes, even without a second frame."""
    rig = Rig([101])
    rig.camera.parts.detectors = presence_of(Delays(on_ms=2000))
    rig.camera.publish_states()
    rig.state_history.clear()
    rig.camera.start()
    rig.next()
    rig.camera.tick(104 * SECOND_NS - 1)
    assert rig.state_history == []
    rig.camera.tick(104 * SECOND_NS)
    assert rig.state_history == [("status", b"online")]


def test_supervisor_file_that_is_slower_than_it_was_recorded() -> None:
    """Presence follows the time of the recording, in which a person is missed in one frame."""
    rig = Rig([101, 102, 103, 104])
    rig.camera.parts.detectors = presence_of(Delays(on_ms=0, off_ms=3000, leave_ms=3000))
    rig.camera.start()
    for score in (0.9, 0.0, 0.9, 0.0):
        rig.model.scores[False] = score
        rig.next()
        for _ in range(20):
            rig.wait_s(0.1)
        assert rig.states["presence"] == b"ON"
    assert [event["type"] for event in rig.events] == ["enter"]
    rig.next()
    assert [event["type"] for event in rig.events] == ["enter", "leave"]


def test_supervisor_source_that_never_opened() -> None:
    busy = SourceBusyError("camera: used by another process")
    rig = Rig([busy])
    rig.camera.start()
    rig.next()
    assert rig.camera.failure is busy
    assert not rig.camera.has_delivered
    assert rig.failures == [busy]


def test_supervisor_reopens_a_lost_camera_with_growing_pauses() -> None:
    rig = Rig([1, UNPLUGGED], [UNPLUGGED], [UNPLUGGED], [1])
    rig.camera.start()
    rig.next()
    rig.next()
    assert rig.states["status"] == b"offline"
    for wait_s, opened in ((1, 2), (2, 3), (3, 4)):
        rig.camera.tick(rig.now_ns + wait_s * SECOND_NS - 1)
        assert rig.opened == opened - 1
        rig.wait_s(wait_s)
        assert rig.opened == opened
        rig.next()
    assert rig.states["status"] == b"online"
    assert rig.camera.failure is None
    assert rig.failures == [UNPLUGGED], "the same failure is reported once, not at every attempt"
    assert rig.camera.counters().reopened == 3


def test_supervisor_source_that_reports_a_stall() -> None:
    rig = Rig([1, SourceStalledError("camera: silent")])
    rig.camera.start()
    rig.next()
    rig.next()
    assert rig.states["status"] == b"stalled"


def test_supervisor_hung_camera_has_one_thread_and_goes_on_when_it_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each attempt left a thread behind; after long, the log has the remedy."""
    source = SteppedSource(2, live=True)
    rig = Rig(source)
    rig.camera.start()
    source.wait_until_requested()
    rig.wait_s(OPEN_TIMEOUT_NS / SECOND_NS + 1)
    assert rig.states["status"] == b"stalled"
    for _ in range(20):
        rig.wait_s(60)
    assert rig.opened == 1
    assert len(rig.failures) == 1
    assert caplog.text.count("restart edgepose") == 1
    source.allow()
    source.wait_until_requested()
    rig.next()
    assert rig.states["status"] == b"online"
    assert rig.camera.failure is None
    rig.wait_s(6)
    assert rig.states["status"] == b"stalled"
    source.allow(9)


def test_supervisor_file_that_hangs_is_stalled() -> None:
    source = SteppedSource(1, live=False)
    rig = Rig(source)
    rig.camera.start()
    source.wait_until_requested()
    rig.wait_s(OPEN_TIMEOUT_NS / SECOND_NS + 1)
    assert rig.states["status"] == b"stalled"
    source.allow(9)
    rig.next()
    assert rig.states["status"] == b"online"


def test_supervisor_off_for_a_camera_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """It was reported as closed while its device was still open."""
    source = SteppedSource(1, live=True)
    rig = Rig(source)
    rig.camera.start()
    source.wait_until_requested()
    rig.camera.set_enabled(enabled=False)
    rig.wait_s(1)
    assert (rig.states["enabled"], rig.states["status"]) == (b"OFF", b"offline")
    rig.wait_s(5)
    assert (rig.states["enabled"], rig.states["status"]) == (b"OFF", b"stalled")
    assert "still open" in caplog.text
    # Off once more is no proof that it is closed.
    rig.camera.set_enabled(enabled=True)
    rig.camera.set_enabled(enabled=False)
    assert rig.states["status"] == b"stalled"
    source.allow(9)
    wait_until(lambda: rig.states["status"] == b"offline", rig)
    assert rig.opened == 1
    assert rig.messages == []


def test_supervisor_off_for_a_camera_that_is_stalled() -> None:
    """It is not reported as closed, not even for a moment."""
    source = SteppedSource(1, live=True)
    rig = Rig(source)
    rig.camera.start()
    source.wait_until_requested()
    rig.wait_s(OPEN_TIMEOUT_NS / SECOND_NS + 1)
    rig.state_history.clear()
    rig.camera.set_enabled(enabled=False)
    rig.wait_s(1)
    assert {payload for topic, payload in rig.state_history if topic == "status"} == {b"stalled"}
    source.allow(9)
    wait_until(lambda: rig.states["status"] == b"offline", rig)


def test_supervisor_replaced_source_is_opened_beside_one_that_hangs() -> None:
    """A user who points the camera elsewhere needs no restart, but the threads are bounded."""
    hung, other, third = (SteppedSource(3, live=True) for _ in range(3))
    rig = Rig(hung)
    rig.camera.start()
    hung.wait_until_requested()
    rig.wait_s(OPEN_TIMEOUT_NS / SECOND_NS + 1)
    rig.camera.replace_source(lambda: other, 5 * SECOND_NS)
    other.wait_until_requested()
    other.allow()
    other.wait_until_requested()
    rig.next()
    assert rig.states["status"] == b"online"
    rig.camera.replace_source(lambda: third, 5 * SECOND_NS)
    for _ in range(10):
        rig.wait_s(10)
    assert third.opened_in is None
    other.allow(9)
    wait_until(lambda: third.opened_in is not None, rig)
    hung.allow(9)
    third.allow(9)


def test_supervisor_without_a_thread_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """`can't start new thread` ended the daemon."""
    rig = Rig([1])
    monkeypatch.setattr("threading.Thread.start", refuse_thread)
    rig.camera.start()
    assert "no thread can be started" in str(rig.camera.failure)
    assert rig.states["status"] == b"offline"
    monkeypatch.undo()
    rig.wait_s(2)
    rig.next()
    assert rig.states["status"] == b"online"


def refuse_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_supervisor_unstable_camera_floods_neither_log_nor_subscribers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A second of frames, then a failure: 67 log lines and as many states in a minute."""
    rig = Rig([1, UNPLUGGED])
    rig.camera.start()
    opened: list[float] = []
    caplog.set_level(logging.INFO)
    for _ in range(120):
        while rig.opened > len(opened):
            opened.append(rig.now_ns / SECOND_NS - 100)
            rig.next()
            rig.next()
        rig.wait_s(1)
    assert opened == [0, 1, 3, 6, 12, 24, 48, 96]
    assert rig.failures == [UNPLUGGED]
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "camera main: delivers frames again",
        "camera main: fails again and again soon after it was opened",
    ]


def test_supervisor_camera_that_was_stable_is_opened_quickly_and_logged_again() -> None:
    sources: list[list[int | SourceError]] = [[1, UNPLUGGED] for _ in range(5)]
    stepped = SteppedSource(2, live=True, failure=UNPLUGGED)
    rig = Rig(*sources, stepped, [1])
    rig.camera.start()
    while rig.opened < 6:
        rig.next()
        rig.next()
        rig.wait_s(60)
    stepped.allow()
    rig.next()
    rig.now_ns += STABLE_NS
    stepped.allow(9)
    rig.next()
    rig.next()
    assert rig.failures == [UNPLUGGED, UNPLUGGED]
    rig.wait_s(1)
    assert rig.opened == 7


def test_supervisor_refused_login_is_tried_every_few_minutes() -> None:
    """Cameras lock an account after a few wrong passwords; 21 a minute were sent."""
    refused = SourceLoginError("camera: the server does not accept the password")
    rig = Rig([refused])
    rig.camera.start()
    opened: list[float] = []
    for _ in range(1200):
        if rig.opened > len(opened):
            opened.append(rig.now_ns // SECOND_NS - 100)
            rig.next()
        rig.wait_s(1)
    assert opened == [0, 60, 180, 420, 720, 1020]
    assert rig.failures == [refused]
    # A reload may have brought the right password.
    rig.camera.retry_now()
    rig.wait_s(0)
    assert rig.opened == 7


def test_supervisor_hung_opening_does_not_raise() -> None:
    """A camera that hangs while opening ended the whole daemon, beside healthy cameras too."""
    source = SteppedSource(1, live=True)
    rig = Rig(source)
    rig.camera.start()
    source.wait_until_requested()
    rig.wait_s(OPEN_TIMEOUT_NS / SECOND_NS + 1)
    assert isinstance(rig.camera.failure, SourceStalledError)
    source.allow(9)


def test_supervisor_off_closes_and_on_opens() -> None:
    rig = Rig([1, 2, 3])
    rig.camera.start()
    result = rig.next()
    rig.camera.set_enabled(enabled=False)
    assert rig.states["enabled"] == b"OFF"
    assert rig.states["presence"] == b"OFF"
    count = len(rig.messages)
    # What the model ran on while the camera was switched off is not published any more.
    rig.camera.handle(result)
    rig.wait_s(100)
    assert len(rig.messages) == count
    assert rig.opened == 1
    rig.camera.set_enabled(enabled=True)
    while rig.opened == 1:
        rig.wait_s(0.1)
    rig.next()
    assert rig.opened == 2
    assert rig.states["status"] == b"online"


def test_supervisor_does_not_open_a_device_that_is_still_open() -> None:
    """A driver that takes its time to close would find its device busy."""
    slow, fresh = SteppedSource(1, live=True), SteppedSource(1, live=True)
    rig = Rig(slow, fresh)
    rig.camera.start()
    slow.wait_until_requested()
    rig.camera.set_enabled(enabled=False)
    rig.camera.set_enabled(enabled=True)
    rig.wait_s(1)
    assert rig.opened == 1
    slow.allow(9)
    assert slow.closed.wait(PATIENCE_S)
    while rig.opened == 1:
        rig.wait_s(0.1)
    fresh.allow(9)


def test_supervisor_reports_that_it_is_idle() -> None:
    """While the camera is open, from the time without a person on, until a person is there."""
    source = SteppedSource(9, live=True)
    rig = Rig(source)
    limit = FrameRateLimit(clock=lambda: rig.now_ns)
    limit.set_idle(fps=5, after_s=10)
    rig.camera.parts.limit = limit
    rig.now_ns += 100 * SECOND_NS
    assert not rig.camera.counters().idle, "it is not open"
    rig.camera.start()
    assert not rig.camera.counters().idle, "it was opened just now"
    rig.wait_s(4)
    source.allow()
    rig.next()
    rig.wait_s(9)
    assert not rig.camera.counters().idle
    rig.wait_s(1)
    assert rig.camera.counters().idle
    source.allow()
    rig.next()
    assert not rig.camera.counters().idle
    source.allow(9)


def test_supervisor_without_a_model_clears_presence_and_keeps_the_camera() -> None:
    source = SteppedSource(9, live=True)
    rig = Rig(source)
    models = rig.pipeline.models
    rig.camera.start()
    source.allow()
    rig.next()
    rig.pipeline.models = FakeModels()
    source.allow()
    assert isinstance(rig.next().outcome, AcceleratorLostError)
    assert (rig.states["presence"], rig.states["status"]) == (b"OFF", b"online")
    assert rig.camera.counters().dropped["no_model"] == 1
    rig.pipeline.models = models
    source.allow()
    rig.next()
    assert rig.states["presence"] == b"ON"
    source.allow(9)


def test_supervisor_camera_that_fails_without_a_model_is_reopened() -> None:
    """It stayed `online` and was not tried again."""
    rig = Rig([1, UNPLUGGED], [2])
    rig.camera.start()
    rig.next()
    rig.pipeline.models = FakeModels()
    rig.next()
    assert rig.states["status"] == b"offline"
    rig.wait_s(1)
    assert rig.opened == 2
    rig.camera.stop()


def test_supervisor_replace_source_keeps_ids_and_opens_the_new_one() -> None:
    rig = Rig([1, 2])
    rig.camera.start()
    rig.next()
    replaced: list[int] = []

    def open_other() -> FrameSource:
        replaced.append(1)
        return ScriptedSource([7])

    rig.camera.replace_source(open_other, SECOND_NS)
    while not replaced:
        rig.wait_s(0.1)
    rig.next()
    assert [pose.id for message in rig.messages for pose in message.poses] == [1, 1]
    assert rig.messages[-1].sequence == 7
    assert rig.states["status"] == b"online"


def test_supervisor_bug_in_a_result_is_raised() -> None:
    rig = Rig([1])
    rig.camera.start()
    taken = rig.mailbox.take(PATIENCE_S)
    assert taken is not None
    with pytest.raises(ZeroDivisionError, match="a bug"):
        rig.camera.handle(Result(taken[0], ZeroDivisionError("a bug")))


def test_supervisor_publishes_enter_and_leave() -> None:
    rig = Rig([101, UNPLUGGED])
    rig.camera.start()
    rig.next()
    (entered,) = rig.events
    assert (entered["type"], entered["node"], entered["camera"]) == ("enter", "node", "main")
    # No one leaves while a frame that was captured may still show them.
    rig.camera.tick(102 * SECOND_NS + SECOND_NS // 2)
    assert len(rig.events) == 1
    rig.next()
    assert [event["type"] for event in rig.events] == ["enter", "leave"]
    assert rig.events[1]["track_id"] == entered["track_id"]
    assert [event["boot"] for event in rig.events] == [boot_id()] * 2
    # A subscriber drops one that arrives twice by its id.
    assert [event["id"] for event in rig.events] == [f"{boot_id()}-main-{n}" for n in (1, 2)]
    assert str(entered["time"]) <= str(rig.events[1]["time"])


def test_supervisor_zone_that_a_reload_removes() -> None:
    """Its events come, and its topics are cleared."""
    rig = Rig([101, 102])
    config = Config(presence=PresenceConfig(on_delay_ms=0))
    zone = ZoneConfig(name="room", polygon=((0, 0), (1, 0), (1, 1), (0, 1)))
    rig.camera.parts.detectors = build_detectors(config, CameraConfig(zones=(zone,)))
    rig.camera.publish_states()
    rig.camera.start()
    rig.next()
    assert rig.states["zones/room/presence"] == b"ON"
    assert rig.states["zones/room/count"] == b"1"
    apply_detectors(rig.camera.parts.detectors, config, CameraConfig())
    rig.next()
    assert sorted(rig.states) == ["count", "enabled", "presence", "status"]
    assert [(event["type"], event.get("zone")) for event in rig.events] == [
        ("enter", None),
        ("zone_enter", "room"),
        ("zone_leave", "room"),
    ]


def test_stall_timeout_of_a_slow_camera_is_longer() -> None:
    assert stall_timeout_ns(CameraConfig(source="picamera:0")) == 5 * SECOND_NS
    assert stall_timeout_ns(CameraConfig(source="picamera:0", fps=30.0)) == 5 * SECOND_NS
    camera = CameraConfig(source="picamera:0?fps=0.1", fps=30.0)
    assert stall_timeout_ns(camera) == 30 * SECOND_NS
