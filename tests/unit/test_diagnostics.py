"""Checks of `edgepose doctor` whose causes a test cannot make for real."""

import errno
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgepose.config.schema import CameraConfig, Config
from edgepose.datatypes import Frame, Image
from edgepose.diagnostics import camera, system
from edgepose.diagnostics.report import Check
from edgepose.errors import SourceBusyError, SourceError
from tests.fakes.sources import ScriptedSource

CONFIG = Config(cameras=(CameraConfig(source="/dev/video0"),))


@pytest.fixture
def time_flies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each look at the clock take a tenth of a second."""
    steps: Iterator[float] = iter(np.arange(0.0, 100.0, 0.1).tolist())
    monkeypatch.setattr(time, "monotonic", lambda: next(steps))


def camera_check(monkeypatch: pytest.MonkeyPatch, script: Iterable[Frame | SourceError]) -> Check:
    source = ScriptedSource(script, live=True, description="/dev/video0")
    monkeypatch.setattr(camera, "source_opener", lambda _camera: lambda: source)
    (check,) = camera.check_camera(CONFIG, "main")
    return check


def gray(level: int, noise: int = 0) -> Image:
    image = np.full((48, 64, 3), level, np.uint8)
    image[::2] += np.uint8(noise)
    return image


@pytest.mark.usefixtures("time_flies")
@pytest.mark.parametrize(
    ("image", "status", "text"),
    [
        (gray(80, 60), "ok", "/dev/video0: 64x48 at 20.0 frames a second"),
        (gray(3, 2), "warning", "dark (brightness 4 of 255)"),
        (gray(120), "warning", "shows nothing"),
    ],
)
def test_camera_check_of_what_it_shows(
    monkeypatch: pytest.MonkeyPatch, image: Image, status: str, text: str
) -> None:
    """Size and rate are reported, and a picture that is dark or of one colour."""
    check = camera_check(monkeypatch, (Frame(image, n * 50_000_000, n) for n in range(10**6)))
    assert (check.status, bool(check.remedy)) == (status, status != "ok")
    assert text in check.message


def test_camera_check_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy of the source is that of the check."""
    error = SourceError("/dev/video0: no permission; add this user to the group video")
    assert camera_check(monkeypatch, [error]) == Check(
        "camera main", "error", "/dev/video0: no permission", "add this user to the group video"
    )


@pytest.mark.parametrize(
    ("users", "daemon", "status", "message"),
    [
        ({12: "vlc"}, None, "error", "another program uses the camera: vlc (process 12)"),
        ({7: "edgepose"}, 7, "ok", "in use by edgepose itself (process 7)"),
        # The files of another user's process are not visible.
        ({}, 7, "ok", "in use by edgepose itself (process 7)"),
        ({}, None, "error", "another program uses the camera"),
    ],
)
def test_camera_check_of_a_busy_camera(
    monkeypatch: pytest.MonkeyPatch,
    users: dict[int, str],
    daemon: int | None,
    status: str,
    message: str,
) -> None:
    """It is named who uses the camera; the service itself is no error."""
    monkeypatch.setattr(camera, "processes_using", lambda _nodes: users)
    monkeypatch.setattr(camera, "daemon_pid", lambda _config: daemon)
    error = SourceBusyError("/dev/video0: another program uses the camera; `fuser -v` names it")
    check = camera_check(monkeypatch, [error])
    assert check.status == status
    assert check.message.endswith(message)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "run this as the user of the service"),
        (errno.EROFS, "set state_directory"),
    ],
)
def test_state_check_of_an_error(number: int, remedy: str) -> None:
    """Each reason has its remedy."""
    check = system.explain_state(Path("/state"), OSError(number, os.strerror(number)))
    assert check.status == "warning"
    assert os.strerror(number) in check.message
    assert remedy in check.remedy


@pytest.mark.parametrize(
    ("free", "status", "text"),
    [
        (5_000_000_000, "ok", "5.0 GB free at /state"),
        (20_000_000, "warning", "nearly full: 20.0 MB free"),
        (0, "warning", "is full: 0.0 MB free"),
    ],
)
def test_disk_check(free: int, status: str, text: str) -> None:
    """A disk with little room is reported before it is full."""
    check = system.check_disk(Path("/state"), free)
    assert check.status == status
    assert text in check.message


def test_clock_check() -> None:
    """A Raspberry Pi without a network shows 1970, or the day of its last shutdown."""
    assert system.check_clock(1_796_000_000.0).status == "ok"
    check = system.check_clock(60.0)
    assert check.status == "warning"
    assert "1970-01-01 00:01 UTC" in check.message
    assert "NTP" in check.remedy


@pytest.mark.parametrize(
    ("flags", "status", "text", "remedy"),
    [
        (None, "skipped", "does not report", ""),
        ((), "ok", "never throttled", ""),
        (("throttled",), "warning", "now: throttled", "heat sink"),
        (("under_voltage_occurred",), "warning", "since the start: under voltage", "power supply"),
    ],
)
def test_power_check(flags: tuple[str, ...] | None, status: str, text: str, remedy: str) -> None:
    """Heat and a weak power supply have different remedies."""
    check = system.check_power(flags)
    assert check.status == status
    assert text in check.message
    assert remedy in check.remedy


@pytest.mark.parametrize(
    ("state", "status", "text"),
    [
        ({}, "skipped", "systemd does not run"),
        ({"LoadState": "not-found", "ActiveState": "inactive"}, "skipped", "not installed"),
        ({"LoadState": "loaded", "ActiveState": "active", "NRestarts": "0"}, "ok", "active"),
        ({"LoadState": "loaded", "ActiveState": "active", "NRestarts": "4"}, "warning", "4 times"),
        ({"LoadState": "loaded", "ActiveState": "failed"}, "warning", "the service is failed"),
    ],
)
def test_service_check(state: dict[str, str], status: str, text: str) -> None:
    """A service that is down or restarts is reported."""
    check = system.check_service(state)
    assert check.status == status
    assert text in check.message
