"""The benchmark of the whole line: a real model, a real broker, and faults planted in between."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import pytest

from edgepose.benchmark import brokers, subscriber
from edgepose.benchmark import end_to_end as pipeline
from edgepose.benchmark.end_to_end import Plan, measure
from edgepose.benchmark.results import PipelineRow
from edgepose.build import build_model
from edgepose.config import Config, load_config
from edgepose.datatypes import Frame
from edgepose.errors import AcceleratorError, BrokerError, SourceError, UsageError
from edgepose.messages import PoseMessage
from edgepose.mqtt.url import Secret, parse_broker_url
from edgepose.protocols import Interpreter, LoadedModel, Tensor
from edgepose.sinks.mqtt import MqttSink
from edgepose.util.net import free_port
from tests.helpers import missing
from tests.media import numbered, write_video
from tests.mosquitto import PASSWORD, USERNAME, Mosquitto
from tests.processes import children

MODEL = "movenet-lightning-int8"
SHORT = Plan(pairs=2, seconds=0.2, frames=10, paced_pairs=2, paced_seconds=0.5, warm_up=4)
DELAY_MS = 25.0


@pytest.fixture(scope="module", autouse=True)
def _mosquitto_is_there() -> None:
    if brokers.find_mosquitto() is None:
        missing("no mosquitto on this machine")


class Slow:
    """An interpreter that takes a known time longer."""

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


def sleep_a_while(_number: int) -> None:
    time.sleep(DELAY_MS / 1e3)


def sleep_longer_than_a_frame(_number: int) -> None:
    time.sleep(0.05)


@pytest.fixture(scope="module")
def row() -> PipelineRow:
    """Return what is found of the default: the real model on pictures from memory."""
    (row,) = measure(load_config(None), [MODEL], [1], plan=SHORT)
    return row


def test_every_frame_is_accounted_for(row: PipelineRow) -> None:
    assert (row.model, row.device, row.threads) == (MODEL, "cpu", 1)
    assert (row.source, row.width, row.height) == ("memory", 640, 480)
    assert row.broker.startswith("mosquitto ")
    assert row.frames >= SHORT.pairs * SHORT.frames
    assert row.lost == 0
    assert len(row.rounds.ratios) == len(row.rounds.bare_invoke_p50_ms) == SHORT.pairs
    assert len(row.rounds.latency_p50_ms) == len(row.rounds.paced_invoke_p50_ms) == 2


def test_figures_agree_with_each_other(row: PipelineRow) -> None:
    assert row.fps == pytest.approx(row.frames / row.seconds, rel=0.5)
    assert row.pipeline_to_invoke_ratio is not None
    assert min(row.rounds.ratios) <= row.pipeline_to_invoke_ratio <= max(row.rounds.ratios)
    latency = row.latency_ms
    assert latency.p50 <= latency.p95 <= latency.p99
    # No message can arrive before its model has run.
    assert latency.p50 > row.stages_ms["invoke"].p50 > 0
    assert sum(stage.share for stage in row.stages_ms.values()) == pytest.approx(1, abs=0.001)
    assert list(row.stages_ms) == [
        *("capture", "preprocess", "invoke", "decode", "handover", "track", "smooth"),
        *("publish", "transport"),
    ]


def test_it_is_json_of_the_schema(row: PipelineRow) -> None:
    assert msgspec.json.decode(msgspec.json.encode(row), type=PipelineRow) == row


def test_a_planted_delay_shows_in_invoke_and_latency(row: PipelineRow) -> None:
    (slow,) = measure(
        load_config(None), [MODEL], [1], plan=SHORT, load=loading(sleep_a_while), source=None
    )
    assert slow.bare_invoke.p50_ms >= DELAY_MS
    assert slow.paced_invoke_ms.p50 >= DELAY_MS
    assert slow.stages_ms["invoke"].p50 >= DELAY_MS
    assert slow.latency_ms.p50 >= DELAY_MS
    assert slow.bare_invoke.fps <= 1e3 / DELAY_MS
    assert slow.fps <= 1e3 / DELAY_MS
    # The line has the same delay as the bare loop, and is not blamed for it.
    assert slow.stages_ms["invoke"].share > row.stages_ms["invoke"].share
    for stage in ("preprocess", "decode", "track", "smooth"):
        assert slow.stages_ms[stage].p50 < DELAY_MS


def test_a_delay_between_frame_and_model_is_not_called_the_model_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A source that hands its frames over late: the latency knows, invoke does not."""
    real = pipeline._Memory.frames

    def late(memory: pipeline._Memory) -> Iterator[Frame]:
        for frame in real(memory):
            if memory.live:
                time.sleep(0.015)
            yield frame

    monkeypatch.setattr(pipeline._Memory, "frames", late)
    (slow,) = measure(load_config(None), [MODEL], [1], plan=SHORT)
    assert slow.stages_ms["capture"].p50 >= 15
    assert slow.latency_ms.p50 >= 15 + slow.stages_ms["invoke"].p50


def test_frames_that_no_model_is_fast_enough_for_are_dropped_and_counted() -> None:
    (slow,) = measure(
        load_config(None), [MODEL], [1], plan=SHORT, load=loading(sleep_longer_than_a_frame)
    )
    # At most 20 a second of 30, for a second at least.
    assert slow.dropped >= 5
    assert slow.lost == 0
    assert slow.paced_fps < 21


def test_a_model_far_slower_than_the_source_is_measured_all_the_same() -> None:
    """Two a second: a round of the usual length would be over before its warm-up."""
    plan = Plan(pairs=1, seconds=0.1, frames=2, paced_pairs=1, paced_seconds=0.2, warm_up=2)
    (slow,) = measure(
        load_config(None), [MODEL], [1], plan=plan, load=loading(lambda _number: time.sleep(0.5))
    )
    assert slow.latency_ms.p50 >= 500
    assert 0 < slow.paced_fps <= 2


def test_a_message_that_is_swallowed_is_lost_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    published = MqttSink.publish

    def forgetful(sink: MqttSink, message: PoseMessage) -> None:
        if message.sequence != 7:
            published(sink, message)

    monkeypatch.setattr(MqttSink, "publish", forgetful)
    monkeypatch.setattr(subscriber, "PATIENCE_S", 0.2)
    (row,) = measure(load_config(None), [MODEL], [1], plan=SHORT)
    # Once a round.
    assert row.lost == SHORT.pairs + SHORT.paced_pairs
    assert "4 messages did not reach the subscriber" in row.doubtful


def test_a_clip_is_measured_with_its_own_frames(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi", numbered(12, 320, 240), fps=50)
    (row,) = measure(load_config(None), [MODEL], [1], plan=SHORT, source=str(clip))
    # Its name, not where it lies.
    assert (row.source, row.width, row.height) == ("clip.avi", 320, 240)
    assert row.pipeline_to_invoke_ratio is not None
    # Shorter than a round, it begins again, and nobody in it is no reason to lose a message.
    assert row.frames > 12
    assert row.lost == 0


def test_a_live_source_gives_the_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be asked of a camera back to back, so no ratio is made up."""
    clip = write_video(tmp_path / "clip.avi", numbered(12, 320, 240), fps=50)
    monkeypatch.setattr(pipeline, "_LIVE", ("path",))
    (row,) = measure(
        load_config(None), [MODEL], [1], plan=SHORT, source=f"{clip}?realtime=1&loop=1"
    )
    assert row.pipeline_to_invoke_ratio is None
    assert row.overhead_ms is None
    assert row.rounds.ratios == ()
    assert row.bare_invoke.fps > 0


def test_pictures_are_a_source_too(tmp_path: Path) -> None:
    for number, image in enumerate(numbered(3, 128, 96)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    (row,) = measure(load_config(None), [MODEL], [1], plan=SHORT, source=str(tmp_path))
    assert (row.width, row.height) == (128, 96)
    assert row.latency_ms.p50 > 0


def test_over_a_given_broker_which_is_left_as_it_was(password_broker: Mosquitto) -> None:
    config = load_config(
        None,
        {
            "mqtt.url": f"mqtt://{USERNAME}@127.0.0.1:{password_broker.port}",
            "mqtt.password": PASSWORD,
        },
    )
    with password_broker.listener() as listener:
        (row,) = measure(config, [MODEL], [1], plan=SHORT, given_broker=True)
        assert row.broker == "a given one on this machine"
        assert row.lost == 0
        assert any(topic.endswith("/main/poses") for topic in listener.topics())
    with password_broker.listener() as late:
        password_broker.say("end", b"")
        late.wait_for("end")
        assert late.topics() == ["end"]


def test_a_broker_that_lets_nobody_in(password_broker: Mosquitto) -> None:
    address = parse_broker_url(f"mqtt://{USERNAME}@127.0.0.1:{password_broker.port}")
    listening = subscriber.Subscriber(address, "edgepose/x", password=Secret("wrong"))
    with pytest.raises(BrokerError, match="the benchmark's subscriber cannot listen"), listening:
        pass
    assert "wrong" not in repr(listening)


def test_no_broker_where_one_is_given() -> None:
    config = load_config(None, {"mqtt.url": f"mqtt://127.0.0.1:{free_port()}"})
    with pytest.raises(BrokerError, match="cannot listen"):
        measure(config, [MODEL], [1], plan=SHORT, given_broker=True)


def test_no_broker_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "find_mosquitto", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(BrokerError, match="apt install mosquitto"):
        measure(load_config(None), [MODEL], [1], plan=SHORT)


def test_amqtt_takes_mosquitto_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("amqtt")
    monkeypatch.setattr(brokers, "find_mosquitto", lambda: None)
    (row,) = measure(load_config(None), [MODEL], [1], plan=SHORT)
    assert row.broker.startswith("amqtt ")
    assert row.lost == 0


def test_a_source_that_is_too_short(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        measure(load_config(None), [MODEL], [1], plan=SHORT, source=str(tmp_path / "nothing.avi"))
    with pytest.raises(UsageError, match="no option is called"):
        measure(load_config(None), [MODEL], [1], plan=SHORT, source="synthetic:?speed=2")


def test_a_model_that_fails_ends_the_measurement_with_its_reason() -> None:
    def fail(number: int) -> None:
        if number > 40:
            raise AcceleratorError("the planted failure")

    with pytest.raises(AcceleratorError, match="the planted failure"):
        measure(load_config(None), [MODEL], [1], plan=SHORT, load=loading(fail))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("in_the_line", [True, False])
def test_a_signal_ends_it_all(number: signal.Signals, in_the_line: bool) -> None:
    """The daemon takes signals for itself and ends in order; the benchmark must not go on."""
    sent = threading.Event()

    def interrupt(invoked: int) -> None:
        looking = threading.current_thread() is not threading.main_thread()
        if looking is in_the_line and invoked > 30 and not sent.is_set():
            sent.set()
            os.kill(os.getpid(), number)
            time.sleep(0.2)

    before, processes = signal.getsignal(number), children(os.getpid())
    with pytest.raises(KeyboardInterrupt):
        measure(load_config(None), [MODEL], [1], plan=SHORT, load=loading(interrupt))
    assert signal.getsignal(number) is before
    assert children(os.getpid()) == processes


def test_the_subscriber_notes_arrival_by_sequence(broker: Mosquitto) -> None:
    address = parse_broker_url(f"mqtt://127.0.0.1:{broker.port}")
    with subscriber.Subscriber(address, "edgepose/x") as listening:
        before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for sequence in (3, 5):
            broker.say("edgepose/x/main/poses", json.dumps({"sequence": sequence}).encode())
        broker.say("edgepose/x/status", b"online", retain=True)
        arrivals = listening.collect(2)
        after_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        assert list(arrivals) == [3, 5]
        assert before_ns < arrivals[3] < arrivals[5] < after_ns
        assert listening.collect(0) == {}
        listening.clear()
    with broker.listener() as late:
        broker.say("end", b"")
        late.wait_for("end")
        assert late.topics() == ["end"]
