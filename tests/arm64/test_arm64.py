"""Models, daemon and unit tests on an emulated Raspberry Pi, without its timing.

Run by `make test-arm64`.
"""

import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edgepose.messages import EstimateLine, PoseEntry, decode
from tests.arm64.debian import CPU, CPUS, PYTHON, prepared, require_emulator
from tests.chroot import CHECKOUT, TEST_FOLDER, Chroot, environment
from tests.daemon import CAMERA, NODE
from tests.mosquitto import Mosquitto, wait_for

pytestmark = [pytest.mark.arm64, pytest.mark.timeout(3600)]

SUITES = os.environ.get("SUITES", "").split() or ["bookworm", "trixie"]
TOOLS = ("debootstrap", "qemu-aarch64-static", "update-binfmts", "unshare", "chroot")
PHOTOGRAPH = "edgepose/assets/astronaut.jpg"
MODELS = sorted(path.stem for path in (CHECKOUT / "models").glob("*.tflite"))


class Pi:
    """A Debian for arm64 in which edgepose is installed."""

    def __init__(self, debian: Chroot) -> None:
        self._debian = debian

    def start(self, folder: Path, *arguments: str, cpu: str = CPU) -> subprocess.Popen[str]:
        """Start Python inside, in the checkout."""
        settings = ("PYTHONDONTWRITEBYTECODE=1", "HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis")
        inside = ("env", "-C", "/checkout", *settings, PYTHON, *arguments)
        return subprocess.Popen(
            self._debian.command(inside, folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Set outside, because the emulator reads it when it starts.
            env={**environment(), "QEMU_CPU": cpu, "CI": ""},
        )

    def run(self, folder: Path, *arguments: str, cpu: str = CPU) -> str:
        """Run Python inside and return its output; fail if it fails."""
        process = self.start(folder, *arguments, cpu=cpu)
        output, _ = process.communicate()
        assert process.returncode == 0, output[-5000:]
        return output


@pytest.fixture(scope="session", params=SUITES)
def pi(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pi:
    """Return the emulated Pi of a suite."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if os.geteuid() != 0 or absent:
        pytest.fail(f"these tests need root and {' '.join(absent) or 'a chroot'}: make test-arm64")
    require_emulator()
    return Pi(prepared(request.param, tmp_path_factory.mktemp("folder")))


def test_arm64_machine_is_emulated(pi: Pi, tmp_path: Path) -> None:
    output = pi.run(tmp_path, "-c", "import platform; print(platform.machine())")
    assert output.split() == ["aarch64"]


@pytest.mark.parametrize("cpu", CPUS.values(), ids=CPUS)
def test_arm64_estimate_poses_equal_those_of_this_machine(pi: Pi, tmp_path: Path, cpu: str) -> None:
    """The runtime has separate code for each kind of processor."""
    assert len(MODELS) >= 8
    for model in MODELS:
        # Half a body has half the score, which is below the threshold of some models.
        arguments = ("-m", "edgepose", "estimate", "--pose-threshold", "0.2", "--model", model)
        emulated = best_pose(pi.run(tmp_path, *arguments, PHOTOGRAPH, cpu=cpu))
        run = subprocess.run(
            [sys.executable, *arguments, PHOTOGRAPH],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
        )
        here = best_pose(run.stdout)
        assert emulated.score == pytest.approx(here.score, abs=0.05), model
        apart = [
            math.dist(a[:2], b[:2])
            for a, b in zip(here.keypoints, emulated.keypoints, strict=True)
            if a is not None and b is not None
        ]
        assert max(apart) < 0.02, (model, here, emulated)
        # A keypoint near its threshold may be present in one of the two only.
        visible = sum(point is not None for point in here.keypoints)
        assert len(apart) >= max(4, visible - 2), (model, here, emulated)


def best_pose(output: str) -> PoseEntry:
    """Return the pose with the highest score in the one line of JSON of an output."""
    (line,) = [line for line in output.splitlines() if line.startswith("{")]
    return max(msgspec.json.decode(line, type=EstimateLine).poses, key=lambda pose: pose.score)


def test_arm64_daemon_publishes_poses(pi: Pi, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"node: testnode\nstate_directory: {TEST_FOLDER}/state\n")
    folder = tmp_path / "broker"
    folder.mkdir()
    with Mosquitto(folder) as broker, broker.listener() as listener:
        daemon = pi.start(
            tmp_path,
            *("-m", "edgepose", "run", "-c", f"{TEST_FOLDER}/config.yaml"),
            *("--source", "synthetic:", "--mqtt", broker.url),
        )
        try:
            wait_for(lambda: len(listener.payloads(f"{CAMERA}/poses")) > 3, "poses", 60)
            daemon.send_signal(signal.SIGTERM)
            output, _ = daemon.communicate(timeout=60)
        finally:
            daemon.kill()
        assert (daemon.returncode, "Traceback" in output) == (0, False), output
        message = decode(listener.payloads(f"{CAMERA}/poses")[0])
        assert (message.accelerator, len(message.poses)) == ("cpu", 1)
        wait_for(lambda: listener.payloads(f"{NODE}/availability")[-1] == b"offline", "offline")


def test_arm64_unit_tests_pass(pi: Pi, tmp_path: Path) -> None:
    """Unit and contract tests, which need neither another program nor a clock."""
    output = pi.run(
        tmp_path,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "900"),
        # The units are the same on every processor, and need `make` and systemd.
        *("tests/unit", "--ignore", "tests/unit/test_units.py", "tests/contract"),
        # QEMU does not know the request that a device which is no camera refuses.
        *("--deselect", "tests/unit/test_v4l2.py::test_usb_camera_other_device"),
    )
    assert " passed" in output
    assert " failed" not in output
