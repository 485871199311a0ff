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

PATIENCE_S = 10.0


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
    assert sink.dropped == 3
    sink.close()
    assert "still blocked" in caplog.text
    go_on.set()
    wait_for(lambda: len(blocked.messages) == 3, "the messages that were queued")


@pytest.mark.parametrize("failure", [SinkError("stdout was closed"), ZeroDivisionError("a bug")])
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
        except (SinkError, ZeroDivisionError) as error:
            raised.append(error)
        return bool(raised)

    wait_for(has_failed, "the failure")
    assert raised == [failure]
    sink.publish(message)
    sink.close()
