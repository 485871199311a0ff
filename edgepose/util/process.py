"""Child processes: how they start and end."""

import contextlib
import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

_SECRET_NAME: Final = re.compile(r"(?i)^edgepose_|passw|secret|token|credential|api_?key")
_URL_WITH_USER: Final = re.compile(r"://[^/\s]*@")
_M_ARENA_MAX: Final = -8
_PACKAGE_FOLDER: Final = Path(__file__).parents[2]
# prctl(PR_SET_PDEATHSIG, SIGKILL) outlives exec. A parent that ended before is no parent any more.
_TIED_TO_PARENT: Final = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); "
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])"
)


def main_command(module: str) -> list[str]:
    """Return the command that calls `main` of a module of this package; arguments follow.

    Works with a package that is not installed, and runs nothing from the working directory.
    """
    start = f"import sys; sys.path.append(sys.argv.pop(1)); from {module} import main; main()"
    return [sys.executable, "-P", "-c", start, str(_PACKAGE_FOLDER)]


def tied_command(command: Sequence[str]) -> list[str]:
    """Return a command that runs another, which ends with the thread that starts it.

    That holds for any end of this process, SIGKILL included. The command begins with a full path.
    """
    return [sys.executable, "-ISc", _TIED_TO_PARENT, str(os.getpid()), *command]


def environment_without_secrets() -> dict[str, str]:
    """Return the environment for a process that runs libraries of others."""
    return {
        name: value
        for name, value in os.environ.items()
        if not (_SECRET_NAME.search(name) or _URL_WITH_USER.search(value))
    }


def limit_memory_arenas() -> None:
    """Have glibc keep free memory in two places, not in eight for each core; before any thread.

    48 reloads of a model of 10 MB left 31 MB more in the process, with this and
    `return_free_memory` 2 MB.
    """
    # Another C library has no arenas and neither of the two functions.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def return_free_memory() -> None:
    """Return memory that glibc keeps for later to the system."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def processes_using(nodes: Iterable[Path]) -> dict[int, str]:
    """Return the visible processes that have one of the device nodes open: name by process id."""
    wanted, found = set(nodes), {}
    try:
        processes = sorted(Path("/proc").glob("[0-9]*"))
    except OSError:
        # This process has no descriptor left to list them.
        return {}
    for process in processes:
        try:
            if any(link.readlink() in wanted for link in (process / "fd").iterdir()):
                name = (process / "comm").read_text(errors="replace").strip()
                found[int(process.name)] = name
        except OSError:
            # The process belongs to another user, or has exited.
            continue
    return found


def exit_description(code: int) -> str:
    """Return how a process ended, after its name: `ended with code 3`, `was ended by SIGABRT`."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
