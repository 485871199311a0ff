"""A Debian of its own in a folder, with libcamera, picamera2 and edgepose as a user installs them.

Made once and kept in the user's cache; only edgepose itself is installed anew each time.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

CHECKOUT: Final = Path(__file__).parents[2]
INSIDE: Final = Path(__file__).parent / "inside"
CACHE: Final = Path.home() / ".cache" / "edgepose-tests"
MIRROR: Final = os.environ.get("EDGEPOSE_DEBIAN_MIRROR", "http://deb.debian.org/debian")

SUITE: Final = "trixie"
# Debian's own Trixie has a libcamera without the virtual camera; Raspberry Pi OS has 0.7 too.
BACKPORTED: Final = ("python3-libcamera", "libcamera-ipa")
PACKAGES: Final = (
    *("python3-venv", "python3-pip", "python3-numpy", "python3-prctl", "libarchive13t64"),
    # picamera2 is no package of Debian's; one of its dependencies is built from its source.
    *("python3-dev", "gcc", "libc6-dev"),
)
PICAMERA2: Final = "picamera2==0.3.38"
STAND_IN: Final = "/usr/local/lib/stand_in.so"
SITE: Final = "usr/local/lib/python3.13/dist-packages"
VENV: Final = "opt/edgepose"
CONFIG: Final = "usr/share/libcamera/pipeline/virtual/virtual.yaml"
DESK: Final = "/desk"
"""Where a test's folder is seen inside: the camera's configuration, its pictures, its orders."""

_MOUNT_AND_ENTER: Final = """
set -e
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount --rbind /etc/ssl/certs "$1/etc/ssl/certs"
mount --bind "$2" "$1/desk"
mount --bind "$3" "$1/checkout"
mount -o remount,bind,ro "$1/checkout"
root="$1"
shift 3
exec chroot "$root" "$@"
"""


class Debian:
    """What is inside the folder, and how to run something there."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def command(self, words: Sequence[str], desk: Path) -> list[str]:
        """Return the command that runs `words` inside, as the very process that is started.

        The mounts are its own and go with it, however it ends.
        """
        return [
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-c", _MOUNT_AND_ENTER, "enter"),
            *(str(self.root), str(desk), str(CHECKOUT)),
            *("env", "-C", "/", *words),
        ]

    def run(self, *words: str, log: IO[str], desk: Path = INSIDE) -> None:
        """Run something to its end; raises CalledProcessError."""
        subprocess.run(
            self.command(words, desk), check=True, stdout=log, stderr=log, env=environment()
        )

    def python(
        self, desk: Path, *words: str, log: IO[str], settings: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """Start edgepose's Python with a camera before it; `settings` are of its environment."""
        # Set inside only: the programs of this machine on the way there must not load it.
        camera = (
            f"LD_PRELOAD={STAND_IN}",
            f"CAMERA_ORDERS={DESK}/orders",
            f"CAMERA_LOCK={DESK}/lock",
            "LIBCAMERA_LOG_LEVELS=*:ERROR",
        )
        return subprocess.Popen(
            self.command((*camera, *settings, f"/{VENV}/bin/python", *words), desk),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(),
        )


def environment() -> dict[str, str]:
    """Return this machine's environment, less what means its own Python and folders."""
    mine = {
        name: value
        for name, value in os.environ.items()
        if not re.match(r"PYTHON|VIRTUAL_ENV|LD_|NOTIFY_SOCKET|WATCHDOG|MAKE|MFLAGS", name)
    }
    paths = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        **mine,
        "PATH": paths,
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_CACHE_DIR": "1",
    }


def prepared() -> Debian:
    """Return the Debian with this checkout's edgepose in it, made first where it is not there."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "picamera2.log").open("w") as log:
        debian = _system(log)
        _camera(debian, log)
        _edgepose(debian, log)
    return debian


def _system(log: IO[str]) -> Debian:
    recipe = " ".join((SUITE, *BACKPORTED, *PACKAGES, PICAMERA2))
    root = CACHE / "picamera2"
    stamp = root / "recipe"
    if stamp.is_file() and stamp.read_text() == recipe:
        return Debian(root)
    say(f"making a Debian {SUITE} with libcamera and picamera2 in {root} (1.3 GB, a minute or two)")
    fresh = CACHE / "picamera2.new"
    for leftover in (fresh, root):
        shutil.rmtree(leftover, ignore_errors=True)
    subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, fresh, MIRROR],
        check=True, stdout=log, stderr=log, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    debian = Debian(fresh)
    for name in ("desk", "checkout"):
        (fresh / name).mkdir()
    for path in map(Path, ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf")):
        if path.is_file():
            shutil.copyfile(path, fresh / path.relative_to("/"))
    backports = fresh / "etc/apt/sources.list.d/backports.list"
    backports.write_text(f"deb {MIRROR} {SUITE}-backports main\n")
    install = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends")
    debian.run("apt-get", "update", "--quiet", log=log)
    debian.run(*install, "--target-release", f"{SUITE}-backports", *BACKPORTED, log=log)
    debian.run(*install, *PACKAGES, log=log)
    debian.run("apt-get", "clean", log=log)
    pip = ("python3", "-m", "pip", "install", "--quiet")
    debian.run(*pip, "--break-system-packages", PICAMERA2, log=log)
    (fresh / CONFIG).unlink(missing_ok=True)
    (fresh / CONFIG).parent.mkdir(parents=True, exist_ok=True)
    (fresh / CONFIG).symlink_to(f"{DESK}/cameras.yaml")
    (fresh / "recipe").write_text(recipe)
    fresh.rename(root)
    return Debian(root)


def _camera(debian: Debian, log: IO[str]) -> None:
    """Build and put in place what makes libcamera's virtual camera one to test with."""
    compiler = ("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
    debian.run(*compiler, "-o", STAND_IN, f"{DESK}/stand_in.c", log=log)
    for name in ("virtual_camera.py", "pykms.py"):
        shutil.copyfile(INSIDE / name, debian.root / SITE / name)
    (debian.root / SITE / "virtual_camera.pth").write_text("import virtual_camera\n")


def _edgepose(debian: Debian, log: IO[str]) -> None:
    project = (CHECKOUT / "pyproject.toml").read_bytes()
    stamp = debian.root / VENV / "dependencies"
    python = f"/{VENV}/bin/python"
    pip = (python, "-m", "pip", "install", "--quiet")
    wanted = hashlib.sha256(project).hexdigest()
    if not stamp.is_file() or stamp.read_text() != wanted:
        say("installing edgepose with its dependencies there")
        shutil.rmtree(debian.root / VENV, ignore_errors=True)
        debian.run("python3", "-m", "venv", "--system-site-packages", f"/{VENV}", log=log)
        debian.run(*pip, "hatchling", log=log)
        debian.run(*pip, "--no-build-isolation", "/checkout", log=log)
        stamp.write_text(wanted)
    debian.run(*pip, "--no-build-isolation", "--no-deps", "--force-reinstall", "/checkout", log=log)


def say(text: str) -> None:
    """Tell whoever waits."""
    sys.stderr.write(f"== {text}\n")
    sys.stderr.flush()
