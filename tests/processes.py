"""The processes of this machine, from /proc."""

import os
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
