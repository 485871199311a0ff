"""Throughput and latency of the whole daemon, and of its model alone, in one run.

The daemon runs in this process, with its capture, inference, main and MQTT threads; broker and
subscriber are other processes. Rounds of the daemon and of a bare loop of the same interpreter
alternate, so that a changing clock or background load affects both equally, and each pair is
compared within itself.
"""

import itertools
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import msgspec
import numpy as np

from edgepose.benchmark.backends import CPU, EDGETPU
from edgepose.benchmark.brokers import own_broker
from edgepose.benchmark.feed import FPS, SIZE_WH, FrameFeed, LimitedSource
from edgepose.benchmark.latency import in_ms, percentiles_of, spread_warnings
from edgepose.benchmark.results import BareInvoke, PipelineRounds, PipelineRow, Stage, StageName
from edgepose.benchmark.subscriber import Subscriber
from edgepose.benchmark.traced_daemon import FrameTrace, run_daemon
from edgepose.build import build_model
from edgepose.config import Config, ModelConfig
from edgepose.config.schema import MqttConfig
from edgepose.errors import BrokerError, SourceError
from edgepose.imaging.preprocess import preprocess
from edgepose.inference.cpu import default_threads
from edgepose.inference.runtime import load_runtime
from edgepose.mqtt.topics import Topics
from edgepose.protocols import Interpreter, LoadedModel

_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_FRAME_MARGIN: Final = 1.5
_FEW_FRAMES: Final = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure: pairs of rounds back to back, then pairs at the source's frame rate.

    The first `warm_up` frames of a round are left out, then at least `frames` are measured.
    """

    pairs: int = 8
    seconds: float = 1.0
    frames: int = 10
    paced_pairs: int = 6
    paced_seconds: float = 2.5
    warm_up: int = 10


@dataclass(frozen=True, slots=True)
class DaemonRound:
    """One run of the daemon: frames after the warm-up, but `dropped` and `lost` of the whole run.

    `received` has the frames whose message arrived, each with CLOCK_BOOTTIME of its arrival.
    """

    frames: int
    seconds: float
    cpu_ms: float
    dropped: int
    lost: int
    received: Sequence[tuple[FrameTrace, int]]

    @property
    def rate(self) -> float:
        """Frames per second."""
        return (self.frames - 1) / self.seconds


@dataclass(frozen=True, slots=True)
class BareRound:
    """One round of the bare loop: duration of each invoke; rate and processor time per invoke."""

    times_ns: Sequence[int]
    rate: float
    cpu_ms: float

    @property
    def p50_ms(self) -> float:
        """Median of invoke."""
        return in_ms(_median(self.times_ns))


Pair = tuple[DaemonRound, BareRound]


def measure(
    config: Config,
    names: Sequence[str],
    threads: Sequence[int],
    *,
    source: str | None = None,
    given_broker: bool = False,
    plan: Plan | None = None,
    load: Callable[[Config], LoadedModel] = build_model,
    on_progress: Callable[[float, str], None] = lambda _share, _text: None,
) -> tuple[PipelineRow, ...]:
    """Measure the daemon with each model and each number of threads.

    `source` None is images from memory. With `given_broker` the broker of `config` is used,
    otherwise one is started. An Edge TPU has no threads to choose and is measured once. Raises
    EdgeposeError if a part is missing or fails, and KeyboardInterrupt if a signal stopped it.
    """
    feed = FrameFeed(source)
    rows: dict[tuple[str, str, int], PipelineRow] = {}
    combinations = list(itertools.product(names, threads))
    with _interrupted_by_signals(), _with_broker(config, given=given_broker) as (config, broker):
        for index, (name, count) in enumerate(combinations):
            each = _config_for(config, name, count)
            model = load(each)
            try:
                key = (model.name, model.device, _threads(each) if model.device == CPU else 1)
                if key not in rows:
                    benchmark = PipelineBenchmark(each, model, key[2], broker, plan or Plan())
                    rows[key] = benchmark.measure(
                        feed, partial(_shifted, on_progress, index, len(combinations))
                    )
            finally:
                model.interpreter.close()
    on_progress(1.0, "done")
    return tuple(rows.values())


class PipelineBenchmark:
    """One model in the daemon and in a bare loop."""

    def __init__(
        self, config: Config, model: LoadedModel, threads: int, broker: str, plan: Plan
    ) -> None:
        self._config = config
        self._model = replace(model, interpreter=NonClosingInterpreter(model.interpreter))
        self._threads = threads
        self._broker = broker
        self._plan = plan
        self._size_wh = SIZE_WH
        # A unique name, so that a node on the same broker is not disturbed.
        node = f"benchmark-{random.randrange(16**8):08x}"  # noqa: S311 - not a secret
        self._topics = Topics(node=node, base=config.mqtt.base_topic)

    def measure(self, feed: FrameFeed, on_progress: Callable[[float, str], None]) -> PipelineRow:
        """Measure back to back, if the source can, and at its frame rate."""
        plan, name, mqtt = self._plan, self._model.name, self._config.mqtt
        total = plan.pairs + plan.paced_pairs
        fast: list[Pair] = []
        paced: list[Pair] = []
        with Subscriber(
            mqtt.address,
            self._topics.root,
            username=mqtt.user,
            password=mqtt.read_password(),
            tls=mqtt.tls_files,
        ) as subscriber:
            # The runtime prepares its work in the first invokes.
            rate = self._bare(plan.frames).rate
            count = max(plan.frames, round(plan.seconds * rate))
            bare: list[BareRound] = []
            for number in range(plan.pairs):
                on_progress(number / total, f"{name}, back to back")
                if feed.back_to_back is None:
                    bare.append(self._bare(count))
                    continue
                source = LimitedSource(feed.back_to_back(), frames=plan.warm_up + count)
                fast.append(self._pair(number, source, subscriber, partial(self._bare, count)))
                bare.append(fast[-1][1])
            for number in range(plan.paced_pairs):
                on_progress((plan.pairs + number) / total, f"{name}, at the source's frame rate")
                # A model that is slower than the source leaves few frames.
                frame_s = max(1 / (feed.fps or FPS), _FRAME_MARGIN / rate)
                seconds = max(plan.paced_seconds, _FEW_FRAMES * frame_s) + plan.warm_up * frame_s
                source = LimitedSource(feed.paced(), seconds=seconds)
                paced.append(
                    self._pair(number, source, subscriber, partial(self._paced_bare, feed, source))
                )
            subscriber.clear()
        return self._row(feed.name, fast, paced, bare)

    def _pair(
        self,
        number: int,
        source: LimitedSource,
        subscriber: Subscriber,
        bare: Callable[[], BareRound],
    ) -> Pair:
        # The order alternates, so that neither profits from a machine that gets slower.
        before = bare() if number % 2 else None
        traces = run_daemon(self._config, self._topics, self._model, lambda: source)
        arrivals = subscriber.collect(len(traces))
        self._size_wh = source.size_wh
        first = self._plan.warm_up
        frames = len(traces) - first
        if frames < 2:
            raise SourceError(
                f"{source.description}: expected at least {first + 2} frames for a measurement, "
                f"{len(traces)} were published in a round"
            )
        line = DaemonRound(
            frames=frames,
            seconds=(traces[-1].publish_to_ns - traces[first].publish_to_ns) / 1e9,
            cpu_ms=(traces[-1].cpu_ns - traces[first].cpu_ns) / 1e6 / (frames - 1),
            dropped=len(source.timestamps_ns) - len(traces),
            lost=sum(trace.sequence not in arrivals for trace in traces),
            received=[
                (trace, arrivals[trace.sequence])
                for trace in traces[first:]
                if trace.sequence in arrivals
            ],
        )
        return line, before or bare()

    def _bare(self, count: int, fps: float | None = None) -> BareRound:
        """Invoke back to back, or at a frame rate, asleep in between as the daemon is."""
        model = self._model.pose_model
        image = np.full((*self._size_wh[::-1], 3), 127, np.uint8)
        region = model.default_region(self._size_wh)
        tensor, _ = preprocess(image, region, model.input_spec)
        invoke, clock_ns = self._model.interpreter.invoke, time.perf_counter_ns
        for _ in range(self._plan.warm_up):
            invoke(tensor)
        times = []
        cpu_ns, started_ns = time.process_time_ns(), clock_ns()
        for number in range(count):
            if fps is not None:
                time.sleep(max(0.0, started_ns / 1e9 + number / fps - clock_ns() / 1e9))
            before_ns = clock_ns()
            invoke(tensor)
            times.append(clock_ns() - before_ns)
        rate = count * 1e9 / (clock_ns() - started_ns)
        return BareRound(times, rate, (time.process_time_ns() - cpu_ns) / 1e6 / count)

    def _paced_bare(self, feed: FrameFeed, source: LimitedSource) -> BareRound:
        fps = feed.fps = feed.fps or source.fps
        return self._bare(max(2, round(self._plan.paced_seconds * fps)), fps)

    def _row(
        self,
        source: str,
        fast: Sequence[Pair],
        paced: Sequence[Pair],
        bare: Sequence[BareRound],
    ) -> PipelineRow:
        received = [line.received for line, _ in paced]
        if not any(received):
            raise BrokerError(
                f"no message of {self._model.name} reached the subscriber, with {self._broker}: "
                f"check that its user may read {self._topics.root}/#"
            )
        together = list(itertools.chain.from_iterable(received))
        counted = [line for line, _ in fast or paced]
        rounds = PipelineRounds(
            ratios=tuple(round(line.rate / loop.rate, 4) for line, loop in fast),
            bare_invoke_p50_ms=tuple(loop.p50_ms for loop in bare),
            latency_p50_ms=tuple(
                in_ms(_median([arrived - trace.frame_ns for trace, arrived in of_round]))
                for of_round in received
                if of_round
            ),
            paced_invoke_p50_ms=tuple(loop.p50_ms for _, loop in paced),
        )
        lost = sum(line.lost for line, _ in (*fast, *paced))
        bare_invoke = percentiles_of([took for loop in bare for took in loop.times_ns])
        return PipelineRow(
            model=self._model.name,
            device=self._model.device,
            backend=EDGETPU
            if self._model.device != CPU
            else load_runtime(self._config.inference.runtime)[0],
            threads=self._threads,
            source=source,
            width=self._size_wh[0],
            height=self._size_wh[1],
            broker=self._broker,
            frames=sum(line.frames for line in counted),
            seconds=round(sum(line.seconds for line in counted), 3),
            fps=round(_median([line.rate for line in counted]), 2),
            dropped=sum(line.dropped for line, _ in (*fast, *paced)),
            lost=lost,
            paced_fps=round(_median([line.rate for line, _ in paced]), 2),
            latency_ms=percentiles_of([arrived - trace.frame_ns for trace, arrived in together]),
            stages_ms=_stages(together),
            paced_invoke_ms=percentiles_of([took for _, loop in paced for took in loop.times_ns]),
            bare_invoke=BareInvoke(
                p50_ms=bare_invoke.p50,
                p99_ms=bare_invoke.p99,
                fps=round(_median([loop.rate for loop in bare]), 2),
            ),
            pipeline_to_invoke_ratio=_of_pairs(fast, lambda line, loop: line.rate / loop.rate),
            overhead_ms=_of_pairs(fast, lambda line, loop: 1e3 / line.rate - 1e3 / loop.rate),
            cpu_overhead_ms=_of_pairs(fast, lambda line, loop: line.cpu_ms - loop.cpu_ms),
            rounds=rounds,
            unstable=tuple(_unstable(rounds, lost)),
        )


class NonClosingInterpreter:
    """An interpreter that stays open when the daemon closes it."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.input = interpreter.input
        self.outputs = interpreter.outputs
        # The function itself, so that the daemon has no cost that the bare loop has not.
        self.invoke = interpreter.invoke

    def close(self) -> None:
        """Stay open."""


def _config_for(config: Config, name: str, threads: int) -> Config:
    # Input size, kind and the like are those of the configured model only.
    model = config.model if config.model.name == name else ModelConfig(name=name)
    inference = msgspec.structs.replace(config.inference, threads=threads)
    return msgspec.structs.replace(config, model=model, inference=inference)


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does: no broker is left running."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    previous = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


@contextmanager
def _with_broker(config: Config, *, given: bool) -> Iterator[tuple[Config, str]]:
    """Yield the configuration with the broker to use, and its description for the report."""
    if given:
        # Its name or address is not for a report that others read.
        local = config.mqtt.address.host in _LOCAL
        yield config, f"given with --mqtt, {'on this machine' if local else 'on another machine'}"
        return
    with own_broker() as (port, description, has_mqtt5):
        mqtt = MqttConfig(url=f"mqtt://127.0.0.1:{port}", protocol="5" if has_mqtt5 else "3.1.1")
        yield msgspec.structs.replace(config, mqtt=mqtt), description


def _stages(received: Sequence[tuple[FrameTrace, int]]) -> dict[StageName, Stage]:
    """Return the stages between a frame's timestamp and its message's arrival, in their order."""
    spans: dict[StageName, list[int]] = {
        "capture": [t.detect_ns - t.frame_ns for t, _ in received],
        "preprocess": [t.timings.preprocess_ns for t, _ in received],
        "invoke": [t.timings.invoke_ns for t, _ in received],
        "decode": [t.timings.decode_ns for t, _ in received],
        "handover": [
            t.publish_from_ns
            - t.detect_ns
            - t.timings.preprocess_ns
            - t.timings.invoke_ns
            - t.timings.decode_ns
            for t, _ in received
        ],
        "track": [t.timings.track_ns for t, _ in received],
        "smooth": [t.timings.smooth_ns for t, _ in received],
        "publish": [t.publish_ns for t, _ in received],
        # May be below 0: a message can arrive before the thread that published it continues.
        "transport": [arrived_ns - t.publish_to_ns for t, arrived_ns in received],
    }
    means = {name: max(0.0, float(np.mean(span))) for name, span in spans.items()}
    whole = sum(means.values()) or 1.0
    return {
        name: Stage(p50=in_ms(max(0.0, _median(span))), share=round(means[name] / whole, 4))
        for name, span in spans.items()
    }


def _shifted(
    on_progress: Callable[[float, str], None], done: int, total: int, share: float, text: str
) -> None:
    on_progress((done + share) / total, text)


def _of_pairs(
    pairs: Sequence[Pair], figure: Callable[[DaemonRound, BareRound], float]
) -> float | None:
    return round(_median([figure(*pair) for pair in pairs]), 4) if pairs else None


def _threads(config: Config) -> int:
    threads = config.inference.threads
    return default_threads() if threads == "auto" else threads


def _unstable(rounds: PipelineRounds, lost: int) -> Iterator[str]:
    """Yield why the figures are not reliable."""
    yield from spread_warnings("ratios to the bare loop", rounds.ratios)
    yield from spread_warnings("latencies", rounds.latency_p50_ms)
    yield from spread_warnings("bare invokes", rounds.bare_invoke_p50_ms)
    yield from spread_warnings(
        "bare invokes at the source's frame rate", rounds.paced_invoke_p50_ms
    )
    if lost:
        yield f"{lost} messages did not reach the subscriber"


def _median(values: Sequence[float]) -> float:
    return float(np.median(np.array(values)))
