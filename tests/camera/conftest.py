"""Fixtures of the camera tests: chroot, camera, broker, and a table of reaction times."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.camera.debian import Debian, prepared
from tests.camera.driver import Timings, VirtualCamera
from tests.mosquitto import Listener, Mosquitto

TIMINGS = pytest.StashKey[Timings]()
TOOLS = ("debootstrap", "unshare", "chroot")


@pytest.fixture(scope="session")
def debian() -> Debian:
    """Return the Debian chroot with picamera2."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if os.geteuid() != 0 or absent:
        pytest.fail(f"these tests need root and {' '.join(absent) or 'a chroot'}: make test-camera")
    return prepared()


@pytest.fixture
def camera(tmp_path: Path) -> VirtualCamera:
    """Return a camera that shows the photograph in motion, at 30 fps."""
    tmp_path.chmod(0o755)
    return VirtualCamera(tmp_path)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Return a mosquitto that accepts anonymous clients."""
    folder = tmp_path / "broker"
    folder.mkdir()
    with Mosquitto(folder) as mosquitto:
        yield mosquitto


@pytest.fixture
def listener(broker: Mosquitto) -> Iterator[Listener]:
    """Return a subscriber to everything on `broker`."""
    with broker.listener() as listening:
        yield listening


@pytest.fixture
def timings(request: pytest.FixtureRequest) -> Timings:
    """Return the table of how long faults took to be noticed and to end."""
    stash = request.config.stash
    if TIMINGS not in stash:
        stash[TIMINGS] = Timings()
    return stash[TIMINGS]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the measured times."""
    if TIMINGS in config.stash:
        terminalreporter.section("seconds until noticed, and from its end until poses came again")
        for line in config.stash[TIMINGS].lines():
            terminalreporter.line(line)
