"""A sink behind a queue: a blocked peer delays no caller."""

import logging
import threading

import pytest

from edgepose.errors import SinkError
from edgepose.messages import PoseMessage
from edgepose.sinks import queued
from edgepose.sinks.queued import QueuedSink
from tests.fakes.pipeline import FakePoseModel, MessageCollector, PipelineRig
from tests.mosquitto import wait_for

PATIENCE_S = 60.0


def messages(count: int) -> list[PoseMessage]:
    rig = PipelineRig(FakePoseModel(0.6, 0.0, crops=False))
    return [rig.process().message for _ in range(count)]


def test_queued_sink_passes_everything_on_in_order() -> None:
    collector = MessageCollector()
    sink = QueuedSink(collector, name="test")
    expected = messages(5)
    for message in expected:
        sink.publish(message)
    sink.close()
    assert collector.messages == expected


def test_queued_sink_blocked_peer_drops_and_logs_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(queued, "MAX_PENDING", 2)
    monkeypatch.setattr(queued, "CLOSE_TIMEOUT_S", 0.05)
    go_on, entered = threading.Event(), threading.Event()

    class Blocked(MessageCollector):
        def publish(self, message: PoseMessage) -> None:
            entered.set()
            assert go_on.wait(PATIENCE_S)
            super().publish(message)

    blocked = Blocked()
    sink = QueuedSink(blocked, name="stdout")
    first, *others = messages(6)
    sink.publish(first)
    assert entered.wait(PATIENCE_S)
    with caplog.at_level(logging.WARNING):
        for message in others:
            sink.publish(message)
    assert caplog.text.count("dropped") == 1
    assert (sink.working, sink.dropped) == (False, 3)
    sink.close()
    assert "still blocked" in caplog.text
    go_on.set()
    wait_for(lambda: len(blocked.messages) == 3, "the messages that were queued")


@pytest.mark.parametrize("failure", [BrokenPipeError("no reader"), ZeroDivisionError("a bug")])
def test_queued_sink_raises_the_failure_once(failure: Exception) -> None:
    class Failing(MessageCollector):
        def publish(self, message: PoseMessage) -> None:
            raise failure

    sink = QueuedSink(Failing(), name="stdout")
    (message,) = messages(1)

    raised: list[Exception] = []

    def has_failed() -> bool:
        try:
            sink.publish(message)
        except (BrokenPipeError, ZeroDivisionError) as error:
            raised.append(error)
        return bool(raised)

    wait_for(has_failed, "the failure")
    assert raised == [failure]
    sink.publish(message)
    sink.close()


def test_queued_sink_hang_is_logged_before_the_queue_is_full(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A quiet camera would fill the queue in hours."""
    go_on, entered = threading.Event(), threading.Event()
    now_s = 0.0

    class Blocked(MessageCollector):
        def publish(self, message: PoseMessage) -> None:
            entered.set()
            assert go_on.wait(PATIENCE_S)
            super().publish(message)

    blocked = Blocked()
    sink = QueuedSink(blocked, name="recording", monotonic=lambda: now_s)
    first, second, third, fourth = messages(4)
    sink.publish(first)
    assert entered.wait(PATIENCE_S)
    now_s = queued.BLOCKED_S
    sink.publish(second)
    assert sink.working
    now_s += 1
    sink.publish(third)
    sink.publish(fourth)
    assert (sink.working, sink.dropped) == (False, 0)
    assert len(caplog.records) == 1
    assert "recording: blocked for 10 s" in caplog.text
    go_on.set()
    wait_for(lambda: sink.working and len(blocked.messages) == 4, "the messages")
    sink.close()


class Disk(MessageCollector):
    """Takes messages while it has room, and opens while it is there."""

    def __init__(self) -> None:
        super().__init__()
        self.problem = ""
        self.closed_by = ""

    def publish(self, message: PoseMessage) -> None:
        if self.problem:
            raise SinkError(self.problem)
        super().publish(message)

    def open(self) -> None:
        if self.problem:
            raise SinkError(self.problem)

    def close(self) -> None:
        self.closed_by = threading.current_thread().name


def test_queued_sink_goes_on_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """The error is logged once, then that it is over; what was dropped is counted."""
    caplog.set_level(logging.INFO)
    disk = Disk()
    now_s = 0.0
    sink = QueuedSink(disk, name="recording", monotonic=lambda: now_s)
    first, second, third, *others = messages(9)
    sink.publish(first)
    wait_for(lambda: disk.messages == [first], "the first message")
    disk.problem = "r.ndjson: disk full"
    for message in (second, *others):
        sink.publish(message)
    wait_for(lambda: sink.dropped == 7, "the dropped messages")
    assert (sink.working, sink.dropped) == (False, 7)
    assert [record.getMessage() for record in caplog.records] == [
        "recording: r.ndjson: disk full; messages are dropped until that changes"
    ]
    disk.problem = ""
    sink.publish(third)
    wait_for(lambda: len(disk.messages) == 2, "the message after it")
    wait_for(lambda: (sink.working, sink.dropped) == (True, 7), "the counters")
    assert len(caplog.records) == 1, "it may be full again at once"
    now_s = queued.STABLE_S
    sink.publish(third)
    wait_for(lambda: len(caplog.records) == 2, "the end of it")
    assert "written again; 7" in caplog.text
    sink.close()


def test_queued_sink_on_the_edge_is_no_flood_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    """A disk that takes every other message is logged once."""

    class Edge(MessageCollector):
        def publish(self, message: PoseMessage) -> None:
            super().publish(message)
            if len(self.messages) % 2:
                raise SinkError("disk full")

    edge = Edge()
    sink = QueuedSink(edge, name="recording", monotonic=lambda: 0.0)
    for message in messages(20):
        sink.publish(message)
    sink.close()
    assert sink.dropped == 10
    assert len(caplog.records) == 1


def test_queued_sink_prepares_and_closes_in_its_thread(caplog: pytest.LogCaptureFixture) -> None:
    """A disk that hangs delays neither the start nor the end; an error there is logged at once."""
    disk = Disk()
    disk.problem = "no folder"
    sink = QueuedSink(disk, name="recording", prepare=disk.open)
    wait_for(lambda: "no folder" in caplog.text, "the warning")
    assert (sink.working, sink.dropped) == (False, 0)
    sink.close()
    assert disk.closed_by == "sink-recording"
