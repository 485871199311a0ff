"""The latency of compiled models on the fake Edge TPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.edgetpu import FakeEdgeTpu

QUICK = ("--threads", "1", "--min-runs", "5", "--min-seconds", "0.02", "--max-seconds", "0")


@pytest.fixture
def fake_edgetpu(tmp_path: Path) -> FakeEdgeTpu:
    return FakeEdgeTpu(tmp_path / "tpu")


def benchmark(fake_edgetpu: FakeEdgeTpu, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgepose", "benchmark", "--format", "json", *QUICK, *arguments],
        env={**os.environ, **fake_edgetpu.environment()},
        capture_output=True,
        text=True,
        check=False,
    )


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    assert (done.returncode, done.stderr) == (0, "")
    return {row["engine"]: row for row in json.loads(done.stdout)["latency"]}


def test_benchmark_edgetpu_each_file_on_its_device(fake_edgetpu: FakeEdgeTpu) -> None:
    path = fake_edgetpu.compiled_model()
    models = f"{path},{path.with_name('movenet-lightning-int8.tflite')}"
    found = rows(benchmark(fake_edgetpu, "--models", models, "--accelerator", "edgetpu,litert"))
    # The compiled file on the device alone, the other on the CPU alone.
    assert set(found) == {"edgetpu", "litert"}
    edgetpu, cpu = found["edgetpu"], found["litert"]
    assert (edgetpu["model"], cpu["model"]) == (path.stem, "movenet-lightning-int8")
    assert (edgetpu["device"], edgetpu["delegate"]) == ("edgetpu", "Edge TPU through litert")
    assert edgetpu["latency_ms"] is not None
    assert edgetpu["others_percent"] is None


def test_benchmark_edgetpu_device_that_dies(fake_edgetpu: FakeEdgeTpu) -> None:
    path = fake_edgetpu.compiled_model()
    fake_edgetpu.set("abort")
    models = f"{path},{path.with_name('movenet-lightning-int8.tflite')}"
    found = rows(benchmark(fake_edgetpu, "--models", models, "--accelerator", "edgetpu,litert"))
    assert found["edgetpu"]["latency_ms"] is None
    assert "SIGABRT" in found["edgetpu"]["not_run"]
    assert found["litert"]["latency_ms"] is not None


def test_benchmark_edgetpu_absent_device(fake_edgetpu: FakeEdgeTpu) -> None:
    path = fake_edgetpu.compiled_model()
    fake_edgetpu.set("absent")
    done = benchmark(fake_edgetpu, "--models", str(path), "--accelerator", "edgetpu")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no Edge TPU is plugged in" in done.stderr
    assert len(done.stderr.splitlines()) == 1
