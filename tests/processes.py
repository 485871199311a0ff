"""The processes of this machine, as the kernel tells of them."""

import os
from pathlib import Path


def children(pid: int) -> set[int]:
    """Return the processes that the threads of a process started and that still are.

    The children of a thread that ends become those of another one: what was read until then
    may lack them, so all of it is read again.
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
            # The process itself may be what is gone: that is for whoever asked.
            os.kill(pid, 0)
