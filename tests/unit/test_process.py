"""Child processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgepose.util.process import environment_without_secrets, processes_using


def test_environment_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The closed library of the Edge TPU had the password of the broker in its environment."""
    secrets = {
        "EDGEPOSE_MQTT_PASSWORD": "s3cret",
        "EDGEPOSE_YARD_PASSWORD": "s3cret",
        "CREDENTIALS_DIRECTORY": "/run/credentials/edgepose.service",
        "GITHUB_TOKEN": "s3cret",
        "CAMERA": "rtsp://admin:s3cret@192.0.2.7/live",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/coral")
    environment = environment_without_secrets()
    assert not secrets.keys() & environment.keys()
    assert environment["LD_LIBRARY_PATH"] == "/opt/coral"
    assert "PATH" in environment


def test_processes_using_an_open_device(tmp_path: Path) -> None:
    """Processes are found by the files they have open."""
    node = tmp_path / "node"
    node.touch()
    assert processes_using([node]) == {}
    with node.open():
        using = processes_using([node, tmp_path / "other"])
    assert list(using) == [os.getpid()]


def test_return_free_memory_between_blocks_in_use() -> None:
    """Each reload of a model left memory behind, in the holes between what stayed in use."""
    script = (
        "from edgepose.monitoring.host import resident_memory_mb\n"
        "from edgepose.util.process import return_free_memory\n"
        "blocks = [bytearray(60_000) for _ in range(1000)]\n"
        "blocks = blocks[::100]\n"
        "before = resident_memory_mb()\n"
        "return_free_memory()\n"
        "print(before - resident_memory_mb())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert float(done.stdout) > 40
