"""A Debian chroot with libcamera, picamera2 and edgepose as a user installs them.

Built once in the user's cache; only edgepose itself is installed again each time.
"""

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from tests.chroot import CACHE, CHECKOUT, MIRROR, TEST_FOLDER, Chroot, cached, environment, report

INSIDE: Final = Path(__file__).parent / "inside"

SUITE: Final = "trixie"
# Trixie's own libcamera lacks the virtual camera; Raspberry Pi OS has 0.7 as well.
BACKPORTED: Final = ("python3-libcamera", "libcamera-ipa")
PACKAGES: Final = (
    *("python3-venv", "python3-pip", "python3-numpy", "python3-prctl", "libarchive13t64"),
    # Debian has no package of picamera2; one of its dependencies is built from source.
    *("python3-dev", "gcc", "libc6-dev"),
)
PICAMERA2: Final = "picamera2==0.3.38"
FAULTS_LIBRARY: Final = "/usr/local/lib/camera_faults.so"
SITE: Final = "usr/local/lib/python3.13/dist-packages"
VENV: Final = "opt/edgepose"
CONFIG: Final = "usr/share/libcamera/pipeline/virtual/virtual.yaml"


class Debian(Chroot):
    """The chroot, and how to run programs in it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, INSIDE)

    def python(
        self, folder: Path, *words: str, log: IO[str], settings: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """Start edgepose's Python with a virtual camera; `settings` are environment variables."""
        # Set in the chroot only: the host's programs on the way there must not load it.
        camera = (
            f"LD_PRELOAD={FAULTS_LIBRARY}",
            f"CAMERA_COMMAND={TEST_FOLDER}/command",
            f"CAMERA_LOCK={TEST_FOLDER}/lock",
            "LIBCAMERA_LOG_LEVELS=*:ERROR",
        )
        return subprocess.Popen(
            self.command((*camera, *settings, f"/{VENV}/bin/python", *words), folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(),
        )


def prepared() -> Debian:
    """Return the chroot with this checkout's edgepose, built first if there is none."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "picamera2.log").open("w") as log:
        debian = _system(log)
        _camera(debian, log)
        _edgepose(debian, log)
    return debian


def _system(log: IO[str]) -> Debian:
    def make(root: Path) -> None:
        subprocess.run(
            ["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, root, MIRROR],
            check=True, stdout=log, stderr=log, env=environment(),
        )  # fmt: skip
        debian = Debian(root)
        debian.furnish()
        backports = root / "etc/apt/sources.list.d/backports.list"
        backports.write_text(f"deb {MIRROR} {SUITE}-backports main\n")
        install = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends")
        debian.run("apt-get", "update", "--quiet", log=log)
        debian.run(*install, "--target-release", f"{SUITE}-backports", *BACKPORTED, log=log)
        debian.run(*install, *PACKAGES, log=log)
        debian.run("apt-get", "clean", log=log)
        pip = ("python3", "-m", "pip", "install", "--quiet")
        debian.run(*pip, "--break-system-packages", PICAMERA2, log=log)
        (root / CONFIG).unlink(missing_ok=True)
        (root / CONFIG).parent.mkdir(parents=True, exist_ok=True)
        (root / CONFIG).symlink_to(f"{TEST_FOLDER}/cameras.yaml")

    recipe = " ".join((TEST_FOLDER, SUITE, *BACKPORTED, *PACKAGES, PICAMERA2))
    what = f"a Debian {SUITE} with libcamera and picamera2 (1.3 GB, a minute or two)"
    return Debian(cached("picamera2", recipe, what, make))


def _camera(debian: Debian, log: IO[str]) -> None:
    """Build and install what makes libcamera's virtual camera usable for tests."""
    compiler = ("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
    debian.run(*compiler, "-o", FAULTS_LIBRARY, f"{TEST_FOLDER}/faults.c", log=log)
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
        report("installing edgepose with its dependencies there")
        shutil.rmtree(debian.root / VENV, ignore_errors=True)
        debian.run("python3", "-m", "venv", "--system-site-packages", f"/{VENV}", log=log)
        debian.run(*pip, "hatchling", log=log)
        debian.run(*pip, "--no-build-isolation", "/checkout", log=log)
        stamp.write_text(wanted)
    debian.run(*pip, "--no-build-isolation", "--no-deps", "--force-reinstall", "/checkout", log=log)
