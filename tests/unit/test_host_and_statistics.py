"""What goes into the stats message."""

from pathlib import Path

import pytest

from edgepose import host
from edgepose.datatypes import StageTimings
from edgepose.statistics import CAPACITY, StageStatistics
from tests.helpers import SECOND_NS

TIMINGS = StageTimings(1_000_000, 5_000_000, 500_000, 250_000, 125_000)


def test_percentiles_and_fps_of_an_interval() -> None:
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


def test_each_interval_starts_afresh() -> None:
    statistics = StageStatistics()
    statistics.take(0)
    statistics.add(TIMINGS, 0)
    statistics.take(SECOND_NS)
    assert statistics.take(2 * SECOND_NS) == {"frames": 0, "fps": 0.0}


def test_a_busy_interval_is_described_by_its_latest_frames() -> None:
    statistics = StageStatistics()
    statistics.take(0)
    for index in range(2 * CAPACITY):
        statistics.add(TIMINGS, publish_ns=0 if index < CAPACITY else 2_000_000)
    summary = statistics.take(SECOND_NS)
    assert summary["frames"] == 2 * CAPACITY
    stages = summary["stages_ms"]
    assert isinstance(stages, dict)
    assert stages["publish"]["p50"] == 2.0


def test_a_pi_tells_its_name_heat_and_throttling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").write_text("Raspberry Pi 4 Model B Rev 1.4\0")
    (tmp_path / "throttled").write_text("50005\n")
    zone = tmp_path / "thermal_zone0"
    zone.mkdir()
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text("61234\n")
    (tmp_path / "thermal_zone1").mkdir()
    monkeypatch.setattr(host, "_DEVICE_TREE_MODEL", tmp_path / "model")
    monkeypatch.setattr(host, "_THROTTLED", tmp_path / "throttled")
    monkeypatch.setattr(host, "_THERMAL", tmp_path)
    assert host.device_name() == "Raspberry Pi 4 Model B Rev 1.4"
    assert host.temperatures_c() == {"cpu-thermal": 61.2}
    assert host.throttling() == (
        *("under_voltage", "throttled", "under_voltage_occurred", "throttled_occurred"),
    )


def test_another_machine_has_no_such_thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_DEVICE_TREE_MODEL", "_THROTTLED", "_THERMAL", "_STATUS"):
        monkeypatch.setattr(host, name, tmp_path / "missing")
    assert host.device_name()
    assert host.throttling() is None
    assert host.temperatures_c() == {}
    assert host.resident_memory_mb() is None


def test_this_process_has_memory() -> None:
    memory = host.resident_memory_mb()
    assert memory is not None
    assert 10 < memory < 10_000
