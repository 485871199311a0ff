"""The end-to-end benchmark with a real model and a real broker, and injected faults."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path

import cv2
import msgspec
import pytest

from edgepose.benchmark import feed, subscriber
from edgepose.benchmark.end_to_end import Plan, measure
from edgepose.benchmark.results import PipelineRow
from edgepose.build import build_model
from edgepose.config.loader import load_config
from edgepose.config.schema import Config, MqttConfig
from edgepose.errors import AcceleratorError, BrokerError, SourceError, UsageError
from edgepose.messages import PoseMessage
from edgepose.mqtt import local_broker
from edgepose.mqtt.local_broker import free_port
from edgepose.protocols import Interpreter, LoadedModel, Tensor
from edgepose.sinks.mqtt import MqttSink
from edgepose.util.secrets import Secret
from tests.media import numbered, write_video
from tests.mosquitto import PASSWORD, USERNAME, Mosquitto
from tests.processes import children
from tests.requirements import missing

MODEL = "movenet-lightning-int8"
# On a busy machine most frames of half a second may be dropped.
SHORT = Plan(rounds=2, seconds=0.2, frames=10, paced_seconds=0.5, warm_up=2)


@pytest.fixture(scope="module", autouse=True)
def _mosquitto_is_there() -> None:
    if local_broker.find_mosquitto() is None:
        missing("no mosquitto on this machine")


class Slow:
    """An interpreter that calls a function before each invoke."""

    def __init__(self, interpreter: Interpreter, fault: Callable[[int], None]) -> None:
        self.input, self.outputs = interpreter.input, interpreter.outputs
        self.close = interpreter.close
        self.closed = False
        self._interpreter = interpreter
        self._fault = fault
        self._number = 0

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        self._number += 1
        self._fault(self._number)
        return self._interpreter.invoke(tensor)


def loading(fault: Callable[[int], None]) -> Callable[[Config], LoadedModel]:
    def load(config: Config) -> LoadedModel:
        model = build_model(config)
        return replace(model, interpreter=Slow(model.interpreter, fault))

    return load


def sleep_longer_than_a_frame(_number: int) -> None:
    time.sleep(0.05)


@pytest.fixture(scope="module")
def row() -> PipelineRow:
    """Return the row of the default: the real model on images from memory."""
    (row,) = measure([load_config(None)], [1], plan=SHORT)
    return row


def test_measure_counts_every_frame(row: PipelineRow) -> None:
    assert (row.model, row.device, row.threads) == (MODEL, "cpu", 1)
    assert (row.source, row.width, row.height) == ("memory", 640, 480)
    assert row.broker.startswith("mosquitto ")
    assert row.frames >= SHORT.rounds * SHORT.frames
    assert row.lost == 0
    assert len(row.rounds.ratios) == len(row.rounds.bare_invoke_p50_ms) == SHORT.rounds
    assert len(row.rounds.latency_p50_ms) == len(row.rounds.paced_invoke_p50_ms) == 2


def test_measure_row_is_valid_json(row: PipelineRow) -> None:
    assert msgspec.json.decode(msgspec.json.encode(row), type=PipelineRow) == row


def test_measure_counts_dropped_frames() -> None:
    """A camera does not wait for a model that is slower."""
    (slow,) = measure([load_config(None)], [1], plan=SHORT, load=loading(sleep_longer_than_a_frame))
    assert slow.dropped > 0
    assert slow.lost == 0


def test_measure_model_far_slower_than_source() -> None:
    """Two a second: a round of the usual length would be over before its warm-up."""
    plan = Plan(rounds=1, seconds=0.1, frames=2, paced_seconds=0.2, warm_up=2)
    (slow,) = measure(
        [load_config(None)], [1], plan=plan, load=loading(lambda _number: time.sleep(0.5))
    )
    assert len(slow.rounds.latency_p50_ms) == 1


def test_measure_counts_lost_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    published, count = MqttSink.publish, 0

    def forgetful(sink: MqttSink, message: PoseMessage) -> None:
        nonlocal count
        count += 1
        # The tenth is no longer one of the warm-up.
        if count != 10:
            published(sink, message)

    monkeypatch.setattr(MqttSink, "publish", forgetful)
    monkeypatch.setattr(subscriber, "PATIENCE_S", 1.0)
    (row,) = measure([load_config(None)], [1], plan=SHORT)
    assert row.lost == 1
    assert "1 messages did not reach the subscriber" in row.unstable


def test_measure_video_file(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi", numbered(12, 320, 240), fps=50)
    (row,) = measure([load_config(None)], [1], plan=SHORT, source=str(clip))
    # Its name without the folder.
    assert (row.source, row.width, row.height) == ("clip.avi", 320, 240)
    assert row.pipeline_to_invoke_ratio is not None
    # Shorter than a round, it starts again; no message is lost although no person is visible.
    assert row.frames > 12
    assert row.lost == 0


def test_measure_live_source_has_no_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera cannot be read back to back, so there is no ratio."""
    clip = write_video(tmp_path / "clip.avi", numbered(12, 320, 240), fps=50)
    monkeypatch.setattr(feed, "LIVE_KINDS", ("path",))
    (row,) = measure([load_config(None)], [1], plan=SHORT, source=f"{clip}?realtime=1&loop=1")
    assert row.pipeline_to_invoke_ratio is None
    assert row.overhead_ms is None
    assert row.rounds.ratios == ()
    assert len(row.rounds.bare_invoke_p50_ms) == SHORT.rounds


def test_measure_folder_of_images(tmp_path: Path) -> None:
    for number, image in enumerate(numbered(3, 128, 96)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    (row,) = measure([load_config(None)], [1], plan=SHORT, source=str(tmp_path))
    assert (row.width, row.height) == (128, 96)


def test_measure_given_broker_is_left_clean(password_broker: Mosquitto) -> None:
    config = load_config(
        None,
        {
            "mqtt.url": f"mqtt://{USERNAME}@127.0.0.1:{password_broker.port}",
            "mqtt.password": PASSWORD,
        },
    )
    with password_broker.listener() as listener:
        (row,) = measure([config], [1], plan=SHORT, given_broker=True)
        assert row.broker == "given with --mqtt, on this machine"
        assert row.lost == 0
        assert any(topic.endswith("/main/poses") for topic in listener.topics())
    with password_broker.listener() as late:
        password_broker.publish("end", b"")
        late.wait_for("end")
        assert late.topics() == ["end"]


def test_subscriber_rejected_by_broker(password_broker: Mosquitto) -> None:
    config = MqttConfig(
        url=f"mqtt://{USERNAME}@127.0.0.1:{password_broker.port}", password=Secret("wrong")
    )
    with pytest.raises(BrokerError, match="the benchmark cannot subscribe") as caught:
        subscriber.Subscriber(config, "edgepose/x")
    assert "wrong" not in str(caught.value)


def test_measure_unreachable_broker() -> None:
    config = load_config(None, {"mqtt.url": f"mqtt://127.0.0.1:{free_port()}"})
    with pytest.raises(BrokerError, match="cannot subscribe"):
        measure([config], [1], plan=SHORT, given_broker=True)


def test_measure_falls_back_to_amqtt(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("amqtt")
    monkeypatch.setattr(local_broker, "find_mosquitto", lambda: None)
    (row,) = measure([load_config(None)], [1], plan=SHORT)
    assert row.broker.startswith("amqtt ")
    assert row.lost == 0


def test_measure_invalid_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        measure([load_config(None)], [1], plan=SHORT, source=str(tmp_path / "nothing.avi"))
    with pytest.raises(UsageError, match="unknown option"):
        measure([load_config(None)], [1], plan=SHORT, source="synthetic:?speed=2")


def test_measure_failing_model() -> None:
    def fail(number: int) -> None:
        if number > 40:
            raise AcceleratorError("the injected failure")

    with pytest.raises(AcceleratorError, match="the injected failure"):
        measure([load_config(None)], [1], plan=SHORT, load=loading(fail))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("in_daemon", [True, False])
def test_measure_interrupted_by_signal(number: signal.Signals, in_daemon: bool) -> None:
    """The daemon handles signals itself and stops normally; the benchmark must not continue."""
    sent = threading.Event()

    def interrupt(invoked: int) -> None:
        on_inference_thread = threading.current_thread() is not threading.main_thread()
        if on_inference_thread is in_daemon and invoked > 30 and not sent.is_set():
            sent.set()
            os.kill(os.getpid(), number)

    # multiprocessing starts it once and keeps it.
    resource_tracker.ensure_running()
    before, processes = signal.getsignal(number), children(os.getpid())
    with pytest.raises(KeyboardInterrupt):
        measure([load_config(None)], [1], plan=SHORT, load=loading(interrupt))
    assert signal.getsignal(number) is before
    assert children(os.getpid()) == processes


def test_subscriber_records_arrival_by_sequence(broker: Mosquitto) -> None:
    config = MqttConfig(url=f"mqtt://127.0.0.1:{broker.port}")
    with closing(subscriber.Subscriber(config, "edgepose/x")) as listening:
        for sequence in (3, 5):
            broker.publish("edgepose/x/main/poses", json.dumps({"sequence": sequence}).encode())
        broker.publish("edgepose/x/status", b"online", retain=True)
        arrivals = listening.collect(2)
        assert list(arrivals) == [3, 5]
        assert listening.collect(0) == {}
    with broker.listener() as late:
        broker.publish("end", b"")
        late.wait_for("end")
        assert late.topics() == ["end"]
