"""Latency of `invoke`, measured in rounds over all rows in an order shuffled for each round.

A shared or throttling machine is slow for a while and then fast again. If one row were measured
after the other, only one of them would be slow; here each row has a short turn in every round, so
that throttling and background load affect all of them equally, and the spread of the rounds is
reported with each row.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, SupportsFloat

import numpy as np
from msgspec.structs import asdict
from numpy.typing import NDArray

from edgepose.benchmark.backends import Backend, delegate_of
from edgepose.benchmark.environment import LOW_CLOCK
from edgepose.benchmark.reference_table import COUNTERPARTS
from edgepose.benchmark.results import LatencyRow, Method, Percentiles, Rounds, Statistics
from edgepose.datatypes import TensorSpec
from edgepose.errors import EdgeposeError, ModelShapeError
from edgepose.monitoring import host
from edgepose.protocols import Interpreter, Tensor
from edgepose.registry.registry import ModelFile, device_of, sha256

ROUNDS: Final = 5
MIN_ROUNDS: Final = 3
MAX_ROUNDS: Final = 15
LONGEST_TURN_S: Final = 0.4
"""Time limit of a turn of a slow row, even if it has not had its number of runs."""
MAX_IQR_PERCENT: Final = 5.0
MAX_OTHER_CPU_PERCENT: Final = 10.0
SEED: Final = 0

_FEW_RUNS: Final = 10

Durations = Sequence[int] | NDArray[np.int64]
"""In nanoseconds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure: every row at least `min_runs` runs and `min_seconds` seconds.

    `max_seconds` limits the whole table; rows may then have fewer runs, and are marked, but none
    has fewer than MIN_ROUNDS rounds.
    """

    min_runs: int = 50
    min_seconds: float = 1.0
    max_seconds: float = 150.0

    @property
    def warm_up_seconds(self) -> float:
        """Duration of the warm-up in a row's first turn; in later turns it is a fifth of it."""
        return self.min_seconds / 2


class Instruments:
    """The clocks and counters that are read while measuring; tests replace them."""

    clock_ns: Callable[[], int] = staticmethod(time.perf_counter_ns)

    def other_cpu_s(self) -> float | None:
        """Return the CPU seconds of all other processes, and those stolen by a hypervisor."""
        return host.other_cpu_time_s()

    def frequency_mhz(self) -> tuple[float, float] | None:
        """Return the clock of the fastest cores and its limit."""
        known = [
            (group.mhz, group.limit_mhz)
            for group in host.cpu_frequencies()
            if group.mhz is not None and group.limit_mhz is not None
        ]
        return max(known, key=lambda pair: pair[1], default=None)

    def throttling(self) -> tuple[str, ...]:
        """Return what throttles the cores now.

        Linux's voltage monitor resets the flags of what happened since the start every two seconds.
        """
        flags = host.throttling() or ()
        return tuple(flag for flag in flags if not flag.endswith(host.OCCURRED))


@dataclass(frozen=True, slots=True)
class Round:
    """What one turn of a row measured.

    `times_ns` are its runs; `other_cpu_percent` is None if unknown; `frequency_mhz` is the clock of
    the fastest cores and its limit.
    """

    load_ns: int
    first_ns: int
    times_ns: Sequence[int]
    other_cpu_percent: float | None
    frequency_mhz: tuple[float, float] | None
    throttling: tuple[str, ...]


@dataclass(slots=True)
class Measurement:
    """One model on one backend with one number of threads, and its rounds."""

    model: ModelFile
    backend: Backend
    threads: int
    rounds: list[Round] = field(default_factory=list)
    input: TensorSpec | None = None
    delegate: str | None = None
    failure: EdgeposeError | None = None

    @property
    def times_ns(self) -> list[int]:
        """The runs of all rounds."""
        return [took_ns for each in self.rounds for took_ns in each.times_ns]

    @property
    def medians_ns(self) -> list[float]:
        """Median of each round."""
        return [float(np.median(each.times_ns)) for each in self.rounds]

    def done(self, plan: Plan) -> bool:
        """Whether it failed, or has all its runs and seconds and its rounds agree."""
        times_ns = self.times_ns
        return self.failure is not None or (
            len(self.rounds) >= ROUNDS
            and len(times_ns) >= plan.min_runs
            and sum(times_ns) >= plan.min_seconds * 1e9
            and iqr_percent(self.medians_ns) <= MAX_IQR_PERCENT
        )

    def row(self, plan: Plan, file_hash: str) -> LatencyRow:
        """Return the result, with the published figures of the model."""
        entry, spec = self.model.entry, self.input
        counterpart = COUNTERPARTS.get(self.model.name)
        latency = rounds = ratio = None
        if self.rounds:
            latency = statistics_of(self.times_ns)
            rounds = Rounds(
                p50_ms=tuple(map(in_ms, self.medians_ns)),
                runs=tuple(len(each.times_ns) for each in self.rounds),
                iqr_percent=round(iqr_percent(self.medians_ns), 2),
                load_ms=in_ms(np.median([each.load_ns for each in self.rounds])),
                first_ms=in_ms(np.median([each.first_ns for each in self.rounds])),
            )
            if counterpart is not None and counterpart.comparable:
                ratio = round(latency.p50 / counterpart.row.pi4_cpu_ms, 4)
        return LatencyRow(
            model=self.model.name,
            bytes=self.model.path.stat().st_size,
            sha256=file_hash,
            input_size_wh=None if spec is None else (spec.shape[2], spec.shape[1]),
            input_dtype=None if spec is None else spec.dtype.name,
            precision=None if entry is None else entry.precision,
            backend=self.backend.name,
            device=self.backend.device,
            runtime=self.backend.runtime,
            runtime_version=self.backend.runtime_version,
            delegate=self.delegate,
            threads=self.threads,
            latency_ms=latency,
            rounds=rounds,
            not_run=None if self.failure is None else str(self.failure),
            unstable=tuple(self._unstable(plan)) if self.rounds else (),
            other_cpu_percent=self._other_cpu_percent(),
            frequency_mhz=min((now for now, _ in self._frequencies_mhz()), default=None),
            published=None if counterpart is None else counterpart.row,
            published_difference=None if counterpart is None else counterpart.difference,
            ratio_to_published_pi4=ratio,
        )

    def _unstable(self, plan: Plan) -> Iterator[str]:
        yield from spread_warnings("medians", self.medians_ns)
        other = self._other_cpu_percent()
        if other is not None and other > MAX_OTHER_CPU_PERCENT:
            yield f"other processes used {other:.0f}% of a core meanwhile"
        slow = [(now, limit) for now, limit in self._frequencies_mhz() if now < LOW_CLOCK * limit]
        if slow:
            now, limit = min(slow)
            yield f"the clock was at {now:.0f} of {limit:.0f} MHz after a round"
        flags = sorted({flag for each in self.rounds for flag in each.throttling})
        if flags:
            yield f"the firmware reported after a round: {', '.join(flags).replace('_', ' ')}"
        if len(self.times_ns) < min(plan.min_runs, _FEW_RUNS):
            yield f"only {len(self.times_ns)} runs in the time limit"

    def _frequencies_mhz(self) -> list[tuple[float, float]]:
        return [each.frequency_mhz for each in self.rounds if each.frequency_mhz is not None]

    def _other_cpu_percent(self) -> float | None:
        known = [
            each.other_cpu_percent for each in self.rounds if each.other_cpu_percent is not None
        ]
        return round(sum(known) / len(known), 1) if known else None


def measurements_of(
    models: Sequence[ModelFile], backends: Sequence[Backend], threads: Sequence[int]
) -> list[Measurement]:
    """Return the possible combinations: compiled models on an Edge TPU, others on the CPU.

    An Edge TPU has no threads to choose.
    """
    devices = [device_of(model) for model in models]
    return [
        Measurement(model, backend, count)
        for backend in backends
        for count in (threads if backend.device == "cpu" else (1,))
        for model, device in zip(models, devices, strict=True)
        if device == backend.device
    ]


def measure(
    rows: Sequence[Measurement],
    plan: Plan,
    *,
    instruments: Instruments | None = None,
    on_progress: Callable[[float, str], None] = lambda _share, _text: None,
) -> tuple[LatencyRow, ...]:
    """Measure all rows, round after round, and return the results.

    `on_progress` gets the share that is done, 0..1, and what is being done. A row that fails keeps
    the reason as `failure`.
    """
    instruments = instruments or Instruments()
    generator = np.random.default_rng(SEED)
    started_ns = instruments.clock_ns()
    for number in range(MAX_ROUNDS):
        for index in generator.permutation(len(rows)).tolist():
            row = rows[index]
            spent_s = (instruments.clock_ns() - started_ns) / 1e9
            if row.done(plan) or (number >= MIN_ROUNDS and spent_s >= plan.max_seconds):
                continue
            share = sum(len(each.rounds) for each in rows) / (ROUNDS * len(rows))
            on_progress(min(share, 1.0), f"round {number + 1}: {row.model.name}")
            try:
                row.rounds.append(_measure_round(row, plan, instruments))
            except EdgeposeError as error:
                row.failure = error
    on_progress(1.0, "done")
    hashes = {path: sha256(path) for path in {row.model.path for row in rows}}
    return tuple(row.row(plan, hashes[row.model.path]) for row in rows)


def statistics_of(times_ns: Sequence[int]) -> Statistics:
    """Return statistics of runs: interpolated percentiles, standard deviation of the sample."""
    values = np.array(times_ns, np.float64)
    return Statistics(
        **asdict(percentiles_of(times_ns)),
        min=in_ms(values.min()),
        mean=in_ms(values.mean()),
        max=in_ms(values.max()),
        standard_deviation=in_ms(values.std(ddof=1) if len(values) > 1 else 0.0),
    )


def percentiles_of(times_ns: Durations) -> Percentiles:
    """Return interpolated percentiles of durations."""
    p50, p95, p99 = map(in_ms, np.percentile(times_ns, (50, 95, 99)))
    return Percentiles(p50=p50, p95=p95, p99=p99)


def iqr_percent(rounds: Sequence[float]) -> float:
    """Return the interquartile range of the figures of rounds, in % of their median.

    Not their range: one disturbed round of five may leave the median unchanged.
    """
    low, middle, high = np.percentile(rounds, (25, 50, 75))
    return float((high - low) / middle * 100) if middle else 0.0


def spread_warnings(what: str, rounds: Sequence[float]) -> Iterator[str]:
    """Yield a warning if the figures of rounds differ too much."""
    if rounds and (percent := iqr_percent(rounds)) > MAX_IQR_PERCENT:
        yield (
            f"its rounds' {what} have an interquartile range of {percent:.0f}% (up to "
            f"{MAX_IQR_PERCENT:g}% is stable)"
        )


def in_ms(nanoseconds: SupportsFloat) -> float:
    """Return milliseconds with a resolution of 0.1 microseconds."""
    return round(float(nanoseconds) / 1e6, 4)


def method(plan: Plan) -> Method:
    """Return how `measure` measures."""
    return Method(
        min_runs=plan.min_runs,
        min_seconds=plan.min_seconds,
        rounds=ROUNDS,
        warm_up_seconds=plan.warm_up_seconds,
        max_seconds=plan.max_seconds,
        max_iqr_percent=MAX_IQR_PERCENT,
        seed=SEED,
    )


def input_tensor(spec: TensorSpec, name: str) -> Tensor:
    """Return the input of a model: random numbers from a fixed seed, over its whole range.

    Floats are -1 to 1, as PoseNet takes them. Raises ModelShapeError for an input that is no image.
    """
    if len(spec.shape) != 4 or spec.shape[0] != 1 or spec.shape[3] != 3 or min(spec.shape) < 1:
        raise ModelShapeError(
            f"{name}: expected an input of shape (1, height, width, 3), got {spec.shape}; this is "
            "no pose model that edgepose supports, or its input size must be configured"
        )
    generator = np.random.default_rng(SEED)
    if np.issubdtype(spec.dtype, np.floating):
        return generator.uniform(-1, 1, spec.shape).astype(spec.dtype)
    low = -128 if spec.dtype == np.int8 else 0
    return generator.integers(low, low + 256, spec.shape).astype(spec.dtype)


def timed(interpreter: Interpreter, tensor: Tensor, clock_ns: Callable[[], int]) -> int:
    """Invoke once and return the duration."""
    before_ns = clock_ns()
    interpreter.invoke(tensor)
    return clock_ns() - before_ns


def _measure_round(row: Measurement, plan: Plan, instruments: Instruments) -> Round:
    """Load a row's model, warm it up, time its runs of one round, and close it."""
    clock_ns, entry = instruments.clock_ns, row.model.entry
    before_ns = clock_ns()
    interpreter = row.backend.load(
        row.model.path, row.threads, None if entry is None else entry.input_size_wh
    )
    load_ns = clock_ns() - before_ns
    try:
        row.input, row.delegate = interpreter.input, delegate_of(interpreter)
        tensor = input_tensor(interpreter.input, str(row.model.path))
        first_ns = timed(interpreter, tensor, clock_ns)
        took_ns = 0
        warm_ns = clock_ns() + plan.warm_up_seconds / (5 if row.rounds else 1) * 1e9
        while clock_ns() + took_ns < warm_ns:
            took_ns = timed(interpreter, tensor, clock_ns)
        other_before_s, started_ns = instruments.other_cpu_s(), clock_ns()
        gc.collect()
        gc.disable()
        times_ns = _timed_runs(interpreter, tensor, plan, clock_ns)
        # At once: an idle core slows down within milliseconds.
        frequency_mhz = instruments.frequency_mhz()
        wall_s, other_after_s = (clock_ns() - started_ns) / 1e9, instruments.other_cpu_s()
        throttling = instruments.throttling()
    finally:
        gc.enable()
        interpreter.close()
    # The counters take the Edge TPU's process, which is ours, for another one.
    if other_before_s is None or other_after_s is None or row.backend.device != "cpu":
        other_percent = None
    else:
        other_percent = max(0.0, other_after_s - other_before_s) / wall_s * 100
    return Round(load_ns, first_ns, times_ns, other_percent, frequency_mhz, throttling)


def _timed_runs(
    interpreter: Interpreter, tensor: Tensor, plan: Plan, clock_ns: Callable[[], int]
) -> list[int]:
    """Return the durations of one turn: one run at least, else a round's part of the plan."""
    enough_ns = plan.min_seconds / ROUNDS * 1e9
    longest_ns = max(enough_ns, LONGEST_TURN_S * 1e9)
    times_ns: list[int] = []
    started_ns, spent_ns = clock_ns(), 0
    while (
        not times_ns
        or spent_ns < enough_ns
        or (spent_ns < longest_ns and len(times_ns) < plan.min_runs / ROUNDS)
    ):
        times_ns.append(timed(interpreter, tensor, clock_ns))
        spent_ns = clock_ns() - started_ns
    return times_ns
