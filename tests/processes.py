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
    before = cpu_seconds(pid)
    time.sleep(0.1)
    return cpu_seconds(pid) == before


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Return how much memory of a process is in RAM."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
