"""Measured numbers of threads, kept over restarts."""

import logging
from pathlib import Path

import pytest

from edgepose.inference.thread_cache import (
    FILE,
    MAX_MEASUREMENTS,
    ThreadCache,
    ThreadKey,
    ThreadMeasurement,
)

KEY = ThreadKey("33ed", "litert 2.3.0", "Raspberry Pi 4, Cortex-A72, 4 cores, uses 0,1,2,3")


def measurement(key: ThreadKey = KEY, threads: int = 3) -> ThreadMeasurement:
    return ThreadMeasurement(key, threads, {3: 28.0, 4: 26.0}, 33.3, busy=False)


def test_thread_cache_is_kept_over_restarts(tmp_path: Path) -> None:
    told: list[str] = []
    cache = ThreadCache(tmp_path / "nodes" / "gym", on_new=lambda: told.append("new"))
    assert cache.find(KEY) is None
    cache.keep(measurement())
    assert told == ["new"]
    assert cache.find(KEY) == measurement()
    assert ThreadCache(tmp_path / "nodes" / "gym").find(KEY) == measurement()


@pytest.mark.parametrize("field", ["model", "runtime", "machine"])
def test_thread_cache_other_key(tmp_path: Path, field: str) -> None:
    """Another model, version of the runtime or machine is measured by itself."""
    cache = ThreadCache(tmp_path)
    cache.keep(measurement())
    values = {"model": KEY.model, "runtime": KEY.runtime, "machine": KEY.machine}
    other = ThreadKey(**(values | {field: "another"}))
    assert ThreadCache(tmp_path).find(other) is None
    cache.keep(measurement(other, threads=4))
    cache.keep(measurement(threads=2))
    again = ThreadCache(tmp_path)
    assert [again.find(key) for key in (KEY, other)] == [
        measurement(threads=2),
        measurement(other, threads=4),
    ]


def test_thread_cache_is_bounded(tmp_path: Path) -> None:
    """Of models that come and go, the oldest are forgotten."""
    cache = ThreadCache(tmp_path)
    keys = [ThreadKey(str(number), "", "") for number in range(MAX_MEASUREMENTS + 1)]
    for key in keys:
        cache.keep(measurement(key))
    again = ThreadCache(tmp_path)
    assert [key for key in keys if again.find(key) is None] == keys[:1]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 5000, b'[{"key":1}]', b'[{"threads":0}]', b"\xff"]
)
def test_thread_cache_damaged_file_is_replaced(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_bytes(content)
    cache = ThreadCache(tmp_path)
    assert cache.find(KEY) is None
    assert cache.find(KEY) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "threads.json: expected the measured numbers of threads" in record.message
    cache.keep(measurement())
    assert ThreadCache(tmp_path).find(KEY) == measurement()


def test_thread_cache_without_a_folder_to_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds as long as the process."""
    (tmp_path / "file").write_text("")
    cache = ThreadCache(tmp_path / "file")
    assert cache.find(KEY) is None
    cache.keep(measurement())
    assert cache.find(KEY) == measurement()
    (record,) = caplog.records
    assert "cannot save the measured number of threads (" in record.message
