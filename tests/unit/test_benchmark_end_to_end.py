"""The figures of the end-to-end benchmark, from rounds whose durations are set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgepose.benchmark.end_to_end import (
    STAGES,
    BareRound,
    DaemonRound,
    bare_round,
    pipeline_row,
)
from edgepose.benchmark.feed import LimitedSource
from edgepose.benchmark.results import PipelineRow
from edgepose.protocols import Interpreter
from edgepose.sources.images import ImageSource
from tests.fakes.benchmark_backend import INPUT, MS, Bench
from tests.media import number_of, numbered, save

STAGES_MS = (2, 1, 25, 1, 1, 1, 1, 3, 5)
"""Durations of the stages of each frame below, from capture to transport."""
ABOUT = {
    "model": "m",
    "device": "cpu",
    "backend": "litert",
    "threads": 1,
    "source": "memory",
    "width": 640,
    "height": 480,
    "broker": "mosquitto",
}


def frame_times(start_ms: float) -> Sequence[int]:
    """Return the times of a frame, with the arrival of its message."""
    return [round(ms * MS) for ms in np.cumsum((start_ms, *STAGES_MS))]


def daemon(lost: int = 0, dropped: int = 0) -> DaemonRound:
    """Return a round of ten frames, 20 per second, with 30 ms of processor time each."""
    times_ns = np.array([frame_times(number * 50.0) for number in range(10)])
    times_ns[:lost, -1] = 0
    return DaemonRound(times_ns, [number * 30 * MS for number in range(10)], dropped)


def row(
    daemons: Sequence[DaemonRound], bare: Sequence[BareRound], paced: Sequence[DaemonRound]
) -> PipelineRow:
    return pipeline_row(daemons, bare, paced, bare, **ABOUT)


def interpreter(bench: Bench) -> Interpreter:
    return bench.backend().load(Path("m.tflite"), 1, None)


def test_limited_source_takes_images_as_frames_of_a_camera(tmp_path: Path) -> None:
    """The model runs once for each, as in the bare loop."""
    paths = [save(tmp_path / f"{k}.png", image) for k, image in enumerate(numbered(3))]
    source = LimitedSource(ImageSource(paths), 2)
    assert [(number_of(f.image), f.still) for f in source.frames()] == [(0, False), (1, False)]
    assert source.size_wh == (64, 48)


def test_daemon_round_figures() -> None:
    figures = daemon()
    assert figures.seconds == 0.45
    assert figures.rate == pytest.approx(20.0)
    assert figures.cpu_ms == pytest.approx(30.0)
    assert figures.latencies_ns.tolist() == [sum(STAGES_MS) * MS] * 10


def test_daemon_round_without_lost_messages() -> None:
    assert len(daemon(lost=2).received_ns) == 8


def test_bare_round_back_to_back() -> None:
    bench = Bench(lambda _m, _load, invoke: 20.0 + 10.0 * (invoke % 2))
    tensor = np.zeros(INPUT.shape, INPUT.dtype)
    loop = bare_round(interpreter(bench), tensor, 4, clock_ns=lambda: bench.now_ns)
    assert loop.times_ns == [20 * MS, 30 * MS, 20 * MS, 30 * MS]
    assert loop.rate == pytest.approx(40.0)


def test_bare_round_at_frame_rate_sleeps_in_between() -> None:
    bench = Bench(lambda *_: 20.0)
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        bench.spend(seconds * 1e3)

    loop = bare_round(
        interpreter(bench),
        np.zeros(INPUT.shape, INPUT.dtype),
        3,
        10.0,
        clock_ns=lambda: bench.now_ns,
        sleep=sleep,
    )
    assert loop.times_ns == [20 * MS] * 3
    assert sleeps == pytest.approx([0.0, 0.08, 0.08])
    assert loop.rate == pytest.approx(3 / 0.22)


def test_pipeline_row_compares_each_pair() -> None:
    """The daemon at 20 frames/s beside a bare loop at 25, with 30 and 28 ms of processor time."""
    loop = BareRound([40 * MS] * 10, 25.0, 28.0)
    result = row([daemon(), daemon()], [loop, loop], [daemon()])
    assert result.pipeline_to_invoke_ratio == pytest.approx(0.8)
    assert result.rounds.ratios == (0.8, 0.8)
    assert result.overhead_ms == pytest.approx(10.0)
    assert result.cpu_overhead_ms == pytest.approx(2.0)
    assert (result.frames, result.seconds, result.fps) == (20, 0.9, 20.0)
    assert (result.bare_invoke.p50_ms, result.bare_invoke.fps) == (40.0, 25.0)
    assert result.paced_invoke_ms.p50 == 40.0
    assert result.unstable == ()


def test_pipeline_row_stages_add_up_to_latency() -> None:
    loop = BareRound([40 * MS], 25.0, 28.0)
    result = row([daemon()], [loop], [daemon()])
    assert {name: stage.p50 for name, stage in result.stages_ms.items()} == dict(
        zip(STAGES, STAGES_MS, strict=True)
    )
    assert sum(STAGES_MS) == 40
    assert result.latency_ms.p50 == result.latency_ms.p99 == 40.0
    assert result.stages_ms["invoke"].share == pytest.approx(25 / 40)
    assert sum(stage.share for stage in result.stages_ms.values()) == pytest.approx(1.0)


def test_pipeline_row_early_arrival_is_no_negative_stage() -> None:
    early = daemon()
    early.times_ns[:, -1] = early.times_ns[:, -2] - MS
    result = row([], [BareRound([MS], 1.0, 1.0)], [early])
    assert result.stages_ms["transport"].p50 == 0.0


def test_pipeline_row_live_source_has_no_ratio() -> None:
    result = row([], [BareRound([40 * MS], 25.0, 28.0)], [daemon()])
    assert result.pipeline_to_invoke_ratio is None
    assert (result.overhead_ms, result.cpu_overhead_ms) == (None, None)
    assert (result.frames, result.fps, result.paced_fps) == (10, 20.0, 20.0)


def test_pipeline_row_unstable_rounds() -> None:
    loops = [BareRound([ms * MS], 25.0, 28.0) for ms in (30, 40, 50)]
    result = row([], loops, [daemon(lost=2, dropped=1), daemon(lost=1, dropped=4)])
    assert (result.lost, result.dropped) == (3, 5)
    percent = "have an interquartile range of 25% (up to 5% is stable)"
    assert result.unstable == (
        f"its rounds' bare invokes {percent}",
        f"its rounds' bare invokes at the source's frame rate {percent}",
        "3 messages did not reach the subscriber",
    )
