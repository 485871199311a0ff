"""A camera to film with, a daemon that does, and how long it took to notice and to recover."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.camera.debian import Debian, prepared
from tests.camera.driver import Desk, Timings
from tests.mosquitto import Listener, Mosquitto

TIMINGS = pytest.StashKey[Timings]()
TOOLS = ("debootstrap", "unshare", "chroot")


@pytest.fixture(scope="session")
def debian() -> Debian:
    """Return the Debian with picamera2 in it."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if os.geteuid() != 0 or absent:
        pytest.fail(f"these tests need root and {' '.join(absent) or 'a chroot'}: make test-camera")
    return prepared()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Return a camera that films the photograph in motion, 30 frames a second."""
    tmp_path.chmod(0o755)
    return Desk(tmp_path)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Return a mosquitto that lets everybody in."""
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
    """Return where a test notes how long it took until a fault was noticed, and mended."""
    stash = request.config.stash
    if TIMINGS not in stash:
        stash[TIMINGS] = Timings()
    return stash[TIMINGS]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what the tests measured."""
    if TIMINGS in config.stash:
        terminalreporter.section("seconds until noticed, and from its end until poses came again")
        for line in config.stash[TIMINGS].lines():
            terminalreporter.line(line)
