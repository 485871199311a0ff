"""The number of CPU threads is measured while the model runs."""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgepose.errors import AcceleratorError, ModelFileError
from edgepose.inference.auto_threads import (
    DEADLINE_NS,
    DELAY_NS,
    AutoThreadsInterpreter,
    load_with_threads,
)
from edgepose.inference.thread_cache import FILE, ThreadCache
from edgepose.protocols import Interpreter, Tensor, ThreadChoice
from tests.conftest import MODELS
from tests.fakes.pipeline import FakeInterpreter
from tests.mosquitto import wait_for

MS = 1_000_000
LIGHTNING = MODELS / "movenet-lightning-int8.tflite"
LOGGER = "edgepose.inference.auto_threads"
TENSOR = np.zeros((1, 8, 8, 3), np.uint8)


class _Timed(FakeInterpreter):
    """Takes its time on the clock of the machine, and fails once it was closed."""

    def __init__(self, machine: "Machine", count: int) -> None:
        super().__init__()
        self._machine, self._count = machine, count

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        if self.closed:
            raise AcceleratorError("closed")
        self._machine.now_ns += int(self._machine.invoke_ms[self._count] * MS)
        return super().invoke(tensor)


class Machine:
    """Frames at a pace, on which inference takes `invoke_ms` by number of threads."""

    def __init__(self, invoke_ms: dict[int, float], *, interval_ms: float = 33) -> None:
        self.invoke_ms = invoke_ms
        self.interval_ns = int(interval_ms * MS)
        self.now_ns = 0
        self.other_cores = 0.0
        self.failure: Exception | None = None
        self.measured: list[tuple[ThreadChoice, float, bool]] = []
        self.done = threading.Event()
        self.interpreters: dict[int, _Timed] = {}
        start = max(invoke_ms)
        self.model = AutoThreadsInterpreter(
            self.load(start),
            ThreadChoice(start, "default"),
            self.load,
            range(1, start + 1),
            self._keep,
            clock_ns=lambda: self.now_ns,
            other_cpu_s=lambda: self.other_cores * self.now_ns / 1e9,
        )

    def load(self, count: int) -> _Timed:
        if self.failure is not None:
            raise self.failure
        self.interpreters[count] = _Timed(self, count)
        return self.interpreters[count]

    def _keep(self, choice: ThreadChoice, interval_ms: float, busy: bool) -> None:
        self.measured.append((choice, interval_ms, busy))
        self.done.set()

    def frame(self) -> None:
        """Run one frame, and wait for the next one."""
        started_ns = self.now_ns
        (output,) = self.model.invoke(TENSOR)
        assert output is TENSOR
        self.now_ns = max(self.now_ns, started_ns + self.interval_ns)

    def frames_until(self, condition: Callable[[], object], what: str) -> None:
        def run() -> bool:
            for _ in range(10):
                self.frame()
            return bool(condition())

        wait_for(run, what)

    def wait_for_measurement(self) -> None:
        self.frames_until(self.done.is_set, "a measurement")


def test_auto_threads_first_seconds_run_as_before() -> None:
    """Start and first pose are not delayed: nothing else is loaded until then."""
    machine = Machine({1: 10, 2: 7})
    while machine.now_ns < DELAY_NS:
        machine.frame()
    assert list(machine.interpreters) == [2]
    assert machine.model.threads == ThreadChoice(2, "default")


def test_auto_threads_measures_and_keeps_the_best() -> None:
    machine = Machine({1: 10, 2: 14})
    machine.wait_for_measurement()
    choice = ThreadChoice(1, "measured", {1: 10.0, 2: 14.0})
    assert machine.measured == [(choice, 33.0, False)]
    assert machine.model.threads == choice
    one, two = machine.interpreters[1], machine.interpreters[2]
    assert (one.closed, two.closed) == (False, True)
    before = one.invoked
    machine.frame()
    assert one.invoked == before + 1
    machine.model.close()
    with pytest.raises(AcceleratorError, match="closed"):
        machine.frame()


def test_auto_threads_of_four_cores() -> None:
    machine = Machine({1: 72, 2: 41, 3: 28, 4: 26}, interval_ms=50)
    machine.wait_for_measurement()
    assert machine.model.threads.count == 3
    assert [count for count, each in machine.interpreters.items() if not each.closed] == [3]


def test_auto_threads_reports_a_busy_machine() -> None:
    """Half a core was used by other programs, so the next start measures again."""
    machine = Machine({1: 10, 2: 14})
    machine.other_cores = 0.5
    machine.wait_for_measurement()
    ((_, _, busy),) = machine.measured
    assert busy


@pytest.mark.parametrize(
    "failure", [ModelFileError("m.tflite: replaced"), MemoryError("none left")]
)
def test_auto_threads_that_cannot_be_loaded(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine({1: 10, 2: 14})
    machine.failure = failure
    machine.frames_until(lambda: caplog.records, "a warning")
    assert caplog.records[0].message == f"{failure}; it stays with 2 CPU threads"
    for _ in range(100):
        machine.frame()
    assert machine.model.threads == ThreadChoice(2, "default")
    assert len(caplog.records) == 1


def test_auto_threads_gives_up_with_too_few_frames() -> None:
    """A frame in two seconds: the other models are freed after a minute."""
    machine = Machine({1: 10, 2: 14}, interval_ms=2000)
    machine.frames_until(lambda: 1 in machine.interpreters, "the other model")
    machine.frames_until(lambda: machine.interpreters[1].closed, "its end")
    assert machine.now_ns > DEADLINE_NS
    assert machine.measured == []
    assert machine.model.threads == ThreadChoice(2, "default")
    machine.frame()


def load(folder: Path | None) -> tuple[Interpreter, Callable[[], ThreadChoice]]:
    return load_with_threads(
        LIGHTNING,
        name="movenet-lightning-int8",
        digest=None,
        threads="auto",
        runtime="auto",
        input_size_wh=None,
        cache=None if folder is None else ThreadCache(folder),
    )


def measure(folder: Path) -> ThreadChoice:
    """Load the model and run it until its threads are measured."""
    interpreter, threads = load(folder)
    assert threads() == ThreadChoice(2, "default")
    tensor = np.zeros(interpreter.input.shape, interpreter.input.dtype)
    path = folder / FILE

    def run() -> bool:
        for _ in range(10):
            assert interpreter.invoke(tensor)[0].shape == (1, 1, 17, 3)
        return path.exists()

    wait_for(run, "the measurement")
    interpreter.close()
    return threads()


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepose.inference.auto_threads.default_threads", lambda: 2)
    monkeypatch.setattr("edgepose.inference.auto_threads.DELAY_NS", 0)


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("busy", [False, True])
def test_load_with_threads_measures_once(
    tmp_path: Path, busy: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start begins with the measured number, and measures again if in doubt."""
    cores = -1.0 if busy else 1e9
    monkeypatch.setattr("edgepose.inference.auto_threads.BUSY_CORES", cores)
    caplog.set_level(logging.INFO)
    choice = measure(tmp_path)
    assert choice.reason == "measured"
    assert list(choice.invoke_ms) == [1, 2]
    interpreter, threads = load(tmp_path)
    assert threads() == choice
    assert isinstance(interpreter, AutoThreadsInterpreter) == busy
    # Threads of an earlier test may still log something.
    first, measured, second = (r.message for r in caplog.records if r.name == LOGGER)
    assert first == (
        "movenet-lightning-int8: 2 CPU threads, one for each core and at most four, until it is "
        "measured with the first frames"
    )
    assert measured.startswith(f"movenet-lightning-int8: {choice}, with frames ")
    assert measured.endswith("measured again at the next start") == busy
    assert second.startswith(f"movenet-lightning-int8: {choice}")


@pytest.mark.usefixtures("two_cores")
def test_load_with_threads_without_a_cache() -> None:
    """For a task that ends: as many as the cores, and nothing is measured."""
    interpreter, threads = load(None)
    assert not isinstance(interpreter, AutoThreadsInterpreter)
    assert threads() == ThreadChoice(2, "default")


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (
            lambda path: path.write_bytes((MODELS / "movenet-thunder-int8.tflite").read_bytes()),
            "own.tflite: the file was replaced",
        ),
        (Path.unlink, "own.tflite: the file cannot be read: No such file or directory"),
    ],
)
@pytest.mark.usefixtures("two_cores")
def test_load_with_threads_of_a_changed_file(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Path], object],
    warning: str,
) -> None:
    """A package upgrade must not mix two models, nor its removal end the daemon."""
    path = tmp_path / "own.tflite"
    path.write_bytes(LIGHTNING.read_bytes())
    interpreter, threads = load_with_threads(
        path,
        name="own",
        digest=None,
        threads="auto",
        runtime="auto",
        input_size_wh=None,
        cache=ThreadCache(tmp_path),
    )
    change(path)
    tensor = np.zeros(interpreter.input.shape, interpreter.input.dtype)

    def run() -> bool:
        interpreter.invoke(tensor)
        return bool(caplog.records)

    wait_for(run, "a warning")
    assert warning in caplog.records[0].message
    assert threads() == ThreadChoice(2, "default")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (ThreadChoice(1, "configured"), "1 CPU thread as configured"),
        (ThreadChoice(3, "default"), "3 CPU threads, one for each core and at most four"),
        (
            ThreadChoice(2, "measured", {1: 9.84, 2: 6.1}),
            "2 CPU threads, measured on this machine (1: 9.8 ms, 2: 6.1 ms)",
        ),
    ],
)
def test_thread_choice_in_words(choice: ThreadChoice, words: str) -> None:
    assert str(choice) == words
