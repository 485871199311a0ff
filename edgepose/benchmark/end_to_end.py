"""What the whole line costs beside its model alone, in one run.

The line is the daemon itself, in this process: capture thread, looking thread, the telling main
thread and MQTT's network thread; broker and subscriber are other processes. Rounds of the line and
of a bare loop of the same interpreter alternate, so that a machine whose clock drifts, or that
others use, treats them alike, and each pair is compared within itself.
"""

import itertools
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import msgspec
import numpy as np

from edgepose.benchmark.backends import CPU, EDGETPU
from edgepose.benchmark.brokers import own_broker
from edgepose.benchmark.latency import (
    MAX_SPREAD_PERCENT,
    in_ms,
    spread_doubt,
    spread_percent,
)
from edgepose.benchmark.results import (
    BareInvoke,
    Percentiles,
    PipelineRounds,
    PipelineRow,
    Stage,
    StageName,
)
from edgepose.benchmark.subscriber import Subscriber
from edgepose.build import (
    build_model,
    build_occupancy,
    build_smoother,
    build_track_events,
    build_tracker,
    source_opener,
)
from edgepose.clock import boottime_ns
from edgepose.config import CameraConfig, Config
from edgepose.config.source_uri import Option, parse_source_uri
from edgepose.daemon.camera import CameraParts, SourceParts
from edgepose.daemon.daemon import Daemon, Reload
from edgepose.daemon.signals import Signals
from edgepose.daemon.switches import Switches
from edgepose.daemon.systemd import Notifier
from edgepose.datatypes import Frame
from edgepose.errors import BrokerError, ConfigError, SourceError
from edgepose.imaging.preprocess import preprocess
from edgepose.inference.cpu import default_threads
from edgepose.inference.failover import SingleModel
from edgepose.inference.runtime import load_runtime
from edgepose.mqtt.connection import Protocol
from edgepose.mqtt.topics import Topics
from edgepose.mqtt.url import BrokerAddress, Secret, TlsFiles
from edgepose.pipeline import CropState, Detection, FrameResult, Pipeline
from edgepose.protocols import FrameSource, Interpreter, LoadedModel, Tensor
from edgepose.sinks.mqtt import MqttSink
from edgepose.sources.images import is_image
from edgepose.sources.synthetic import SyntheticSource
from edgepose.util.resource import Resource

MEMORY: Final = "memory"
"""Stands for the source in a report: pictures of the synthetic source, made before."""
SIZE_WH: Final = (640, 480)
FPS: Final = 30.0

_RING: Final = 8
"""Different pictures in memory: as with a camera, whose frame was written a moment ago, they fit
the processor's last cache. Shown forth and back, so that the motion has no leap."""
_CAMERA: Final = "main"
_LIVE: Final = ("picamera", "v4l2", "rtsp")
_HERE: Final = ("localhost", "127.0.0.1", "::1")
_SLACK: Final = 1.5
_FEW_FRAMES: Final = 4
_STATS_INTERVAL_NS: Final = 30_000_000_000
_SILENCE_NS: Final = 10_000_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure: pairs of rounds back to back, then pairs at the pace of the source.

    Of each round, `warm_up` frames are left out, and `frames` are measured at least.
    """

    pairs: int = 8
    seconds: float = 1.0
    frames: int = 10
    paced_pairs: int = 6
    paced_seconds: float = 2.5
    warm_up: int = 10


@dataclass(frozen=True, slots=True)
class Told:
    """What the line notes of one frame; `_ns` of moments are CLOCK_BOOTTIME, others durations."""

    sequence: int
    frame_ns: int
    seen_ns: int
    told_from_ns: int
    told_to_ns: int
    preprocess_ns: int
    invoke_ns: int
    decode_ns: int
    track_ns: int
    smooth_ns: int
    publish_ns: int


class TracingPipeline(Pipeline):
    """The line of the daemon, with a note of every frame; images are not kept."""

    seen: dict[int, int]
    told: list[Told]

    def detect(self, frame: Frame, crop: CropState) -> Detection:
        """Note when the model begins with a frame."""
        self.seen[frame.sequence] = boottime_ns()
        return super().detect(frame, crop)

    def publish(self, detection: Detection) -> FrameResult:
        """Note when a frame is published, and all that it took."""
        from_ns = boottime_ns()
        step = super().publish(detection)
        to_ns = boottime_ns()
        sequence, timings = detection.frame.sequence, step.timings
        self.told.append(
            Told(
                sequence,
                detection.frame.timestamp_ns,
                self.seen.pop(sequence),
                from_ns,
                to_ns,
                timings.preprocess_ns,
                timings.invoke_ns,
                timings.decode_ns,
                timings.track_ns,
                timings.smooth_ns,
                step.publish_ns,
            )
        )
        return step


@dataclass(slots=True)
class Round:
    """One run of the daemon: what the source gave, the line told and the subscriber heard."""

    given: int
    told: list[Told]
    arrived: dict[int, int]

    @property
    def dropped(self) -> int:
        """Frames that were too old when the line was free."""
        return self.given - len(self.told)

    @property
    def lost(self) -> int:
        """Messages that did not reach the subscriber."""
        return sum(told.sequence not in self.arrived for told in self.told)

    def rate(self, warm_up: int) -> float:
        """Return frames a second, from the end of the warm-up to the last frame."""
        counted = self.told[warm_up:]
        return (len(counted) - 1) * 1e9 / (counted[-1].told_to_ns - counted[0].told_to_ns)

    def seconds(self, warm_up: int) -> float:
        """Return how long that was."""
        return (self.told[-1].told_to_ns - self.told[warm_up].told_to_ns) / 1e9

    def heard(self, warm_up: int) -> list[tuple[Told, int]]:
        """Return what arrived, after the warm-up, with the moment of its arrival."""
        return [
            (told, self.arrived[told.sequence])
            for told in self.told[warm_up:]
            if told.sequence in self.arrived
        ]


@dataclass(frozen=True, slots=True)
class Bare:
    """One round of the bare loop: how long each invoke took, and the whole of them."""

    times_ns: Sequence[int]
    seconds: float

    @property
    def rate(self) -> float:
        """Invokes a second."""
        return len(self.times_ns) / self.seconds

    @property
    def p50_ms(self) -> float:
        """The median invoke."""
        return in_ms(_median(self.times_ns))


@dataclass(frozen=True, slots=True)
class Pair:
    """One round of the line and one of the bare loop, one right after the other."""

    line: Round
    bare: Bare


@dataclass(frozen=True, slots=True)
class Broker:
    """The broker between the line and the subscriber, and how to get in."""

    address: BrokerAddress
    description: str
    protocol: Protocol = "5"
    base_topic: str = "edgepose"
    username: str | None = None
    password: Secret | None = None
    tls: TlsFiles | None = None


class Input:
    """What the line sees: `back_to_back` as fast as it takes frames, `paced` in real time.

    `back_to_back` is None for a camera, which gives the pace.
    """

    def __init__(self, source: str | None = None) -> None:
        self.fps: float | None = None
        self.back_to_back: Callable[[], FrameSource] | None
        if source is None:
            ring = _ring()
            self.name, self.fps = MEMORY, FPS
            self.back_to_back = lambda: _Memory(ring)
            self.paced: Callable[[], FrameSource] = lambda: _Memory(ring, live=True)
            return
        uri = parse_source_uri(source)
        if uri.kind in _LIVE:
            # Neither the address of a camera on the network nor a password is for a report.
            self.name = uri.kind if uri.kind == "rtsp" else str(uri)
            self.back_to_back = None
            self.paced = source_opener(CameraConfig(source=source))
            return
        options = dict(uri.options)
        if uri.kind == "path":
            path = Path(uri.target).absolute()
            self.name, target = path.name, str(path)
            options["loop"] = True
            if path.is_dir() or is_image(path):
                options.setdefault("fps", FPS)
        else:
            self.name = target = "synthetic:"
        self.back_to_back = _opener(target, {**options, "realtime": False})
        self.paced = _opener(target, {**options, "realtime": True})


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
    """Measure the line of each model with each number of threads.

    `source` None is pictures from memory. With `given_broker` the messages go over the broker of
    `config`, otherwise over one of the benchmark's own. Thread counts mean nothing to an Edge TPU,
    which is measured once. Raises EdgeposeError where a part cannot be had, and KeyboardInterrupt
    where a signal ended the line.
    """
    plan = plan or Plan()
    seen = Input(source)
    configs = [_with(config, name, count) for name in names for count in threads]
    rows: list[PipelineRow] = []
    measured: set[tuple[str, str]] = set()
    with _ended_in_order(), _broker(config if given_broker else None) as broker:
        for index, each in enumerate(configs):
            model = load(each)
            try:
                if model.device != CPU and (model.name, model.device) in measured:
                    continue
                measured.add((model.name, model.device))

                def progress(share: float, text: str, done: int = index) -> None:
                    on_progress((done + share) / len(configs), text)

                line = _Line(each, model, broker, plan)
                rows.append(line.measure(seen, progress))
            finally:
                model.interpreter.close()
    on_progress(1.0, "done")
    return tuple(rows)


class _Line:
    """One model, its line and its bare loop."""

    def __init__(self, config: Config, model: LoadedModel, broker: Broker, plan: Plan) -> None:
        self._config = config
        self._broker = broker
        self._plan = plan
        self._interpreter = model.interpreter
        self._model = replace(model, interpreter=_KeptOpen(model.interpreter))
        self._threads = _threads(config) if model.device == CPU else 1
        self._invoke_s = 0.0
        self._size_wh = SIZE_WH
        # A name nobody has, so that a node on the same broker is not disturbed.
        self._topics = Topics(
            node=f"benchmark-{random.randrange(16**8):08x}",  # noqa: S311 - not a secret
            base=broker.base_topic,
        )

    def measure(self, seen: Input, on_progress: Callable[[float, str], None]) -> PipelineRow:
        """Measure both ways, as far as the source allows."""
        plan, name = self._plan, self._model.name
        fast: list[Pair] = []
        paced: list[Pair] = []
        rounds = plan.pairs + plan.paced_pairs
        with Subscriber(
            self._broker.address,
            self._topics.root,
            username=self._broker.username,
            password=self._broker.password,
            tls=self._broker.tls,
        ) as subscriber:
            self._subscriber = subscriber
            # The runtime prepares its work in the first invokes.
            rate = self._bare(plan.frames).rate
            self._invoke_s = 1 / rate
            count = max(plan.frames, round(plan.seconds * rate))
            bare: list[Bare] = []
            for number in range(plan.pairs):
                on_progress(number / rounds, f"{name}, back to back")
                if seen.back_to_back is None:
                    bare.append(self._bare(count))
                else:
                    fast.append(self._pair(number, seen.back_to_back, count))
                    bare.append(fast[-1].bare)
            for number in range(plan.paced_pairs):
                on_progress((plan.pairs + number) / rounds, f"{name}, at the source's pace")
                paced.append(self._paced_pair(number, seen))
            subscriber.clear()
        return self._row(seen, fast, paced, bare)

    def _pair(self, number: int, open_source: Callable[[], FrameSource], count: int) -> Pair:
        # Who goes first changes, so that neither profits from a machine that gets slower.
        before = self._bare(count) if number % 2 else None
        line = self._run(_Counted(open_source(), frames=self._plan.warm_up + count))
        return Pair(line, before or self._bare(count))

    def _paced_pair(self, number: int, seen: Input) -> Pair:
        plan = self._plan
        before = self._bare_paced(seen.fps) if number % 2 and seen.fps is not None else None
        # Of a model that is slower than the source, few frames are left.
        frame_s = max(1 / (seen.fps or FPS), _SLACK * self._invoke_s)
        seconds = max(plan.paced_seconds, _FEW_FRAMES * frame_s) + plan.warm_up * frame_s
        source = _Counted(seen.paced(), seconds=seconds)
        line = self._run(source)
        if seen.fps is None:
            seen.fps = float(1e9 / np.median(np.diff(source.timestamps_ns)))
        return Pair(line, before or self._bare_paced(seen.fps))

    def _run(self, source: "_Counted") -> Round:
        """Run the daemon until the source ends."""
        config, broker = self._config, self._broker
        mqtt = MqttSink(
            address=broker.address,
            topics=self._topics,
            client_id=self._topics.node,
            cameras=(_CAMERA,),
            info=b"{}",
            username=broker.username,
            password=broker.password,
            tls=broker.tls,
            protocol=broker.protocol,
        )
        models = SingleModel(self._model)
        pipeline = TracingPipeline(
            models,
            build_tracker(config),
            build_smoother(config.smoothing),
            [mqtt],
            node=self._topics.node,
            camera=_CAMERA,
            # Else a picture without a person would look like a lost message.
            every_frame=True,
        )
        pipeline.seen, pipeline.told = {}, []
        camera = CameraParts(
            _CAMERA,
            SourceParts(lambda: source, _SILENCE_NS),
            pipeline,
            build_occupancy(config),
            build_track_events(config),
        )
        with (
            tempfile.TemporaryDirectory(prefix="edgepose-benchmark-") as folder,
            Signals() as signals,
        ):
            Daemon(
                [camera],
                models,
                [mqtt],
                mqtt,
                self._topics,
                stats_interval_ns=_STATS_INTERVAL_NS,
                switches=Switches(Path(folder) / "switches.json", frozenset({_CAMERA})),
                notifier=Notifier(""),
                info=lambda _model: b"{}",
                reload=_no_reload,
            ).run(signals)
        if not source.ended:
            # The daemon took the signal for itself and ended in good order.
            raise KeyboardInterrupt
        self._size_wh = source.size_wh
        told = pipeline.told
        if len(told) < self._plan.warm_up + 2:
            raise SourceError(
                f"{source.description}: expected at least {self._plan.warm_up + 2} frames for a "
                f"measurement, the line saw {len(told)} in a round"
            )
        return Round(len(source.timestamps_ns), told, self._subscriber.collect(len(told)))

    def _bare(self, count: int) -> Bare:
        """Invoke back to back."""
        invoke, tensor = self._interpreter.invoke, self._tensor()
        clock_ns = time.perf_counter_ns
        for _ in range(self._plan.warm_up):
            invoke(tensor)
        times = []
        started_ns = before_ns = clock_ns()
        for _ in range(count):
            invoke(tensor)
            after_ns = clock_ns()
            times.append(after_ns - before_ns)
            before_ns = after_ns
        return Bare(times, (before_ns - started_ns) / 1e9)

    def _bare_paced(self, fps: float) -> Bare:
        """Invoke at the pace of the source, asleep in between, as the line is."""
        invoke, tensor = self._interpreter.invoke, self._tensor()
        clock_ns = time.perf_counter_ns
        warm_up = self._plan.warm_up
        times = []
        started_ns = clock_ns()
        for number in range(warm_up + max(2, round(self._plan.paced_seconds * fps))):
            early_ns = started_ns + number * 1e9 / fps - clock_ns()
            if early_ns > 0:
                time.sleep(early_ns / 1e9)
            before_ns = clock_ns()
            invoke(tensor)
            times.append(clock_ns() - before_ns)
        seconds = (clock_ns() - started_ns) / 1e9
        return Bare(times[warm_up:], seconds * (1 - warm_up / len(times)))

    def _tensor(self) -> Tensor:
        frame = Frame(np.full((*self._size_wh[::-1], 3), 127, np.uint8), 0, 0)
        model = self._model.pose_model
        return preprocess(frame.image, model.default_region(frame.size_wh), model.input_spec)[0]

    def _row(
        self,
        seen: Input,
        fast: Sequence[Pair],
        paced: Sequence[Pair],
        bare: Sequence[Bare],
    ) -> PipelineRow:
        warm_up = self._plan.warm_up
        rates = [pair.line.rate(warm_up) for pair in fast]
        ratios = [rate / pair.bare.rate for rate, pair in zip(rates, fast, strict=True)]
        overheads = [
            1e3 / rate - 1e3 / pair.bare.rate for rate, pair in zip(rates, fast, strict=True)
        ]
        heard = [pair.line.heard(warm_up) for pair in paced]
        if not any(heard):
            raise BrokerError(
                f"no message of {self._model.name} reached the subscriber, with "
                f"{self._broker.description}: may its user read {self._topics.root}/#?"
            )
        together = list(itertools.chain.from_iterable(heard))
        lines = [pair.line for pair in (*fast, *paced)]
        counted = [pair.line for pair in (fast or paced)]
        row = PipelineRow(
            model=self._model.name,
            device=self._model.device,
            engine=_engine(self._config, self._model),
            threads=self._threads,
            source=seen.name,
            width=self._size_wh[0],
            height=self._size_wh[1],
            broker=self._broker.description,
            frames=sum(len(line.told) - warm_up for line in counted),
            seconds=round(sum(line.seconds(warm_up) for line in counted), 3),
            fps=round(_median([line.rate(warm_up) for line in counted]), 2),
            dropped=sum(line.dropped for line in lines),
            lost=sum(line.lost for line in lines),
            paced_fps=round(_median([pair.line.rate(warm_up) for pair in paced]), 2),
            latency_ms=_percentiles([arrived - told.frame_ns for told, arrived in together]),
            stages_ms=_stages(together),
            paced_invoke_ms=_percentiles([took for pair in paced for took in pair.bare.times_ns]),
            bare_invoke=_bare_invoke(bare),
            pipeline_to_invoke_ratio=round(_median(ratios), 4) if ratios else None,
            overhead_ms=round(_median(overheads), 4) if overheads else None,
            rounds=PipelineRounds(
                ratios=tuple(round(ratio, 4) for ratio in ratios),
                bare_invoke_p50_ms=tuple(each.p50_ms for each in bare),
                latency_p50_ms=tuple(
                    in_ms(_median([arrived - told.frame_ns for told, arrived in of_round]))
                    for of_round in heard
                    if of_round
                ),
                paced_invoke_p50_ms=tuple(pair.bare.p50_ms for pair in paced),
            ),
        )
        return msgspec.structs.replace(row, doubtful=tuple(_doubts(row)))


class _KeptOpen:
    """An interpreter that outlives the daemon which runs it."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.input = interpreter.input
        self.outputs = interpreter.outputs
        # The very function, so that the line pays for nothing that the bare loop does not.
        self.invoke = interpreter.invoke

    def close(self) -> None:
        """Stay open."""


class _Counted(Resource):
    """A source that ends after so many frames, or seconds by their timestamps."""

    def __init__(
        self, source: FrameSource, *, frames: int | None = None, seconds: float | None = None
    ) -> None:
        self.live = source.live
        self.description = source.description
        self.timestamps_ns: list[int] = []
        self.size_wh = SIZE_WH
        self.ended = False
        self._source = source
        self._frames = frames
        self._ns = None if seconds is None else seconds * 1e9

    def open(self) -> None:
        """Open the source; raises SourceError."""
        self._source.__enter__()

    def close(self) -> None:
        """Close the source; closing twice is fine."""
        self._source.__exit__(None, None, None)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames of the source; none is held here while it is looked at."""
        yield from itertools.takewhile(self._counts, self._source.frames())
        self.ended = True

    def _counts(self, frame: Frame) -> bool:
        timestamps = self.timestamps_ns
        if len(timestamps) == self._frames or (
            self._ns is not None and timestamps and frame.timestamp_ns - timestamps[0] >= self._ns
        ):
            return False
        if not timestamps:
            self.size_wh = frame.size_wh
        timestamps.append(frame.timestamp_ns)
        return True


@dataclass(slots=True)
class _Memory(Resource):
    """Pictures from memory for ever; a live one shows them at FPS, as a camera would.

    Then a frame is of the moment when it is shown: that a timer is late is nobody's latency, and
    the bare loop does not count it either. Otherwise timestamps are those of a recording at FPS.
    """

    ring: Sequence[Frame]
    live: bool = False
    description: str = field(default=MEMORY, init=False)

    def frames(self) -> Iterator[Frame]:
        """Yield frames without end."""
        start_ns = boottime_ns()
        for sequence, frame in enumerate(itertools.cycle([*self.ring, *self.ring[-2:0:-1]])):
            timestamp_ns = start_ns + round(sequence * 1e9 / FPS)
            if self.live:
                time.sleep(max(0, timestamp_ns - boottime_ns()) / 1e9)
                timestamp_ns = boottime_ns()
            yield Frame(frame.image, timestamp_ns, sequence)


def _ring() -> Sequence[Frame]:
    with SyntheticSource(size_wh=SIZE_WH, frame_count=_RING, realtime=False) as source:
        return list(source.frames())


def _opener(target: str, options: dict[str, Option]) -> Callable[[], FrameSource]:
    query = urlencode(
        {name: int(value) if isinstance(value, bool) else value for name, value in options.items()}
    )
    return source_opener(CameraConfig(source=f"{target}?{query}"))


def _with(config: Config, name: str, threads: int) -> Config:
    """Return the configuration for another model, which the keys of this one's file do not suit."""
    model = config.model if config.model.name == name else type(config.model)(name=name)
    return msgspec.structs.replace(
        config,
        model=model,
        inference=msgspec.structs.replace(config.inference, threads=threads),
    )


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end it as Ctrl-C does: no broker is left behind."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    previous = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


@contextmanager
def _broker(config: Config | None) -> Iterator[Broker]:
    """Yield the broker of a configuration, or one of the benchmark's own."""
    if config is None:
        with own_broker() as own:
            yield Broker(own.address, own.description, "5" if own.speaks_5 else "3.1.1")
        return
    mqtt = config.mqtt
    # Its name or address is not for a report that others read.
    where = "on this machine" if mqtt.address.host in _HERE else "elsewhere"
    yield Broker(
        mqtt.address,
        f"a given one {where}",
        mqtt.protocol,
        mqtt.base_topic,
        mqtt.user,
        mqtt.read_password(),
        mqtt.tls_files,
    )


def _no_reload() -> Reload:
    raise ConfigError("a benchmark does not reload its configuration")


def _stages(heard: Sequence[tuple[Told, int]]) -> dict[StageName, Stage]:
    """Return the stages between a frame's timestamp and its message's arrival, in their order.

    `capture` is all before the model begins but preprocessing, in whatever thread that is done: the
    camera's own delay, halving, waking up.
    """
    spans: dict[StageName, list[int]] = {
        "capture": [told.seen_ns - told.frame_ns - told.preprocess_ns for told, _ in heard],
        "preprocess": [told.preprocess_ns for told, _ in heard],
        "invoke": [told.invoke_ns for told, _ in heard],
        "decode": [told.decode_ns for told, _ in heard],
        "handover": [
            told.told_from_ns - told.seen_ns - told.invoke_ns - told.decode_ns for told, _ in heard
        ],
        "track": [told.track_ns for told, _ in heard],
        "smooth": [told.smooth_ns for told, _ in heard],
        "publish": [told.publish_ns for told, _ in heard],
        # May be below 0: a message can arrive before the thread that published it goes on.
        "transport": [arrived_ns - told.told_to_ns for told, arrived_ns in heard],
    }
    means = {name: max(0.0, float(np.mean(span))) for name, span in spans.items()}
    whole = sum(means.values()) or 1.0
    return {
        name: Stage(p50=in_ms(max(0.0, _median(span))), share=round(means[name] / whole, 4))
        for name, span in spans.items()
    }


def _percentiles(times_ns: Sequence[int]) -> Percentiles:
    p50, p95, p99 = np.percentile(np.array(times_ns, np.float64), (50, 95, 99))
    return Percentiles(p50=in_ms(p50), p95=in_ms(p95), p99=in_ms(p99))


def _bare_invoke(bare: Sequence[Bare]) -> BareInvoke:
    together = _percentiles([took for each in bare for took in each.times_ns])
    return BareInvoke(
        p50_ms=together.p50,
        p99_ms=together.p99,
        fps=round(_median([each.rate for each in bare]), 2),
    )


def _threads(config: Config) -> int:
    threads = config.inference.threads
    return default_threads() if threads == "auto" else threads


def _engine(config: Config, model: LoadedModel) -> str:
    return EDGETPU if model.device != CPU else load_runtime(config.inference.runtime)[0]


def _doubts(row: PipelineRow) -> Iterator[str]:
    """Say why a row's figures may not be those of another day."""
    rounds = row.rounds
    for name, values in (
        ("ratios to the bare loop", rounds.ratios),
        ("latencies", rounds.latency_p50_ms),
        ("bare invokes", rounds.bare_invoke_p50_ms),
        ("bare invokes at the source's pace", rounds.paced_invoke_p50_ms),
    ):
        if values and (spread := spread_percent(values)) > MAX_SPREAD_PERCENT:
            yield spread_doubt(name, spread)
    if row.lost:
        yield f"{row.lost} messages did not reach the subscriber"


def _median(values: Sequence[float]) -> float:
    return float(np.median(np.array(values)))
