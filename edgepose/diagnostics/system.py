"""The machine: state folder and disk, clock, power, versions and service."""

import errno
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from edgepose import __version__
from edgepose.config.schema import Config
from edgepose.daemon.state_folder import lock_holder
from edgepose.diagnostics.report import Check
from edgepose.monitoring.host import throttling
from edgepose.util.process import environment_without_secrets

EARLIEST_S: Final = 1_767_225_600
"""1 January 2026: before this program was written, so a clock that shows less is not set."""
LOW_DISK_BYTES: Final = 50_000_000
FULL_DISK_BYTES: Final = 1_000_000
_SYSTEMCTL_TIMEOUT_S: Final = 3.0
_PACKAGES: Final = (
    "ai-edge-litert",
    "tflite-runtime",
    "numpy",
    "opencv-python-headless",
    "paho-mqtt",
)
_OCCURRED: Final = "_occurred"


def daemon_pid(config: Config) -> int | None:
    """Return the process that runs this node on this machine, or the service; None without."""
    pid = lock_holder(config.state_path, config.node_name)
    # Only its own user may read the lock of the service.
    return pid or int(service_state().get("MainPID", "0")) or None


def check_state(config: Config) -> Iterator[Check]:
    """Write into the state directory, and measure the room on its disk."""
    folder = config.state_path
    existing = folder
    while not os.path.isdir(existing):  # noqa: PTH112 - Path.is_dir may raise
        existing = existing.parent
    try:
        _try_to_write(folder, existing)
    except OSError as error:
        own = daemon_pid(config) if isinstance(error, PermissionError) else None
        if own is not None:
            yield Check("state", "ok", f"{folder}: in use by edgepose (process {own})")
        else:
            yield explain_state(folder, error)
    else:
        yield Check("state", "ok", f"{folder}: can be written")
    yield check_disk(existing, shutil.disk_usage(existing).free)


def _try_to_write(folder: Path, existing: Path) -> None:
    """Write a file into a folder, or check that it could be made; raises OSError."""
    if existing == folder:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        return
    missing = existing / folder.relative_to(existing).parts[0]
    if os.path.lexists(missing):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def explain_state(folder: Path, error: OSError) -> Check:
    """Return the check of a state directory that cannot be written."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            remedy = "free some space on that disk"
        case errno.EACCES | errno.EPERM:
            remedy = (
                "set state_directory to a folder that edgepose may write, or run this as the user "
                "of the service (sudo)"
            )
        case _:
            remedy = "set state_directory to a folder that edgepose may write"
    return Check(
        "state",
        "warning",
        f"{folder}: cannot be written ({error.strerror}), so privacy switches and waiting events "
        "would not survive a restart",
        remedy,
    )


def check_disk(folder: Path, free_bytes: int) -> Check:
    """Check the room that is left on the disk of a folder."""
    if free_bytes >= LOW_DISK_BYTES:
        return Check("disk", "ok", f"{free_bytes / 1e9:.1f} GB free at {folder}")
    return Check(
        "disk",
        "warning",
        f"the disk of {folder} is {'full' if free_bytes < FULL_DISK_BYTES else 'nearly full'}: "
        f"{free_bytes / 1e6:.1f} MB free",
        "delete what is not needed; `journalctl --vacuum-size=100M` and `apt clean` free some",
    )


def check_system(_config: Config) -> Iterator[Check]:
    """Check clock, power, versions and service."""
    yield check_clock(time.time())
    yield check_power(throttling())
    yield _versions()
    yield check_service(service_state())


def check_clock(now_s: float) -> Check:
    """Check that the clock is set; a Raspberry Pi without network starts with an old time."""
    text = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now_s))
    if now_s >= EARLIEST_S:
        return Check("clock", "ok", text)
    return Check(
        "clock",
        "warning",
        f"it shows {text}, so it is not set: messages have the wrong time, and certificates of "
        "TLS are not accepted",
        "connect the network for NTP (`timedatectl` shows it), or fit a clock battery",
    )


def check_power(flags: tuple[str, ...] | None) -> Check:
    """Check the flags of the firmware."""
    if flags is None:
        return Check("power", "skipped", "this machine does not report it")
    if not flags:
        return Check("power", "ok", "never throttled since the start")
    voltage = any(flag.startswith("under_voltage") for flag in flags)
    now = [flag for flag in flags if not flag.endswith(_OCCURRED)]
    when = "now" if now else "since the start"
    names = ", ".join(dict.fromkeys(flag.removesuffix(_OCCURRED) for flag in now or flags))
    return Check(
        "power",
        "warning",
        f"{when}: {names.replace('_', ' ')}",
        "use the official power supply and a short cable"
        if voltage
        else "cool the board with a heat sink or a fan",
    )


def _versions() -> Check:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    text = f"edgepose {__version__}, Python {platform.python_version()}, {', '.join(found)}"
    return Check("versions", "ok", text)


def service_state() -> dict[str, str]:
    """Return the properties of the service's unit, none without systemd."""
    try:
        done = subprocess.run(
            ["systemctl", "show", "edgepose", "-p", "LoadState,ActiveState,NRestarts,MainPID"],  # noqa: S607
            env=environment_without_secrets(),
            capture_output=True,
            text=True,
            timeout=_SYSTEMCTL_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def check_service(state: Mapping[str, str]) -> Check:
    """Check the properties of the unit, as `systemctl show` prints them; none without systemd."""
    if not state:
        return Check("service", "skipped", "systemd does not run here")
    if state.get("LoadState") != "loaded":
        return Check("service", "skipped", "edgepose is not installed as a service")
    active, restarts = state.get("ActiveState", "unknown"), state.get("NRestarts", "0")
    if active != "active":
        return Check(
            "service",
            "warning",
            f"the service is {active}",
            "`sudo systemctl enable --now edgepose`, and `journalctl -u edgepose` if it fails",
        )
    if restarts != "0":
        return Check(
            "service",
            "warning",
            f"active, but restarted {restarts} times",
            "`journalctl -u edgepose -p warning` has the reason",
        )
    return Check("service", "ok", "active")
