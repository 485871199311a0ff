"""A chroot with a Debian, kept in the user's cache, for tests that need one."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Final

CHECKOUT: Final = Path(__file__).parents[1]
CACHE: Final = Path.home() / ".cache" / "edgepose-tests"
MIRROR: Final = os.environ.get("EDGEPOSE_DEBIAN_MIRROR", "http://deb.debian.org/debian")
TEST_FOLDER: Final = "/test"
"""Where the folder of a test is mounted inside."""

_MOUNT_AND_ENTER: Final = """
set -e
mount -t proc proc "$1/proc"
[ ! -e "$1/srv/cpuinfo" ] || mount --bind "$1/srv/cpuinfo" "$1/proc/cpuinfo"
mount --rbind /dev "$1/dev"
mount --rbind /etc/ssl/certs "$1/etc/ssl/certs"
mount --bind "$2" "$1/test"
mount --bind "$3" "$1/checkout"
mount -o remount,bind,ro "$1/checkout"
root="$1"
shift 3
exec chroot "$root" "$@"
"""


class Chroot:
    """A system in a folder; inside, the checkout is at /checkout, read-only."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self._folder = folder

    def furnish(self) -> None:
        """Make the mount points, and give apt and pip the settings of the host."""
        for name in ("test", "checkout"):
            (self.root / name).mkdir()
        for path in map(Path, ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf")):
            if path.is_file():
                shutil.copyfile(path, self.root / path.relative_to("/"))

    def command(self, words: Sequence[str], folder: Path) -> list[str]:
        """Return the command that runs `words` inside, without an intermediate process.

        The mounts are private and end with it.
        """
        return [
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-c", _MOUNT_AND_ENTER, "enter"),
            *(str(self.root), str(folder), str(CHECKOUT)),
            *("env", "-C", "/", *words),
        ]

    def run(self, *words: str, log: IO[str]) -> None:
        """Run a command; raises CalledProcessError if it fails."""
        command = self.command(words, self._folder)
        subprocess.run(command, check=True, stdout=log, stderr=log, env=environment())


def cached(name: str, recipe: str, what: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of the user's cache, built first if missing or of another recipe."""
    CACHE.mkdir(parents=True, exist_ok=True)
    root, fresh = CACHE / name, CACHE / f"{name}.new"
    with (CACHE / f"{name}.lock").open("w") as lock:
        # Another run of the tests may be building it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = root / "recipe"
        if not stamp.is_file() or stamp.read_text() != recipe:
            report(f"building {what} in {root}")
            for leftover in (fresh, root):
                shutil.rmtree(leftover, ignore_errors=True)
            make(fresh)
            (fresh / "recipe").write_text(recipe)
            fresh.rename(root)
    return root


def environment() -> dict[str, str]:
    """Return the environment without the variables of the host's Python and service."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not re.match(r"PYTHON|VIRTUAL_ENV|LD_|NOTIFY_SOCKET|WATCHDOG|MAKE|MFLAGS", name)
    }
    paths = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        **inherited,
        "PATH": paths,
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_CACHE_DIR": "1",
    }


def report(text: str) -> None:
    """Print progress to stderr."""
    sys.stderr.write(f"== {text}\n")
    sys.stderr.flush()
