"""The figures of the stats message."""

import pytest

from edgepose.datatypes import StageTimings
from edgepose.monitoring.stage_stats import BUCKETS_S, CAPACITY, StageStatistics
from tests.builders import SECOND_NS

TIMINGS = StageTimings(1_000_000, 5_000_000, 500_000, 250_000, 125_000)


def test_stage_statistics_percentiles_and_fps() -> None:
    """Percentiles and fps of one interval."""
    statistics = StageStatistics()
    statistics.take(0)
    for index in range(100):
        statistics.add(TIMINGS, publish_ns=(index + 1) * 10_000)
    summary = statistics.take(10 * SECOND_NS)
    assert (summary["frames"], summary["fps"]) == (100, 10.0)
    stages = summary["stages_ms"]
    assert isinstance(stages, dict)
    assert stages["invoke"] == {"p50": 5.0, "p95": 5.0, "p99": 5.0}
    assert stages["publish"]["p50"] == pytest.approx(0.505)
    assert stages["publish"]["p95"] == pytest.approx(0.95, abs=0.005)
    assert stages["total"]["p50"] == pytest.approx(6.875 + 0.505)


def test_stage_statistics_reset() -> None:
    """Each interval starts without frames."""
    statistics = StageStatistics()
    statistics.take(0)
    statistics.add(TIMINGS, 0)
    statistics.take(SECOND_NS)
    assert statistics.take(2 * SECOND_NS) == {"frames": 0, "fps": 0.0}


def test_stage_statistics_long_interval() -> None:
    """The latest frames count; the number of frames is complete."""
    statistics = StageStatistics()
    statistics.take(0)
    for index in range(2 * CAPACITY):
        statistics.add(TIMINGS, publish_ns=0 if index < CAPACITY else 2_000_000)
    summary = statistics.take(SECOND_NS)
    assert summary["frames"] == 2 * CAPACITY
    stages = summary["stages_ms"]
    assert isinstance(stages, dict)
    assert stages["publish"]["p50"] == 2.0


def test_stage_statistics_histograms() -> None:
    """They count every frame once, from the start, over the intervals of `take`."""
    statistics = StageStatistics()
    for _ in range(3):
        statistics.add(TIMINGS, publish_ns=2_000_000)
    assert statistics.histograms()["invoke"].total == 3
    statistics.add(TIMINGS, publish_ns=20_000_000_000)
    statistics.take(SECOND_NS)
    statistics.add(TIMINGS, publish_ns=400_000)
    histograms = statistics.histograms()
    assert histograms["publish"].total == statistics.frames == 5
    counts = dict(zip(BUCKETS_S, histograms["publish"].counts, strict=True))
    assert (counts[0.0005], counts[0.001], counts[0.0025], counts[1.0]) == (1, 1, 4, 4)
    assert histograms["publish"].sum_s == pytest.approx(20.0064)
    # Exactly at a limit.
    assert dict(zip(BUCKETS_S, histograms["invoke"].counts, strict=True))[0.005] == 5
