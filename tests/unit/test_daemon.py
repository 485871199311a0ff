"""The daemon's main loop, with fake models, sources and broker."""

import errno
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgepose.clock import boottime_ns
from edgepose.daemon.camera import CameraParts
from edgepose.daemon.daemon import Daemon
from edgepose.daemon.signals import Signals
from edgepose.daemon.switches import Switches
from edgepose.errors import ConfigError, SourceBusyError, SourceError
from edgepose.events.visits import Delays
from edgepose.inference.failover import SingleModel
from edgepose.messages import PoseMessage
from edgepose.mqtt.commands import Command
from edgepose.mqtt.topics import Topics
from edgepose.pipeline import Pipeline
from edgepose.protocols import FrameSource, LoadedModel, Sink, Tensor
from edgepose.sinks.queued import QueuedSink
from edgepose.smoothing.no_smoother import NoSmoother
from edgepose.tracking.oks_tracker import OksTracker
from tests.builders import SECOND_NS, presence_of
from tests.fakes.pipeline import FakeInterpreter, FakePoseModel, MessageCollector, loaded_model
from tests.fakes.sources import PATIENCE_S, ScriptedSource, SteppedSource
from tests.mosquitto import wait_for


@pytest.fixture(autouse=True)
def _at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)


class FakeMqtt:
    """An MQTT sink that keeps its messages."""

    def __init__(self) -> None:
        self.alive = True
        self.states: dict[str, bytes] = {}
        self.history: list[tuple[str, bytes]] = []
        self.messages: list[PoseMessage] = []
        self.stats: list[dict[str, object]] = []
        self.closed = False

    def open(self, *, require_connection_within_s: float | None = None) -> None: ...

    def set_state(self, topic: str, payload: bytes) -> None:
        name = topic.removeprefix("edgepose/node/")
        if self.states.get(name) != payload:
            self.states[name] = payload
            self.history.append((name, payload))

    def announce(self, messages: Mapping[str, bytes]) -> None:
        for topic, message in messages.items():
            self.set_state(topic, message)

    def send_event(self, camera: str, payload: bytes) -> None: ...

    def send_stats(self, payload: bytes) -> None:
        self.stats.append(json.loads(payload))

    def counters(self) -> dict[str, int | bool]:
        return {}

    def publish(self, message: PoseMessage) -> None:
        self.messages.append(message)

    def close(self) -> None:
        self.closed = True


class FakeSettings:
    """The settings of a node, with what commands have set."""

    daemon: Daemon

    def __init__(self, reload: Callable[[], Callable[[], None]]) -> None:
        self.reload = reload
        self.changes: list[bytes] = []
        self.prepared: Callable[[], None] = lambda: None

    def discovery(self) -> dict[str, bytes]:
        return {"discovery": b"{}"}

    def states(self) -> dict[str, bytes]:
        model = self.daemon.models.current.name
        return {
            self.daemon.topics.info: json.dumps({"model": model}).encode(),
            self.daemon.topics.node_state("smoothing"): b"".join(self.changes[-1:]),
        }

    def change(self, command: Command) -> Callable[[], None]:
        self.prepared()
        return lambda: self.changes.append(command.payload)


class Rig:
    """A daemon of fakes, one camera for each list of sources."""

    def __init__(
        self,
        folder: Path,
        *cameras: Callable[[], FrameSource],
        interpreter: FakeInterpreter | None = None,
        reload: Callable[[], Callable[[], None]] = lambda: lambda: None,
        output: Sink | None = None,
        stats_interval_ns: int = 3600 * SECOND_NS,
    ) -> None:
        self.mqtt = FakeMqtt()
        self.settings = FakeSettings(reload)
        self.signals = Signals()
        self.models = self.model("first", interpreter)
        self.parts = [
            CameraParts(
                f"cam{number}",
                open_source,
                5 * SECOND_NS,
                Pipeline(
                    self.models,
                    OksTracker(),
                    NoSmoother(),
                    [self.mqtt],
                    node="node",
                    camera=f"cam{number}",
                ),
                presence_of(Delays(on_ms=0, leave_ms=1000)),
            )
            for number, open_source in enumerate(cameras)
        ]
        self.switches = Switches(
            folder / "switches.json", frozenset(parts.name for parts in self.parts)
        )
        self.daemon = Daemon(
            self.parts,
            self.models,
            [self.mqtt] if output is None else [self.mqtt, output],
            self.mqtt,  # type: ignore[arg-type]  # has what the daemon uses
            Topics(node="node"),
            stats_interval_ns=stats_interval_ns,
            switches=self.switches,
            settings=self.settings,
        )
        self.settings.daemon = self.daemon
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    @staticmethod
    def model(name: str, interpreter: FakeInterpreter | None = None) -> SingleModel:
        pose_model = FakePoseModel(0.6, 0.9, crops=False)
        loaded = loaded_model(interpreter or FakeInterpreter(), pose_model)
        return SingleModel(
            LoadedModel(name, loaded.path, "cpu", loaded.interpreter, pose_model, 0.5, 0.3)
        )

    def _run(self) -> None:
        try:
            self.daemon.run(self.signals)
        except BaseException as error:  # noqa: BLE001 - checked by the test
            self.error = error

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        self.signals.stop_requested = True
        self.join()

    def wait_for_state(self, topic: str, payload: bytes) -> None:
        wait_for(lambda: self.mqtt.states.get(topic) == payload, f"{topic} {payload!r}")


@contextmanager
def running(rig: Rig) -> Iterator[Rig]:
    rig.start()
    try:
        yield rig
    finally:
        rig.stop()


def stepped(*sources: SteppedSource) -> Callable[[], FrameSource]:
    """Return an opener that returns one source after the other."""
    queue = list(sources)
    return lambda: queue.pop(0) if len(queue) > 1 else queue[0]


def test_daemon_ends_after_every_source_ended(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda: ScriptedSource([1, 2]), lambda: ScriptedSource([1]))
    rig.start()
    rig.join()
    assert rig.error is None
    assert rig.mqtt.closed
    assert [message.camera for message in rig.mqtt.messages].count("cam0") == 3
    assert rig.mqtt.states["cam0/status"] == b"offline"


def test_daemon_stats_report_the_outputs(tmp_path: Path) -> None:
    output = QueuedSink(MessageCollector(), name="test")
    rig = Rig(tmp_path, lambda: SteppedSource(5, live=True), output=output, stats_interval_ns=1)
    with running(rig):
        wait_for(lambda: rig.mqtt.stats, "stats")
    assert rig.mqtt.stats[0]["output_working"] == {"test": True}
    assert rig.mqtt.stats[0]["output_dropped"] == 0


def test_daemon_without_any_camera_fails_at_a_terminal(tmp_path: Path) -> None:
    busy = SourceBusyError("camera: used by another process")
    rig = Rig(tmp_path, lambda: ScriptedSource([busy]), lambda: ScriptedSource([busy]))
    rig.start()
    rig.join()
    assert rig.error is busy


def test_daemon_waits_for_its_cameras_as_a_service(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    sources: list[FrameSource] = [
        ScriptedSource([SourceBusyError("camera: used by another process")]),
        SteppedSource(5, live=True),
    ]
    rig = Rig(tmp_path, lambda: sources.pop(0))
    with running(rig):
        wait_for(lambda: not sources, "the second attempt")
        assert caplog.text.count("trying again until it is available") == 1


def test_daemon_one_hung_camera_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera that hung while opening ended the daemon, beside healthy cameras too."""
    monkeypatch.setattr("edgepose.daemon.capture.OPEN_TIMEOUT_NS", 1)
    hung, healthy = SteppedSource(1, live=True), SteppedSource(3, live=True)
    rig = Rig(tmp_path, lambda: hung, lambda: healthy)
    rig.parts[0].stall_timeout_ns = 1
    with running(rig):
        healthy.allow()
        rig.wait_for_state("cam0/status", b"stalled")
        rig.wait_for_state("cam1/status", b"online")
        healthy.allow()
        wait_for(lambda: len(rig.mqtt.messages) == 2, "another frame of the healthy one")
    assert rig.error is None
    hung.allow(9)
    healthy.allow(9)


def test_daemon_source_that_cannot_be_created_stops_no_other(tmp_path: Path) -> None:
    """A folder of images that was emptied ended the daemon with every camera."""

    def emptied() -> FrameSource:
        raise SourceError("pics: expected images, the folder has none")

    healthy = SteppedSource(3, live=True)
    rig = Rig(tmp_path, emptied, lambda: healthy)
    with running(rig):
        healthy.allow()
        rig.wait_for_state("cam1/status", b"online")
        wait_for(lambda: rig.daemon.cameras["cam0"].failure is not None, "the failure")
        healthy.allow()
        wait_for(lambda: len(rig.mqtt.messages) == 2, "another frame of the healthy one")
        healthy.allow(9)
    assert rig.error is None


def test_daemon_privacy_switch(tmp_path: Path) -> None:
    first, second = SteppedSource(2, live=True), SteppedSource(2, live=True)
    rig = Rig(tmp_path, stepped(first, second))
    with running(rig):
        first.allow()
        rig.wait_for_state("cam0/status", b"online")
        rig.daemon.command(Command("cam0", "enabled", b"OFF"))
        rig.wait_for_state("cam0/enabled", b"OFF")
        assert rig.switches.off == {"cam0"}
        assert rig.mqtt.states["cam0/status"] == b"offline"
        first.allow(9)
        assert first.closed.wait(PATIENCE_S)
        rig.daemon.command(Command("removed", "enabled", b"OFF"))
        rig.daemon.command(Command("cam0", "enabled", b"ON"))
        second.wait_until_requested()
        rig.wait_for_state("cam0/enabled", b"ON")
        assert rig.switches.off == frozenset()
        second.allow(9)


def test_daemon_off_received_while_it_stops_holds_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker had the acknowledgement, the camera was opened again."""
    source = SteppedSource(1, live=True)
    rig = Rig(tmp_path, lambda: source, lambda: source)

    def close() -> None:
        rig.daemon.command(Command("cam0", "enabled", b"OFF"))
        rig.daemon.command(Command("cam1", "enabled", b"ON"))

    monkeypatch.setattr(rig.mqtt, "close", close)
    with running(rig):
        source.wait_until_requested()
    source.allow(9)
    assert Switches(tmp_path / "switches.json", frozenset({"cam0", "cam1"})).off == {"cam0"}


def test_daemon_newest_of_several_commands_counts(tmp_path: Path) -> None:
    source = SteppedSource(1, live=True)
    rig = Rig(tmp_path, lambda: source)
    for payload in (b"ON", b"OFF", b"ON", b"OFF"):
        rig.daemon.command(Command("cam0", "enabled", payload))
    with running(rig):
        rig.wait_for_state("cam0/enabled", b"OFF")
        source.allow(9)
    switched = [payload for topic, payload in rig.mqtt.history if topic == "cam0/enabled"]
    assert switched[0] == b"ON"
    assert set(switched[1:]) == {b"OFF"}


def test_daemon_reload_without_changes_touches_nothing(tmp_path: Path) -> None:
    """Every SIGHUP closed and opened all cameras, flipped presence and restarted the ids."""
    source = SteppedSource(9, live=True)
    opened: list[int] = []

    def open_source() -> FrameSource:
        opened.append(1)
        return source

    reloaded = threading.Event()

    rig = Rig(tmp_path, open_source, reload=lambda: reloaded.set)
    with running(rig):
        source.allow()
        wait_for(lambda: len(rig.mqtt.messages) == 1, "a frame")
        states = list(rig.mqtt.history)
        rig.signals.reload_requested = True
        assert reloaded.wait(PATIENCE_S)
        source.allow()
        wait_for(lambda: len(rig.mqtt.messages) == 2, "another frame")
        assert opened == [1]
        assert rig.mqtt.history == states
        assert [pose.id for message in rig.mqtt.messages for pose in message.poses] == [1, 1]
        source.allow(9)


def test_daemon_reload_replaces_the_model_and_keeps_the_cameras(tmp_path: Path) -> None:
    source = SteppedSource(9, live=True)
    second = Rig.model("second")
    rig = Rig(tmp_path, stepped(source), reload=lambda: lambda: rig.daemon.replace_models(second))
    with running(rig):
        source.allow()
        wait_for(lambda: len(rig.mqtt.messages) == 1, "a frame")
        rig.signals.reload_requested = True
        wait_for(lambda: b"second" in rig.mqtt.states["accelerator"], "the second model")
        first = rig.models.current.interpreter
        assert isinstance(first, FakeInterpreter)
        wait_for(lambda: first.closed, "the first model to be freed")
        source.allow()
        wait_for(lambda: len(rig.mqtt.messages) == 2, "another frame")
        assert [message.model for message in rig.mqtt.messages] == ["first", "second"]
        assert json.loads(rig.mqtt.states["info"]) == {"model": "second"}
        assert rig.mqtt.states["cam0/presence"] == b"ON"
        source.allow(9)


def test_daemon_reload_replaces_only_changed_sources(tmp_path: Path) -> None:
    old, other, new = (SteppedSource(9, live=True) for _ in range(3))
    rig = Rig(
        tmp_path,
        lambda: old,
        stepped(other),
        reload=lambda: (
            lambda: rig.daemon.cameras["cam0"].replace_source(lambda: new, 5 * SECOND_NS)
        ),
    )
    with running(rig):
        for source in (old, other):
            source.allow()
        wait_for(lambda: len(rig.mqtt.messages) == 2, "both cameras")
        rig.signals.reload_requested = True
        wait_for(lambda: not rig.signals.reload_requested, "the reload")
        old.allow(9)
        new.wait_until_requested()
        new.allow()
        rig.wait_for_state("cam0/status", b"online")
        assert old.closed.is_set()
        assert not other.closed.is_set()
        for source in (new, other):
            source.allow(9)


def test_daemon_switched_off_camera_stays_closed_over_a_reload(tmp_path: Path) -> None:
    """A reload opened it again if the state folder could not be written."""
    in_the_way = tmp_path / "state"
    opened: list[int] = []

    def open_source() -> FrameSource:
        opened.append(1)
        return ScriptedSource([1])

    reloaded = threading.Event()

    def apply() -> None:
        rig.daemon.cameras["cam0"].replace_source(open_source, 5 * SECOND_NS)
        reloaded.set()

    rig = Rig(in_the_way, open_source, reload=lambda: apply)
    in_the_way.write_text("a file where the folder should be")
    rig.daemon.command(Command("cam0", "enabled", b"OFF"))
    with running(rig):
        rig.wait_for_state("cam0/enabled", b"OFF")
        count = len(opened)
        rig.signals.reload_requested = True
        assert reloaded.wait(PATIENCE_S)
        rig.daemon.command(Command("cam0", "enabled", b"OFF"))
        wait_for(lambda: rig.switches.off == {"cam0"}, "the switch")
    assert len(opened) == count


def test_daemon_goes_on_while_a_reload_is_prepared(tmp_path: Path) -> None:
    """Loading a model or reading a file on a slow disk stopped every camera meanwhile."""
    source = SteppedSource(9, live=True)
    prepared, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def reload() -> Callable[[], None]:
        prepared.release()
        assert go_on.acquire(timeout=PATIENCE_S)
        return lambda: None

    rig = Rig(tmp_path, lambda: source, reload=reload)
    with running(rig):
        rig.signals.reload_requested = True
        assert prepared.acquire(timeout=PATIENCE_S)
        # One more, which is not lost.
        rig.signals.reload_requested = True
        source.allow()
        wait_for(lambda: len(rig.mqtt.messages) == 1, "a frame")
        rig.daemon.command(Command("cam0", "enabled", b"OFF"))
        rig.wait_for_state("cam0/enabled", b"OFF")
        go_on.release()
        assert prepared.acquire(timeout=PATIENCE_S)
        go_on.release()
        source.allow(9)


def test_daemon_goes_on_while_a_replaced_model_hangs(tmp_path: Path) -> None:
    """An Edge TPU that hung in being opened or closed stopped poses and watchdog for 5.5 s."""
    closing, go_on = threading.Event(), threading.Event()

    class Hanging(FakeInterpreter):
        def close(self) -> None:
            closing.set()
            assert go_on.wait(PATIENCE_S)

    source = SteppedSource(9, live=True)
    second = Rig.model("second")
    rig = Rig(
        tmp_path,
        lambda: source,
        interpreter=Hanging(),
        reload=lambda: lambda: rig.daemon.replace_models(second),
    )
    with running(rig):
        rig.signals.reload_requested = True
        assert closing.wait(PATIENCE_S)
        source.allow()
        wait_for(lambda: len(rig.mqtt.messages) == 1, "a frame")
        assert rig.mqtt.messages[0].model == "second"
        go_on.set()
        source.allow(9)


def test_daemon_reload_without_a_free_descriptor(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def reload() -> Callable[[], None]:
        raise OSError(errno.EMFILE, "Too many open files", "config.yaml")

    source = SteppedSource(9, live=True)
    rig = Rig(tmp_path, lambda: source, reload=reload)
    with running(rig), caplog.at_level(logging.ERROR):
        rig.signals.reload_requested = True
        wait_for(lambda: "Too many open files" in caplog.text, "the log line")
        source.allow()
        wait_for(lambda: len(rig.mqtt.messages) == 1, "a frame")
        source.allow(9)


def test_daemon_keeps_everything_if_a_reload_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def reload() -> Callable[[], None]:
        raise ConfigError("config.yaml:3: smoothing.beta: expected a number")

    source = SteppedSource(9, live=True)
    rig = Rig(tmp_path, lambda: source, reload=reload)
    with running(rig), caplog.at_level(logging.ERROR):
        source.allow()
        wait_for(lambda: len(rig.mqtt.messages) == 1, "a frame")
        rig.signals.reload_requested = True
        wait_for(lambda: "keeping the previous configuration" in caplog.text, "the log line")
        source.allow()
        wait_for(lambda: len(rig.mqtt.messages) == 2, "another frame")
        source.allow(9)
    assert "config.yaml:3" in caplog.text


def test_daemon_ends_with_a_bug(tmp_path: Path) -> None:
    class Broken(FakeInterpreter):
        def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
            raise ZeroDivisionError("a bug")

    rig = Rig(tmp_path, lambda: ScriptedSource([1]), interpreter=Broken())
    rig.start()
    rig.join()
    assert isinstance(rig.error, ZeroDivisionError)
    assert rig.mqtt.closed


def test_daemon_watchdog_knows_inference_and_network(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Pings from the main loop alone would hide a model that hangs."""
    entered, go_on = threading.Event(), threading.Event()

    class Hanging(FakeInterpreter):
        def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
            entered.set()
            assert go_on.wait(PATIENCE_S)
            return super().invoke(tensor)

    source = SteppedSource(1, live=True)
    rig = Rig(tmp_path, lambda: source, interpreter=Hanging())
    patience_ns = 60 * SECOND_NS

    def hung_after(silence_ns: int) -> list[str]:
        return rig.daemon.hung_threads(boottime_ns() + patience_ns - silence_ns, patience_ns)

    with running(rig):
        wait_for(lambda: not hung_after(30 * SECOND_NS), "a turn")
        source.allow()
        assert entered.wait(PATIENCE_S)
        wait_for(lambda: hung_after(SECOND_NS // 2) == ["inference"], "the hang to be noticed")
        go_on.set()
        wait_for(lambda: not hung_after(SECOND_NS // 2), "progress")
        rig.mqtt.alive = False
        assert hung_after(30 * SECOND_NS) == ["mqtt"]
        source.allow(9)
    assert "hung: the thread inference;" in caplog.text
    assert "no longer hung: the thread inference" in caplog.text


def test_daemon_stops_in_bounded_time_with_hung_cameras(tmp_path: Path) -> None:
    sources = [SteppedSource(1, live=True) for _ in range(8)]
    rig = Rig(tmp_path, *(stepped(source) for source in sources))
    rig.start()
    for source in sources:
        source.wait_until_requested()
    # `join` gives up after 10 s.
    rig.stop()
    assert rig.mqtt.closed
    assert not any(source.closed.is_set() for source in sources)
    for source in sources:
        source.allow(9)


def test_daemon_source_error_is_logged_with_its_camera(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = ScriptedSource([1, SourceError("camera: unplugged")])
    healthy = SteppedSource(3, live=True)
    rig = Rig(tmp_path, lambda: lost, lambda: healthy)
    with running(rig):
        wait_for(lambda: "camera cam0: camera: unplugged" in caplog.text, "the log line")
        healthy.allow(9)


def test_daemon_command_changes_a_setting(tmp_path: Path) -> None:
    """Of a flood, the first and the newest value."""
    source = SteppedSource(9, live=True)
    rig = Rig(tmp_path, lambda: source)
    with running(rig):
        rig.daemon.command(Command(None, "smoothing", b"off"))
        rig.wait_for_state("smoothing", b"off")
        for number in range(50):
            rig.daemon.command(Command(None, "smoothing", b"%d" % number))
        rig.wait_for_state("smoothing", b"49")
        source.allow(9)
    assert rig.settings.changes == [b"off", b"49"]


def test_daemon_command_that_fails_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = SteppedSource(9, live=True)
    rig = Rig(tmp_path, lambda: source)

    def fail() -> None:
        raise ConfigError("no model has this threshold")

    rig.settings.prepared = fail
    with running(rig):
        rig.daemon.command(Command(None, "pose_threshold", b"0.5"))
        wait_for(lambda: "no model has this" in caplog.text, "the error")
        source.allow(9)
    assert "command pose_threshold 0.5 failed: no model has this threshold" in caplog.text
    assert rig.settings.changes == []


def test_daemon_announces_before_all_states(tmp_path: Path) -> None:
    """Home Assistant then has the entity when its state arrives."""
    source = SteppedSource(1, live=True)
    rig = Rig(tmp_path, lambda: source)
    with running(rig):
        rig.wait_for_state("cam0/status", b"offline")
        source.allow(9)
    assert [topic for topic, _ in rig.mqtt.history[:3]] == ["discovery", "info", "smoothing"]


@pytest.mark.parametrize("started_s", [59, 61])
def test_daemon_restart_command_of_a_service(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    started_s: int,
) -> None:
    """Once a minute at most."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    now_ns = boottime_ns() + started_s * SECOND_NS
    source = SteppedSource(1, live=True)
    rig = Rig(tmp_path, lambda: source)
    monkeypatch.setattr("edgepose.daemon.daemon.boottime_ns", lambda: now_ns)
    rig.daemon.command(Command(None, "restart", b"PRESS"))
    if started_s > 60:
        rig.start()
        source.allow(9)
        rig.join()
        assert rig.daemon.restart_requested
    else:
        with running(rig):
            wait_for(lambda: "less than a minute ago" in caplog.text, "the warning")
            source.allow(9)
        assert not rig.daemon.restart_requested


def test_daemon_restart_command_at_a_terminal_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = SteppedSource(1, live=True)
    rig = Rig(tmp_path, lambda: source)
    rig.daemon.command(Command(None, "restart", b"PRESS"))
    with running(rig):
        wait_for(lambda: "no service manager" in caplog.text, "the warning")
        source.allow(9)
    assert not rig.daemon.restart_requested
