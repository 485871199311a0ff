"""The latency benchmark on a fake clock reports the durations that were set."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from edgepose.benchmark import latency
from edgepose.benchmark.backends import Backend
from edgepose.benchmark.latency import Measurement, Plan
from edgepose.benchmark.results import LatencyRow
from edgepose.datatypes import TensorSpec
from edgepose.errors import AcceleratorError, ModelFileError, ModelShapeError
from edgepose.monitoring import host
from edgepose.registry.registry import ModelFile
from tests.fakes.benchmark_backend import MS, Bench
from tests.machines import raspberry_pi_4

PLAN = Plan(min_runs=50, min_seconds=0.0)


@pytest.fixture
def models(tmp_path: Path) -> list[ModelFile]:
    files = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(b"x" * 1000)
        files.append(ModelFile(name, path))
    return files


def measured(
    bench: Bench, models: list[ModelFile], plan: Plan = PLAN, **instruments: object
) -> tuple[list[Measurement], list[LatencyRow]]:
    rows = latency.measurements_of(models, [bench.backend()], (1,))
    results = latency.measure(rows, plan, instruments=bench.instruments(**instruments))  # type: ignore[arg-type]
    return rows, list(results)


def test_measure_reports_set_durations(models: list[ModelFile]) -> None:
    def cost(_model: str, _load: int, invoke: int) -> float:
        return 50.0 if invoke == 0 else 10.0 + 10.0 * (invoke % 10 == 5) + 20.0 * (invoke == 10)

    bench = Bench(cost, load_ms=30.0)
    _, (row,) = measured(bench, models[:1])
    assert row.latency_ms is not None
    assert row.rounds is not None
    # Five rounds of ten runs: eight of 10 ms, one of 20 and one of 30.
    runs = [10.0] * 40 + [20.0] * 5 + [30.0] * 5
    assert row.rounds.runs == (10,) * 5
    assert (row.latency_ms.min, row.latency_ms.max) == (10.0, 30.0)
    assert row.latency_ms.mean == pytest.approx(13.0)
    assert row.latency_ms.p50 == 10.0
    assert row.latency_ms.p95 == pytest.approx(float(np.percentile(runs, 95)))
    assert row.latency_ms.p99 == pytest.approx(float(np.percentile(runs, 99)))
    assert row.latency_ms.standard_deviation == pytest.approx(float(np.std(runs, ddof=1)), abs=1e-4)
    # Neither loading nor the first inference nor warming up counts as a run.
    assert (row.rounds.load_ms, row.rounds.first_ms) == (30.0, 50.0)
    assert (row.rounds.p50_ms, row.rounds.iqr_percent) == ((10.0,) * 5, 0.0)
    assert row.unstable == ()
    assert (row.bytes, row.threads, row.delegate) == (1000, 1, None)


def test_measure_excludes_warm_up(models: list[ModelFile]) -> None:
    """A model that is slow for its first 0.5 s is measured at the speed that it keeps."""
    bench = Bench(lambda _m, load, invoke: 40.0 if load == 1 and invoke <= 12 else 10.0)
    _, (row,) = measured(bench, models[:1], Plan(min_runs=50, min_seconds=1.0))
    assert row.latency_ms is not None
    assert row.latency_ms.max == 10.0


def test_measure_slowdown_affects_all_rows_equally(models: list[ModelFile]) -> None:
    """One after the other, the second of two equal models would come out twice as slow."""
    bench = Bench(lambda *_: 10.0 if bench.now_ns < 3_400_000_000 else 20.0)
    _, (a, b) = measured(bench, models, Plan(min_runs=100, min_seconds=1.0, max_seconds=4.0))
    assert a.latency_ms is not None
    assert b.latency_ms is not None
    # Only the round in which it happens is shared unevenly.
    assert a.latency_ms.mean == pytest.approx(b.latency_ms.mean, rel=0.35)
    assert 12.0 < a.latency_ms.mean < 18.0
    assert any("medians have an interquartile range" in reason for reason in a.unstable)


def test_measure_one_disturbed_round_is_stable(models: list[ModelFile]) -> None:
    bench = Bench(lambda _m, load, _i: 25.0 if load == 2 else 10.0)
    _, (row,) = measured(bench, models[:1])
    assert row.latency_ms is not None
    assert row.rounds is not None
    assert row.rounds.p50_ms == (10.0, 25.0, 10.0, 10.0, 10.0)
    assert row.latency_ms.p50 == 10.0
    assert row.unstable == ()


def test_measure_adds_rounds_if_they_disagree(models: list[ModelFile]) -> None:
    bench = Bench(lambda model, load, _i: 10.0 + 5.0 * (model == "a" and load % 2))
    rows, (a, b) = measured(bench, models)
    assert (len(rows[0].rounds), len(rows[1].rounds)) == (latency.MAX_ROUNDS, latency.ROUNDS)
    assert a.unstable == (
        "its rounds' medians have an interquartile range of 33% (up to 5% is stable)",
    )
    assert b.unstable == ()


def test_measure_row_that_settles_is_stable(models: list[ModelFile]) -> None:
    bench = Bench(lambda _m, load, _i: 20.0 if load <= 2 else 10.0)
    rows, (row,) = measured(bench, models[:1])
    assert latency.ROUNDS < len(rows[0].rounds) < latency.MAX_ROUNDS
    assert row.latency_ms is not None
    assert row.latency_ms.p50 == 10.0
    assert row.unstable == ()


def test_measure_time_limit_leaves_three_rounds(models: list[ModelFile]) -> None:
    bench = Bench(lambda *_: 3000.0)
    rows, (a, b) = measured(bench, models, Plan(max_seconds=10.0))
    assert [[len(turn.times_ns) for turn in row.rounds] for row in rows] == [[1, 1, 1], [1, 1, 1]]
    assert a.unstable == ("only 3 runs in the time limit",)
    assert b.latency_ms is not None
    assert b.latency_ms.p50 == 3000.0


def test_measure_min_seconds(models: list[ModelFile]) -> None:
    bench = Bench(lambda *_: 1.0)
    rows, _ = measured(bench, models[:1], Plan(min_runs=5, min_seconds=2.0))
    assert sum(rows[0].times_ns) >= 2e9
    assert len(rows[0].times_ns) >= 2000


def test_measure_loads_one_model_at_a_time_in_shuffled_order(models: list[ModelFile]) -> None:
    bench = Bench(lambda *_: 10.0)
    measured(bench, models)
    assert (bench.open, bench.most_open) == (0, 1)
    rounds = [tuple(bench.order[index : index + 2]) for index in range(0, 10, 2)]
    assert all(sorted(pair) == ["a", "b"] for pair in rounds)
    assert len(set(rounds)) == 2


def test_measure_disables_garbage_collector(models: list[ModelFile]) -> None:
    states = []
    bench = Bench(lambda *_: 10.0, on_invoke=lambda: states.append(gc.isenabled()))
    measured(bench, models[:1], Plan(min_runs=10, min_seconds=0.0))
    # Each of five turns: the first inference, then two runs.
    assert states == [True, False, False] * 5
    assert gc.isenabled()


def test_measure_names_other_processes_and_slow_clock(models: list[ModelFile]) -> None:
    bench = Bench(lambda *_: 10.0)
    _, (row,) = measured(
        bench,
        models[:1],
        other_cpu_share=0.42,
        frequency=(1200.0, 1500.0),
        throttling=("under_voltage", "throttled"),
    )
    assert row.unstable == (
        "other processes used 42% of a core meanwhile",
        "the clock was at 1200 of 1500 MHz after a round",
        "the firmware reported after a round: throttled, under voltage",
    )
    assert (row.other_cpu_percent, row.frequency_mhz) == (42.0, 1200.0)
    _, (row,) = measured(bench, models[:1], other_cpu_share=0.05, frequency=(1495.0, 1500.0))
    assert row.unstable == ()


def test_measure_failed_row_has_reason(models: list[ModelFile]) -> None:
    bench = Bench(
        lambda *_: 10.0,
        refuse=lambda name: ModelFileError("a: no SQRT version 2") if name == "a" else None,
    )
    rows, (a, b) = measured(bench, models)
    assert (a.latency_ms, a.rounds, a.not_run) == (None, None, "a: no SQRT version 2")
    assert a.unstable == ()
    assert b.latency_ms is not None
    assert b.not_run is None
    assert rows[0].rounds == []


def test_measure_lost_device_keeps_finished_rounds(models: list[ModelFile]) -> None:
    bench = Bench(
        lambda *_: 10.0,
        refuse=lambda _: AcceleratorError("the TPU is gone") if len(bench.order) == 3 else None,
    )
    _, (row,) = measured(bench, models[:1])
    assert row.rounds is not None
    assert len(row.rounds.runs) == 3
    assert row.not_run == "the TPU is gone"
    assert bench.open == 0


def test_measurements_of_compiled_models() -> None:
    from edgepose.registry.registry import default_registry

    entries = default_registry().entries
    names = ("movenet-lightning-int8", "movenet-lightning-int8-edgetpu")
    models = [ModelFile(name, Path(name), entries[name]) for name in names]
    bench = Bench(lambda *_: 1.0)
    cpu = bench.backend()
    edgetpu = Backend("edgetpu", "edgetpu", "litert", "9.9", cpu.load)
    rows = latency.measurements_of(models, [cpu, edgetpu], (1, 4))
    assert [(row.model.name, row.backend.name, row.threads) for row in rows] == [
        (names[0], "litert", 1),
        (names[0], "litert", 4),
        (names[1], "edgetpu", 1),
    ]


def test_instruments_read_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real instruments, on the files of a Pi that is being throttled."""
    root = raspberry_pi_4(tmp_path, throttled="50004", khz=600000)
    for name in ("cpu_frequencies", "throttling", "cpu_time_s"):
        reader = getattr(host, name)
        monkeypatch.setattr(
            host, name, lambda *_, reader=reader, **options: reader(root, **options)
        )
    instruments = latency.Instruments()
    assert instruments.frequency_mhz() == (600.0, 1800.0)
    assert instruments.throttling() == ("throttled",)
    monkeypatch.setattr(os, "times", lambda: os.times_result((1.0, 0.5, 0.0, 0.0, 9.0)))
    all_s = host.cpu_time_s()
    assert all_s is not None
    assert instruments.other_cpu_s() == pytest.approx(all_s - 1.5)
    assert isinstance(instruments.clock_ns(), int)


def spec(dtype: type[np.generic], *shape: int) -> TensorSpec:
    return TensorSpec("in", shape or (1, 33, 49, 3), np.dtype(dtype))


def test_input_tensor_random_is_reproducible_and_covers_range() -> None:
    for dtype, low, high in ((np.uint8, 0, 255), (np.int8, -128, 127), (np.int32, 0, 255)):
        tensor = latency.input_tensor(spec(dtype), "m")
        assert (tensor.shape, tensor.dtype) == ((1, 33, 49, 3), np.dtype(dtype))
        assert (int(tensor.min()), int(tensor.max())) == (low, high)
        assert np.array_equal(tensor, latency.input_tensor(spec(dtype), "m"))
    floats = latency.input_tensor(spec(np.float32), "m").astype(np.float64)
    assert -1.0 <= floats.min() < -0.99
    assert 0.99 < floats.max() <= 1.0


@pytest.mark.parametrize("shape", [(1, 10), (2, 8, 8, 3), (1, 8, 8, 1), (1, 0, 0, 3)])
def test_input_tensor_rejects_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelShapeError, match=r"m\.tflite: expected an input of shape"):
        latency.input_tensor(spec(np.uint8, *shape), "m.tflite")


def test_measure_progress_is_monotonic(models: list[ModelFile]) -> None:
    shares: list[float] = []
    bench = Bench(lambda _m, load, _i: 300.0 * (1 + load % 2))
    rows = latency.measurements_of(models, [bench.backend()], (1,))
    latency.measure(
        rows,
        Plan(max_seconds=20),
        instruments=bench.instruments(),
        on_progress=lambda share, _: shares.append(share),
    )
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_statistics_of_one_run() -> None:
    one = latency.statistics_of([3 * MS])
    assert (one.min, one.p50, one.p99, one.standard_deviation) == (3.0, 3.0, 3.0, 0.0)
