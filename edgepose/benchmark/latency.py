"""How long an invoke takes: rounds over all rows, taken in turn, so that heat is nobody's fault.

A shared or throttling machine is slow for a while and then fast again. Measuring one row after the
other gives one of them the slow while; here each row has a short turn in every round, the order
shuffled anew, and what the rounds of a row disagree on is reported with it.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edgepose.benchmark.backends import Engine
from edgepose.benchmark.reference_table import COUNTERPARTS
from edgepose.benchmark.results import LatencyRow, Method, Rounds, Statistics
from edgepose.datatypes import Frame, InputSpec, TensorSpec
from edgepose.errors import EdgeposeError, ModelFileError, ModelShapeError
from edgepose.imaging.preprocess import preprocess
from edgepose.monitoring import host
from edgepose.pose_models._tensors import padded_region
from edgepose.protocols import Interpreter, Tensor
from edgepose.registry.registry import Device, ModelFile, device_of, sha256

ROUNDS: Final = 5
MIN_ROUNDS: Final = 3
MAX_ROUNDS: Final = 15
LONGEST_TURN_S: Final = 0.4
"""What a turn of a slow row may take before it has its share of runs."""
MAX_SPREAD_PERCENT: Final = 5.0
MAX_OTHERS_PERCENT: Final = 10.0
LOW_FREQUENCY: Final = 0.97
"""Of what the governor may use: below it the clock was held back."""
SEED: Final = 0

_FEW_RUNS: Final = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure: every row at least `min_runs` runs and `min_seconds` seconds.

    `max_seconds` is what the whole table may take; then rows stay short of it, and say so, but
    none has fewer than MIN_ROUNDS rounds.
    """

    min_runs: int = 50
    min_seconds: float = 1.0
    max_seconds: float = 150.0

    @property
    def warm_up_seconds(self) -> float:
        """Seconds of warming up in a row's first turn."""
        return self.min_seconds / 2

    @property
    def later_warm_up_seconds(self) -> float:
        """Seconds of warming up in its other turns, for caches and clock."""
        return self.min_seconds / 10

    @property
    def turn_runs(self) -> int:
        """Runs of one row in one round."""
        return -(-self.min_runs // ROUNDS)

    @property
    def turn_seconds(self) -> float:
        """Seconds of one row in one round."""
        return self.min_seconds / ROUNDS


@dataclass(frozen=True, slots=True)
class Instruments:
    """The clocks and counters that measuring looks at, so that a test can bring its own."""

    clock_ns: Callable[[], int] = time.perf_counter_ns
    others_cpu_s: Callable[[], float | None] = lambda: _others_cpu_s()
    frequency: Callable[[], tuple[float, float] | None] = lambda: _frequency()
    throttling: Callable[[], tuple[str, ...]] = lambda: _throttling()


@dataclass(slots=True)
class Row:
    """One model on one engine with one number of threads, and all that was measured of it.

    Times in nanoseconds; one entry of `loads`, `firsts` and `turns` a round.
    """

    model: ModelFile
    engine: Engine
    threads: int
    loads: list[int] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    turns: list[list[int]] = field(default_factory=list)
    wall_ns: int = 0
    others_s: float | None = 0.0
    frequencies: list[tuple[float, float]] = field(default_factory=list)
    throttling: set[str] = field(default_factory=set)
    input: TensorSpec | None = None
    delegate: str | None = None
    failure: EdgeposeError | None = None

    @property
    def runs(self) -> int:
        """All runs of all rounds."""
        return sum(map(len, self.turns))

    @property
    def medians_ns(self) -> list[float]:
        """The median of each round."""
        return [float(np.median(turn)) for turn in self.turns]

    @property
    def spread_percent(self) -> float:
        """How far its rounds' medians lie apart."""
        return spread_percent(self.medians_ns)

    def enough(self, plan: Plan) -> bool:
        """Whether it has all its runs and seconds, and its rounds agree."""
        return (
            len(self.turns) >= ROUNDS
            and self.runs >= plan.min_runs
            and sum(map(sum, self.turns)) >= plan.min_seconds * 1e9
            and self.spread_percent <= MAX_SPREAD_PERCENT
        )


def rows_of(
    models: Sequence[ModelFile], engines: Sequence[Engine], threads: Sequence[int]
) -> list[Row]:
    """Return every combination that makes sense: compiled models on an Edge TPU, others on a CPU.

    A file that cannot be understood is tried everywhere, which says what is wrong with it.
    """
    devices = {model.path: _device(model) for model in models}
    return [
        Row(model, engine, count)
        for engine in engines
        for count in (threads if engine.threads_matter else (1,))
        for model in models
        if devices[model.path] in (None, engine.device)
    ]


def measure(
    rows: Sequence[Row],
    plan: Plan,
    *,
    picture: Frame | None = None,
    instruments: Instruments | None = None,
    on_progress: Callable[[float, str], None] = lambda _share, _text: None,
) -> None:
    """Measure all rows, round after round; what fails to run keeps its reason as `failure`.

    `picture` is what the models see instead of random numbers; `on_progress` gets a share of the
    whole, 0..1, and what is being done.
    """
    instruments = instruments or Instruments()
    shuffled = np.random.default_rng(SEED)
    started_ns = instruments.clock_ns()
    for number in range(MAX_ROUNDS):
        for index in shuffled.permutation(len(rows)).tolist():
            row = rows[index]
            if row.failure is not None or row.enough(plan):
                continue
            spent_s = (instruments.clock_ns() - started_ns) / 1e9
            if number >= MIN_ROUNDS and spent_s >= plan.max_seconds:
                continue
            on_progress(_share(rows, plan, spent_s), f"round {number + 1}: {row.model.name}")
            try:
                _take_turn(row, plan, picture, instruments)
            except EdgeposeError as error:
                row.failure = error
    on_progress(1.0, "done")


def latency_rows(rows: Sequence[Row], plan: Plan) -> tuple[LatencyRow, ...]:
    """Return what was measured, beside what was published, as the document has it."""
    hashes = {path: sha256(path) for path in {row.model.path for row in rows}}
    return tuple(_latency_row(row, plan, hashes[row.model.path]) for row in rows)


def _latency_row(row: Row, plan: Plan, file_hash: str) -> LatencyRow:
    entry = row.model.entry
    counterpart = COUNTERPARTS.get(row.model.name)
    spec = row.input
    latency = rounds = ratio = None
    if row.turns:
        latency = statistics_of([run for turn in row.turns for run in turn])
        rounds = Rounds(
            p50_ms=tuple(in_ms(median) for median in row.medians_ns),
            runs=tuple(map(len, row.turns)),
            spread_percent=round(row.spread_percent, 2),
            load_ms=in_ms(float(np.median(row.loads))),
            first_ms=in_ms(float(np.median(row.firsts))),
        )
        if counterpart is not None and counterpart.comparable:
            ratio = round(latency.p50 / counterpart.row.pi4_cpu_ms, 4)
    return LatencyRow(
        model=row.model.name,
        bytes=row.model.path.stat().st_size,
        sha256=file_hash,
        input_size_wh=None if spec is None else (spec.shape[2], spec.shape[1]),
        input_dtype=None if spec is None else spec.dtype.name,
        precision=None if entry is None else entry.precision,
        engine=row.engine.name,
        device=row.engine.device,
        runtime=row.engine.runtime,
        runtime_version=row.engine.runtime_version,
        delegate=row.delegate,
        threads=row.threads,
        latency_ms=latency,
        rounds=rounds,
        not_run=None if row.failure is None else str(row.failure),
        doubtful=_doubts(row, plan),
        others_percent=_others_percent(row),
        frequency_mhz=min((now for now, _ in row.frequencies), default=None),
        published=None if counterpart is None else counterpart.row,
        published_difference=None if counterpart is None else counterpart.difference,
        ratio_to_published_pi4=ratio,
    )


def statistics_of(times_ns: Sequence[int]) -> Statistics:
    """Return the statistics of runs: interpolated percentiles, the sample's deviation."""
    values = np.array(times_ns, np.float64)
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return Statistics(
        min=in_ms(values.min()),
        mean=in_ms(values.mean()),
        p50=in_ms(p50),
        p95=in_ms(p95),
        p99=in_ms(p99),
        max=in_ms(values.max()),
        standard_deviation=in_ms(values.std(ddof=1) if len(values) > 1 else 0.0),
    )


def spread_percent(rounds: Sequence[float]) -> float:
    """Return the middle half of what rounds found, in % of their median.

    Not their range: one round of five may be disturbed without moving the median.
    """
    low, middle, high = np.percentile(rounds, (25, 50, 75))
    return float((high - low) / middle * 100) if middle else 0.0


def spread_doubt(what: str, percent: float) -> str:
    """Return the sentence that says what spreads too wide to trust."""
    return (
        f"its rounds' {what} spread over {percent:.0f}% (up to {MAX_SPREAD_PERCENT:g}% can be "
        "trusted)"
    )


def method(plan: Plan, picture: str | None) -> Method:
    """Return how `measure` measures, for the document."""
    return Method(
        min_runs=plan.min_runs,
        min_seconds=plan.min_seconds,
        rounds=ROUNDS,
        warm_up_seconds=plan.warm_up_seconds,
        max_seconds=plan.max_seconds,
        max_spread_percent=MAX_SPREAD_PERCENT,
        input=picture or "random numbers over the whole range of the input",
        seed=SEED,
        timer="perf_counter_ns",
        timed="copying the input in, invoke, copying all outputs out",
        order="every row has one turn a round, in an order shuffled anew for each round",
        memory="one model is loaded at a time, and anew for each of its turns",
        garbage_collector="off while runs are timed",
    )


def input_tensor(spec: TensorSpec, picture: Frame | None, name: str) -> Tensor:
    """Return what a model sees: random numbers from a fixed seed, or a picture padded to its input.

    Floats are -1 to 1, as PoseNet takes them. Raises ModelShapeError for an input that is no
    picture.
    """
    if len(spec.shape) != 4 or spec.shape[0] != 1 or spec.shape[3] != 3 or min(spec.shape) < 1:
        raise ModelShapeError(
            f"{name}: expected an input of shape (1, height, width, 3), got {spec.shape}; this is "
            "no pose model that edgepose knows, or its size must be set"
        )
    is_float, is_int8 = np.issubdtype(spec.dtype, np.floating), spec.dtype == np.int8
    if picture is not None:
        size_wh = (spec.shape[2], spec.shape[1])
        scale, offset = (1 / 127.5, -1.0) if is_float else (1.0, -128.0 * is_int8)
        region = padded_region(picture.size_wh, size_wh, centred=True)
        return preprocess(picture.image, region, InputSpec(size_wh, spec.dtype, scale, offset))[0]
    generator = np.random.default_rng(SEED)
    if is_float:
        return generator.uniform(-1, 1, spec.shape).astype(spec.dtype)
    low, high = (-128, 128) if is_int8 else (0, 256)
    return generator.integers(low, high, spec.shape).astype(spec.dtype)


def _device(model: ModelFile) -> Device | None:
    try:
        return device_of(model)
    except ModelFileError:
        return None


def _take_turn(row: Row, plan: Plan, picture: Frame | None, instruments: Instruments) -> None:
    """Load a row's model, warm it up, time its runs of one round, and free it."""
    clock_ns = instruments.clock_ns
    entry = row.model.entry
    before = clock_ns()
    interpreter = row.engine.load(
        row.model.path, row.threads, None if entry is None else entry.input_size_wh
    )
    load_ns = clock_ns() - before
    try:
        row.input = interpreter.input
        row.delegate = row.engine.delegate_of(interpreter)
        tensor = input_tensor(interpreter.input, picture, str(row.model.path))
        first_ns, _ = _timed(interpreter, tensor, clock_ns)
        warm_up_s = plan.later_warm_up_seconds if row.turns else plan.warm_up_seconds
        _warm_up(interpreter, tensor, warm_up_s, clock_ns)
        others_s = instruments.others_cpu_s()
        started_ns = clock_ns()
        with _garbage_collector_off():
            turn = _timed_runs(interpreter, tensor, plan, clock_ns)
        # At once: an idle core slows down within milliseconds.
        frequency = instruments.frequency()
        row.wall_ns += clock_ns() - started_ns
        others_after_s = instruments.others_cpu_s()
        row.throttling.update(instruments.throttling())
    finally:
        interpreter.close()
    row.loads.append(load_ns)
    row.firsts.append(first_ns)
    row.turns.append(turn)
    if frequency is not None:
        row.frequencies.append(frequency)
    if row.others_s is not None:
        row.others_s = (
            None
            if others_s is None or others_after_s is None
            else row.others_s + max(0.0, others_after_s - others_s)
        )


def _timed(
    interpreter: Interpreter, tensor: Tensor, clock_ns: Callable[[], int]
) -> tuple[int, int]:
    before = clock_ns()
    interpreter.invoke(tensor)
    after = clock_ns()
    return after - before, after


def _warm_up(
    interpreter: Interpreter, tensor: Tensor, seconds: float, clock_ns: Callable[[], int]
) -> None:
    # The first invoke has been one run already, all that a slow model gets.
    end_ns = clock_ns() + seconds * 1e9
    took_ns = 0
    while clock_ns() + took_ns < end_ns:
        took_ns, _ = _timed(interpreter, tensor, clock_ns)


def _timed_runs(
    interpreter: Interpreter, tensor: Tensor, plan: Plan, clock_ns: Callable[[], int]
) -> list[int]:
    turn: list[int] = []
    start_ns = clock_ns()
    enough_ns = start_ns + plan.turn_seconds * 1e9
    longest_ns = max(enough_ns, start_ns + LONGEST_TURN_S * 1e9)
    while True:
        took_ns, now_ns = _timed(interpreter, tensor, clock_ns)
        turn.append(took_ns)
        if now_ns >= longest_ns or (now_ns >= enough_ns and len(turn) >= plan.turn_runs):
            return turn


@contextmanager
def _garbage_collector_off() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _share(rows: Sequence[Row], plan: Plan, spent_s: float) -> float:
    """Return how much is done: by rounds at first, by the time allowed when that is shorter."""
    counting = [row for row in rows if row.failure is None]
    done = sum(1.0 if row.enough(plan) else min(len(row.turns) / ROUNDS, 0.95) for row in counting)
    by_rounds = done / len(counting) if counting else 1.0
    if all(len(row.turns) >= MIN_ROUNDS for row in counting):
        return max(by_rounds, min(spent_s / plan.max_seconds, 1.0))
    return by_rounds


def _doubts(row: Row, plan: Plan) -> tuple[str, ...]:
    """Return why a row's figures may not be those of another day."""
    if not row.turns:
        return ()
    doubts = []
    if row.spread_percent > MAX_SPREAD_PERCENT:
        doubts.append(spread_doubt("medians", row.spread_percent))
    others = _others_percent(row)
    if others is not None and others > MAX_OTHERS_PERCENT:
        doubts.append(f"other processes used {others:.0f}% of a core meanwhile")
    slow = [(now, limit) for now, limit in row.frequencies if now < LOW_FREQUENCY * limit]
    if slow:
        now, limit = min(slow)
        doubts.append(f"the clock was at {now:.0f} of {limit:.0f} MHz after a round")
    if row.throttling:
        flags = ", ".join(sorted(row.throttling)).replace("_", " ")
        doubts.append(f"the firmware said after a round: {flags}")
    if row.runs < min(plan.min_runs, _FEW_RUNS):
        doubts.append(f"only {row.runs} runs in the time allowed")
    return tuple(doubts)


def _others_percent(row: Row) -> float | None:
    # The Edge TPU's process is ours, but the counters do not know.
    if row.others_s is None or not row.wall_ns or row.engine.device != "cpu":
        return None
    return round(row.others_s / (row.wall_ns / 1e9) * 100, 1)


def _others_cpu_s() -> float | None:
    """Return the CPU seconds of everybody else, a hypervisor's share included."""
    times = host.cpu_times()
    if times is None:
        return None
    own = os.times()
    return times.busy_s + times.stolen_s - own.user - own.system


def _frequency() -> tuple[float, float] | None:
    """Return the clock of the fastest cores and its limit, in MHz."""
    known = [
        (group.mhz, group.limit_mhz)
        for group in host.cpu_frequencies()
        if group.mhz is not None and group.limit_mhz is not None
    ]
    return max(known, key=lambda pair: pair[1], default=None)


def _throttling() -> tuple[str, ...]:
    """Return what holds the cores back at this moment; nobody may tell it later.

    Linux's voltage monitor resets every two seconds what the firmware has seen since the start.
    """
    flags = host.throttling(ask_firmware=host.vcgencmd) or ()
    return tuple(flag for flag in flags if not flag.endswith(host.OCCURRED))


def in_ms(nanoseconds: float) -> float:
    """Return milliseconds with a tenth of a microsecond's resolution."""
    return round(float(nanoseconds) / 1e6, 4)
