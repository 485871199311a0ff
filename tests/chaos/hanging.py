"""A folder whose files hang, as on a dead network disk or below a driver that never answers."""

import time
from pathlib import Path

from tests.chaos.rig import preloaded


class HangingFolder:
    """A folder for a process with `environment`; other processes are not affected.

    The status of a file hangs too on a dead network disk, `even_status`, but not below a driver.
    Unlike a frozen disk, it needs no root, and a process in it can be killed.
    """

    def __init__(self, folder: Path, *, even_status: bool = False) -> None:
        self.path = folder / "hanging"
        self.path.mkdir()
        self._mark = folder / "hangs"
        self.environment = {
            **preloaded(folder, "hanging_folder"),
            "HANG_FILE": str(self._mark),
            "HANG_FOLDER": f"{self.path}/",
            **({"HANG_STAT": "1"} if even_status else {}),
        }

    def hang(self) -> float:
        """Hang from now on; return when, on the monotonic clock."""
        self._mark.touch()
        return time.monotonic()

    def recover(self) -> float:
        """Work again; return when, on the monotonic clock."""
        self._mark.unlink()
        return time.monotonic()
