"""Throughput and latency of the whole daemon, and of its model alone, in one run.

The daemon runs in this process, with its capture, inference, main and MQTT threads; broker and
subscriber are other processes. Rounds of the daemon and of a bare loop of the same interpreter
alternate, so that a changing clock or background load affects both equally, and each pair is
compared within itself.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from edgepose.benchmark.backends import CPU, EDGETPU
from edgepose.benchmark.feed import FPS, SIZE_WH, FrameFeed, LimitedSource, Opener, frame_feed
from edgepose.benchmark.latency import Durations, in_ms, percentiles_of, spread_warnings, timed
from edgepose.benchmark.results import (
    BareInvoke,
    PipelineRounds,
    PipelineRow,
    Stage,
    StageName,
)
from edgepose.benchmark.subscriber import Subscriber
from edgepose.benchmark.traced_daemon import run_daemon
from edgepose.build import build_model
from edgepose.config.homeassistant import HomeAssistantConfig
from edgepose.config.schema import CameraConfig, Config, MetricsConfig, MqttConfig, OutputConfig
from edgepose.daemon.signals import Signals
from edgepose.errors import BrokerError, SourceError
from edgepose.imaging.preprocess import preprocess
from edgepose.inference.runtime import load_runtime
from edgepose.mqtt.local_broker import local_broker
from edgepose.mqtt.topics import Topics
from edgepose.protocols import Interpreter, LoadedModel, Tensor

_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_FRAME_MARGIN: Final = 1.5
_FEW_FRAMES: Final = 4

STAGES: Final[tuple[StageName, ...]] = get_args(StageName)

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure in each round: back to back, then at the source's frame rate.

    The first `warm_up` frames are left out, then at least `frames` are measured.
    """

    rounds: int = 7
    seconds: float = 1.0
    frames: int = 10
    paced_seconds: float = 2.5
    warm_up: int = 10


@dataclass(frozen=True, slots=True)
class DaemonRound:
    """One run of the daemon: its frames after the warm-up, but `dropped` of the whole run.

    `times_ns`, CLOCK_BOOTTIME, (frames, 10): timestamp of the frame, end of each stage, the last of
    which is the arrival of the message, 0 for one that was lost. `cpu_ns` is the processor time
    that the process had used by then.
    """

    times_ns: NDArray[np.int64]
    cpu_ns: Sequence[int]
    dropped: int

    @property
    def seconds(self) -> float:
        """From the first to the last published frame."""
        return float(np.ptp(self.times_ns[:, -2])) / 1e9

    @property
    def rate(self) -> float:
        """Frames per second."""
        return (len(self.times_ns) - 1) / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Processor time per frame."""
        return float(np.ptp(self.cpu_ns)) / 1e6 / (len(self.times_ns) - 1)

    @property
    def received_ns(self) -> NDArray[np.int64]:
        """The frames whose message arrived."""
        return self.times_ns[self.times_ns[:, -1] > 0]

    @property
    def latencies_ns(self) -> NDArray[np.int64]:
        """From the timestamp of each frame to the arrival of its message."""
        return self.received_ns[:, -1] - self.received_ns[:, 0]


@dataclass(frozen=True, slots=True)
class BareRound:
    """One round of the bare loop: duration of each invoke; rate and processor time per invoke."""

    times_ns: Sequence[int]
    rate: float
    cpu_ms: float


def bare_round(
    interpreter: Interpreter,
    tensor: Tensor,
    count: int,
    fps: float | None = None,
    *,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> BareRound:
    """Invoke back to back, or at a frame rate, asleep in between as the daemon is."""
    times_ns = []
    cpu_ns, started_ns = time.process_time_ns(), clock_ns()
    for number in range(count):
        if fps is not None:
            sleep(max(0.0, (started_ns - clock_ns()) / 1e9 + number / fps))
        times_ns.append(timed(interpreter, tensor, clock_ns))
    rate = count * 1e9 / (clock_ns() - started_ns)
    return BareRound(times_ns, rate, (time.process_time_ns() - cpu_ns) / 1e6 / count)


def pipeline_row(
    fast: Sequence[DaemonRound],
    bare: Sequence[BareRound],
    paced: Sequence[DaemonRound],
    paced_bare: Sequence[BareRound],
    **about: Any,
) -> PipelineRow:
    """Return the figures of rounds back to back (no `fast` ones of a live source) and paced ones.

    `about` has the fields that identify what was measured.
    """
    pairs = list(zip(fast, bare, strict=False))
    counted, all_rounds = fast or paced, [*fast, *paced]
    received_ns = np.concatenate([daemon.received_ns for daemon in paced])
    lost = sum(len(daemon.times_ns) - len(daemon.received_ns) for daemon in all_rounds)
    bare_invoke = percentiles_of(np.concatenate([loop.times_ns for loop in bare]))
    rounds = PipelineRounds(
        ratios=tuple(round(daemon.rate / loop.rate, 4) for daemon, loop in pairs),
        bare_invoke_p50_ms=_medians_ms(loop.times_ns for loop in bare),
        latency_p50_ms=_medians_ms(
            daemon.latencies_ns for daemon in paced if len(daemon.received_ns)
        ),
        paced_invoke_p50_ms=_medians_ms(loop.times_ns for loop in paced_bare),
    )
    differences = [
        (1e3 / daemon.rate - 1e3 / loop.rate, daemon.cpu_ms - loop.cpu_ms) for daemon, loop in pairs
    ]
    return PipelineRow(
        **about,
        frames=sum(len(daemon.times_ns) for daemon in counted),
        seconds=round(sum(daemon.seconds for daemon in counted), 3),
        fps=_median(daemon.rate for daemon in counted),
        dropped=sum(daemon.dropped for daemon in all_rounds),
        lost=lost,
        paced_fps=_median(daemon.rate for daemon in paced),
        latency_ms=percentiles_of(received_ns[:, -1] - received_ns[:, 0]),
        stages_ms=_stages(np.diff(received_ns)),
        paced_invoke_ms=percentiles_of(np.concatenate([loop.times_ns for loop in paced_bare])),
        bare_invoke=BareInvoke(
            p50_ms=bare_invoke.p50, p99_ms=bare_invoke.p99, fps=_median(loop.rate for loop in bare)
        ),
        pipeline_to_invoke_ratio=_median(rounds.ratios) if pairs else None,
        overhead_ms=_median(wall for wall, _ in differences) if pairs else None,
        cpu_overhead_ms=_median(cpu for _, cpu in differences) if pairs else None,
        rounds=rounds,
        unstable=tuple(_unstable(rounds, lost)),
    )


def measure(
    configs: Sequence[Config],
    threads: Sequence[int],
    *,
    source: str | None = None,
    given_broker: bool = False,
    plan: Plan | None = None,
    load: Callable[[Config], LoadedModel] = build_model,
    on_progress: Progress = lambda _share, _text: None,
) -> tuple[PipelineRow, ...]:
    """Measure the daemon with each model, one a configuration, and each number of threads.

    `source` None is images from memory. With `given_broker` the configured broker is used,
    otherwise one is started. An Edge TPU has no threads to choose and is measured once. Raises
    EdgeposeError if a part is missing or fails, and KeyboardInterrupt if a signal stopped it.
    """
    plan, feed = plan or Plan(), frame_feed(source)
    # A unique name, so that a node on the same broker is not disturbed.
    node = f"benchmark-{random.randrange(16**8):08x}"  # noqa: S311 - not a secret
    rows: list[PipelineRow] = []

    def advance(share: float, text: str) -> None:
        if signals.stop_requested:
            raise KeyboardInterrupt
        on_progress((len(rows) + share) / (len(configs) * len(threads)), text)

    with (
        Signals() as signals,
        _broker(configs[0].mqtt, given=given_broker) as (mqtt, broker),
        closing(Subscriber(mqtt, Topics(node, mqtt.base_topic).root)) as subscriber,
    ):
        for config in configs:
            for count in threads:
                each = replace(
                    config,
                    node=node,
                    cameras=(CameraConfig(),),
                    output=OutputConfig(),
                    metrics=MetricsConfig(),
                    # Its devices would appear there for a minute.
                    homeassistant=HomeAssistantConfig(enabled=False),
                    # The broker keeps nothing for a client without an id.
                    mqtt=replace(mqtt, enabled=True, client_id=""),
                    inference=replace(config.inference, threads=count),
                )
                model = load(each)
                try:
                    benchmark = _Benchmark(each, model, plan, subscriber, signals)
                    rows.append(benchmark.measure(feed, broker, advance))
                finally:
                    model.interpreter.close()
                if model.device != CPU:
                    break
        advance(0.0, "done")
    return tuple(rows)


@dataclass(slots=True)
class _Benchmark:
    """One model in the daemon and in a bare loop; frames are as in the round before."""

    config: Config
    model: LoadedModel
    plan: Plan
    subscriber: Subscriber
    signals: Signals
    size_wh: tuple[int, int] = SIZE_WH
    fps: float = FPS

    def measure(self, feed: FrameFeed, broker: str, on_progress: Progress) -> PipelineRow:
        """Measure back to back, if the source can, and at its frame rate."""
        plan, model = self.plan, self.model
        # The runtime prepares its work in the first invokes.
        rate = self._bare(plan.frames).rate
        count = max(plan.frames, round(plan.seconds * rate))
        fast, bare, paced, paced_bare = [], [], [], []
        for number in range(plan.rounds):
            on_progress(number / plan.rounds, f"round {number + 1}: {model.name}")
            # The order alternates: neither profits from a machine that gets slower.
            order = (True, False) if number % 2 == 0 else (False, True)
            for is_daemon in order:
                if not is_daemon:
                    bare.append(self._bare(count))
                elif feed.back_to_back is not None:
                    fast.append(self._daemon(feed.back_to_back, plan.warm_up + count))
            for is_daemon in order:
                if is_daemon:
                    # A model that is slower than the source takes only some of its frames.
                    step = max(1.0, _FRAME_MARGIN * self.fps / rate)
                    frames = max(plan.paced_seconds * self.fps, _FEW_FRAMES * step)
                    paced.append(self._daemon(feed.paced, round(frames + plan.warm_up * step)))
                else:
                    invokes = max(2, round(plan.paced_seconds * self.fps))
                    paced_bare.append(self._bare(invokes, self.fps))
        if not any(len(daemon.received_ns) for daemon in paced):
            raise BrokerError(
                f"no message of {model.name} reached the subscriber, with {broker}: check that its "
                "user may read what it publishes"
            )
        on_cpu, inference = model.device == CPU, self.config.inference
        return pipeline_row(
            *(fast, bare, paced, paced_bare),
            model=model.name,
            device=model.device,
            backend=load_runtime(inference.runtime)[0] if on_cpu else EDGETPU,
            threads=inference.threads if on_cpu else 1,
            source=feed.name,
            width=self.size_wh[0],
            height=self.size_wh[1],
            broker=broker,
        )

    def _daemon(self, open_source: Opener, count: int) -> DaemonRound:
        # Messages of the round before that arrived late.
        self.subscriber.collect(0)
        limited, warm_up = LimitedSource(open_source(), count), self.plan.warm_up
        traces = run_daemon(self.config, self.model, limited, self.signals)
        arrivals = self.subscriber.collect(len(traces))
        if len(traces) < warm_up + 2:
            raise SourceError(
                f"{limited.description}: expected at least {warm_up + 2} frames for a measurement, "
                f"{len(traces)} were published in a round"
            )
        self.size_wh, self.fps = limited.size_wh, limited.fps
        measured, dropped = traces[warm_up:], len(limited.timestamps_ns) - len(traces)
        times_ns = [(*trace.times_ns, arrivals.get(trace.sequence, 0)) for trace in measured]
        return DaemonRound(np.array(times_ns), [trace.cpu_ns for trace in measured], dropped)

    def _bare(self, count: int, fps: float | None = None) -> BareRound:
        model, interpreter = self.model.pose_model, self.model.interpreter
        image = np.full((*self.size_wh[::-1], 3), 127, np.uint8)
        tensor, _ = preprocess(image, None, model.input_spec)
        bare_round(interpreter, tensor, self.plan.warm_up)
        return bare_round(interpreter, tensor, count, fps)


@contextmanager
def _broker(mqtt: MqttConfig, *, given: bool) -> Iterator[tuple[MqttConfig, str]]:
    """Yield the broker to use, and its description for the report."""
    if given:
        # Its name or address is not for a report that others read.
        place = "this" if mqtt.address.host in _LOCAL else "another"
        yield mqtt, f"given with --mqtt, on {place} machine"
    else:
        with local_broker() as own:
            mqtt = MqttConfig(url=own.url, protocol=own.protocol)
            yield mqtt, f"{own.name}, started by the benchmark"


def _unstable(rounds: PipelineRounds, lost: int) -> Iterator[str]:
    """Yield why the figures are not reliable."""
    for what, figures in (
        ("ratios to the bare loop", rounds.ratios),
        ("latencies", rounds.latency_p50_ms),
        ("bare invokes", rounds.bare_invoke_p50_ms),
        ("bare invokes at the source's frame rate", rounds.paced_invoke_p50_ms),
    ):
        yield from spread_warnings(what, figures)
    if lost:
        yield f"{lost} messages did not reach the subscriber"


def _stages(durations_ns: NDArray[np.int64]) -> dict[StageName, Stage]:
    """Return median and share of each stage, of which there is one column."""
    # A transport may be below 0: a message can arrive before the thread that sent it continues.
    means = np.maximum(durations_ns.mean(axis=0), 0)
    medians = np.maximum(np.median(durations_ns, axis=0), 0)
    return {
        name: Stage(p50=in_ms(median), share=round(float(share), 4))
        for name, median, share in zip(STAGES, medians, means / means.sum(), strict=True)
    }


def _medians_ms(rounds: Iterable[Durations]) -> tuple[float, ...]:
    return tuple(in_ms(np.median(times_ns)) for times_ns in rounds)


def _median(values: Iterable[float]) -> float:
    return round(float(np.median(list(values))), 4)
