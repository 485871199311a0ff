"""The service of this machine while it is set up: it has the camera, and runs what is written."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from edgepose.diagnostics.system import service_state
from edgepose.util.process import environment_without_secrets

# Longer than a service may take to stop (10 s) or to be ready.
_TIMEOUT_S: Final = 60.0


@contextmanager
def stopped() -> Iterator[bool]:
    """Stop the service if it runs, and start it again at the end; yields whether it ran."""
    ran = service_state().get("ActiveState") in ("active", "activating")
    if ran:
        _systemctl("stop")
    try:
        yield ran
    finally:
        if ran:
            _systemctl("start")


def start() -> bool:
    """Start the service if it is installed; return whether it runs."""
    return service_state().get("LoadState") == "loaded" and _systemctl("start")


def _systemctl(verb: str) -> bool:
    try:
        subprocess.run(  # noqa: S603 - constant arguments
            ["systemctl", verb, "edgepose"],  # noqa: S607
            env=environment_without_secrets(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True
