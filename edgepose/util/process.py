"""Child processes: how they start and end."""

import contextlib
import signal
import sys
from pathlib import Path
from typing import Final

_PACKAGE_FOLDER: Final = Path(__file__).parents[2]


def main_command(module: str) -> list[str]:
    """Return the command that calls `main` of a module of this package; arguments follow.

    Works with a package that is not installed, and runs nothing from the working directory.
    """
    start = f"import sys; sys.path.append(sys.argv.pop(1)); from {module} import main; main()"
    return [sys.executable, "-P", "-c", start, str(_PACKAGE_FOLDER)]


def exit_description(code: int) -> str:
    """Return how a process ended, after its name: `ended with code 3`, `was ended by SIGABRT`."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
