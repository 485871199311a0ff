"""The inference thread: results in order, errors as results, bounded waiting."""

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from edgepose.daemon.capture import Capture, FrameMailbox
from edgepose.daemon.frame_rate_limit import FrameRateLimit
from edgepose.daemon.inference_thread import MAX_PENDING_RESULTS, InferenceThread, Result, detect
from edgepose.datatypes import Frame
from edgepose.errors import SourceError
from edgepose.inference.failover import SingleModel
from edgepose.pipeline import Detection
from edgepose.protocols import Tensor
from tests.builders import SECOND_NS, frame_of
from tests.fakes.pipeline import FakeInterpreter, FakePoseModel, PipelineRig, loaded_model
from tests.fakes.sources import PATIENCE_S, ScriptedSource
from tests.mosquitto import wait_for


class BlockingInterpreter(FakeInterpreter):
    """Blocks in `invoke` until the test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        self.entered.set()
        assert self.go_on.wait(PATIENCE_S)
        return super().invoke(tensor)


class Rig:
    """An inference thread and a capture whose items the test puts into the mailbox."""

    def __init__(self) -> None:
        self.mailbox = FrameMailbox()
        self.pipeline_rig = PipelineRig(FakePoseModel(0.6, 0.9, crops=False))
        self.pipeline = self.pipeline_rig.pipeline
        self.capture = Capture(
            "main", lambda: ScriptedSource([]), 10**10, self.pipeline, self.mailbox
        )
        self.thread = InferenceThread(self.mailbox)
        self.thread.start()

    def put(self, sequence: int) -> None:
        self.mailbox.put(self.capture, frame_of(sequence=sequence), overwrite=False)

    def result(self) -> Result:
        result = self.thread.next_result(PATIENCE_S)
        assert result is not None
        return result


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.thread.stop()
    assert rig.thread.join(PATIENCE_S)


def test_inference_thread_delivers_detections_in_order(rig: Rig) -> None:
    for sequence in range(3):
        rig.put(sequence)
        outcome = rig.result().outcome
        assert isinstance(outcome, Detection)
        assert (outcome.frame.sequence, len(outcome.poses)) == (sequence, 1)


@pytest.mark.parametrize(("in_frame", "in_crop"), [(0.6, 0.9), (0.4, 0.9)])
def test_inference_thread_idle_ends_with_a_person(in_frame: float, in_crop: float) -> None:
    """A candidate gets the next frames at once, and the pose that they confirm ends it."""
    now_ns = [SECOND_NS]
    limit = FrameRateLimit(clock=lambda: now_ns[0])
    limit.set_idle(fps=5, after_s=10)
    pipeline = PipelineRig(FakePoseModel(in_frame, in_crop)).pipeline
    capture = Capture("main", lambda: ScriptedSource([]), 10**10, pipeline, FrameMailbox(), limit)
    now_ns[0] += 20 * SECOND_NS
    frames = 0
    while limit.idle:
        assert limit.accepts(now_ns[0])
        now_ns[0] += 20_000_000
        outcome = detect(capture, frame_of(timestamp_ns=now_ns[0], sequence=frames)).outcome
        assert isinstance(outcome, Detection)
        frames += 1
        assert limit.idle is not bool(len(outcome.poses))
    assert 2 <= frames <= 4


def test_inference_thread_empty_room_stays_idle() -> None:
    now_ns = [SECOND_NS]
    limit = FrameRateLimit(clock=lambda: now_ns[0])
    limit.set_idle(fps=5, after_s=10)
    pipeline = PipelineRig(FakePoseModel(0.1, 0.1)).pipeline
    capture = Capture("main", lambda: ScriptedSource([]), 10**10, pipeline, FrameMailbox(), limit)
    now_ns[0] += 20 * SECOND_NS
    assert limit.accepts(now_ns[0])
    now_ns[0] += 20_000_000
    assert isinstance(detect(capture, frame_of()).outcome, Detection)
    assert not limit.accepts(now_ns[0])


@pytest.mark.parametrize(("score", "frames"), [(0.1, 6), (0.27, 30)])
def test_inference_thread_idle_and_a_pose_to_be_verified(score: float, frames: int) -> None:
    """One that the verifier refuses leaves the camera idle; a person ends it."""
    now_ns = [SECOND_NS]
    limit = FrameRateLimit(clock=lambda: now_ns[0])
    limit.set_idle(fps=5, after_s=10)
    rig = PipelineRig(FakePoseModel(0.6, 0.6, crops=False))
    verifier = loaded_model(FakeInterpreter(), FakePoseModel(score, score))
    model = replace(loaded_model(rig.interpreter, rig.model), verifier=verifier)
    rig.pipeline.models = SingleModel(model)
    capture = Capture(
        "main", lambda: ScriptedSource([]), 10**10, rig.pipeline, FrameMailbox(), limit
    )
    now_ns[0] += 20 * SECOND_NS
    accepted = 0
    for sequence in range(30):
        frame = frame_of(timestamp_ns=now_ns[0], sequence=sequence)
        processed = limit.accepts(now_ns[0])
        now_ns[0] += SECOND_NS // 30
        if processed:
            accepted += 1
            detect(capture, frame)
    assert accepted == frames
    assert limit.idle is (score < 0.2)


def test_inference_thread_passes_the_end_and_errors_on(rig: Rig) -> None:
    error = SourceError("camera: unplugged")
    rig.mailbox.put(rig.capture, error, overwrite=False)
    assert rig.result() == Result(rig.capture, error)
    rig.mailbox.put(rig.capture, None, overwrite=False)
    assert rig.result() == Result(rig.capture, None)


def test_inference_thread_delivers_a_bug_as_a_result(rig: Rig) -> None:
    """The thread goes on, and the main loop ends with the exception."""

    class Broken(FakeInterpreter):
        def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
            raise ZeroDivisionError("a bug")

    model = rig.pipeline_rig.model
    working, rig.pipeline.models = (
        rig.pipeline.models,
        SingleModel(loaded_model(Broken(), model)),
    )
    rig.put(0)
    assert isinstance(rig.result().outcome, ZeroDivisionError)
    rig.pipeline.models = working
    rig.put(1)
    assert isinstance(rig.result().outcome, Detection)


def test_inference_thread_waits_for_a_slow_publisher(rig: Rig) -> None:
    """At most two results are queued; further frames wait in the mailbox."""
    for sequence in range(MAX_PENDING_RESULTS + 2):
        rig.put(sequence)
    interpreter = rig.pipeline_rig.interpreter
    wait_for(lambda: interpreter.invoked == MAX_PENDING_RESULTS + 1, "the third inference")
    waiting = rig.mailbox.take(PATIENCE_S)
    assert waiting is not None
    capture, frame = waiting
    assert capture is rig.capture
    assert isinstance(frame, Frame)
    assert frame.sequence == MAX_PENDING_RESULTS + 1


def test_inference_thread_finish_current_waits_for_inference(rig: Rig) -> None:
    interpreter = BlockingInterpreter()
    rig.pipeline.models = SingleModel(loaded_model(interpreter, rig.pipeline_rig.model))
    rig.put(0)
    assert interpreter.entered.wait(PATIENCE_S)
    assert not rig.thread.finish_current(0.05)
    interpreter.go_on.set()
    assert rig.thread.finish_current(PATIENCE_S)
    assert interpreter.invoked == 1


def test_inference_thread_join_leaves_a_hung_model(rig: Rig) -> None:
    interpreter = BlockingInterpreter()
    rig.pipeline.models = SingleModel(loaded_model(interpreter, rig.pipeline_rig.model))
    rig.put(0)
    assert interpreter.entered.wait(PATIENCE_S)
    rig.thread.stop()
    assert not rig.thread.join(0.05)
    interpreter.go_on.set()


def test_inference_thread_next_result_on_time_despite_signals() -> None:
    """A signal just as the time was up made `queue.SimpleQueue` wait for ever (CPython 3.11)."""
    script = (
        "import signal\n"
        "from edgepose.daemon.capture import FrameMailbox\n"
        "from edgepose.daemon.inference_thread import InferenceThread\n"
        "thread = InferenceThread(FrameMailbox())\n"
        "signal.signal(signal.SIGALRM, lambda *_: None)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.00101)\n"
        "for _ in range(2000):\n"
        "    assert thread.next_result(0.001) is None\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
