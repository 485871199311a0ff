"""The wheel and its contents, and `make demo`."""

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.mosquitto import wait_for

ROOT = Path(__file__).parents[2]


def test_wheel_contents(tmp_path: Path) -> None:
    """The wheel has the default model and `config.yaml`."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet"),
            *("--wheel-dir", str(tmp_path), str(ROOT)),
        ],
        check=True,
        timeout=110,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "edgepose/assets/models/movenet-lightning-int8.tflite",
        "edgepose/assets/models/manifest.json",
        "edgepose/assets/astronaut.jpg",
        "edgepose/assets/config.yaml",
        "edgepose/py.typed",
    ):
        assert name in names
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]


def test_wheel_runs_without_the_checkout(tmp_path: Path) -> None:
    """The installed package finds its files."""
    # Unpacked as pip would do, beside the dependencies of this environment.
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--no-deps", "--quiet"),
            *("--target", str(tmp_path / "site"), str(ROOT)),
        ],
        check=True,
        timeout=110,
    )
    run = subprocess.run(
        [sys.executable, "-m", "edgepose", "models", "info", "movenet-lightning-int8"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "movenet-lightning-int8" in run.stdout


@pytest.mark.skipif(not (Path(sys.prefix) / ".dev").exists(), reason="not installed by make")
def test_make_demo(tmp_path: Path) -> None:
    """`make demo` prints the page's address and who is there, and stops at Ctrl-C."""
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            ["make", "-C", str(ROOT), "demo", f"VENV={sys.prefix}"],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_for(lambda: "person 1" in log.read_text(), "a person from make demo", 60)
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    output = log.read_text()
    assert "demo: live page: http://127.0.0.1:" in output
    assert "demo: stopped" in output
    assert "Traceback" not in output
