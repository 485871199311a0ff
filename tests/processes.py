"""The processes of this machine, from /proc."""

import os
import time
from pathlib import Path


def children(pid: int) -> set[int]:
    """Return the running child processes of all threads of a process.

    The children of a thread that ends become those of another one, so all are read again if a
    thread ends meanwhile.
    """
    tasks = Path(f"/proc/{pid}/task")
    while True:
        try:
            return {
                int(child)
                for task in tasks.iterdir()
                for child in (task / "children").read_text().split()
            }
        except (FileNotFoundError, ProcessLookupError):
            # Raises ProcessLookupError if the process itself has ended.
            os.kill(pid, 0)


def is_idle(pid: int) -> bool:
    """Return whether a process used no processor time during 0.1 s."""
    before = _cpu_ticks(pid)
    time.sleep(0.1)
    return _cpu_ticks(pid) == before


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
