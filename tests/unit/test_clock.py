"""Conversion of frame timestamps to the time of day."""

from collections.abc import Iterator

import pytest

from edgepose import clock


def readings(monkeypatch: pytest.MonkeyPatch, boottime: list[int], realtime: list[int]) -> None:
    boot: Iterator[int] = iter(boottime)
    real: Iterator[int] = iter(realtime)
    monkeypatch.setattr(clock, "boottime_ns", lambda: next(boot))
    monkeypatch.setattr("time.time_ns", lambda: next(real))


def test_realtime_offset_is_kept_while_a_reading_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the second pair of readings the thread was preempted for 5 ms."""
    readings(monkeypatch, [100, 102, 200, 5_000_200, 300, 302], [1101, 1201, 1301])
    offset = clock.RealtimeOffset()
    assert [offset.read_ns() for _ in range(3)] == [999, 999, 999]


def test_realtime_offset_follows_a_clock_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    readings(monkeypatch, [100, 102, 200, 202, 300, 302], [1101, 9201, 301])
    offset = clock.RealtimeOffset()
    assert [offset.read_ns() for _ in range(3)] == [999, 8999, 1]
