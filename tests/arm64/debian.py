"""A Debian for arm64, with edgepose in it, on an emulated processor of a Raspberry Pi.

Made once for each suite and kept in the user's cache. Inside, everything is arm64: Debian's Python
and the wheels that a Pi gets.
"""

import hashlib
import subprocess
from pathlib import Path
from typing import IO, Final

from tests.chroot import CACHE, CHECKOUT, MIRROR, Chroot, environment, kept

CPUS: Final = {
    # Without the instructions for dot products, and with them; the models run on other code.
    "Raspberry Pi 4": "cortex-a72",
    "Raspberry Pi 5": "cortex-a76",
}
CPU: Final = CPUS["Raspberry Pi 4"]
PYTHON: Final = "/opt/edgepose/bin/python"
CORES: Final = 2
BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")

# The runtime reads what cores there are from these; this machine's own would be another kind's.
_CORE: Final = """\
processor\t: {number}
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
_SYSTEM_CPUS: Final = "sys/devices/system/cpu"


def require_emulator() -> None:
    """Have the kernel hand arm64 programs to the emulator, as installing it mostly does."""
    if not BINFMT.joinpath("status").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)], check=True)
    if not BINFMT.joinpath("qemu-aarch64").exists():
        subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"], check=True)


def prepared(suite: str, desk: Path) -> Chroot:
    """Return the Debian of a suite, made first where it is not there or asks for something else."""
    CACHE.mkdir(parents=True, exist_ok=True)
    project = (CHECKOUT / "pyproject.toml").read_bytes()
    with (CACHE / f"arm64-{suite}.log").open("w") as log:

        def system(root: Path) -> None:
            include = "--include=ca-certificates,python3,python3-venv"
            subprocess.run(
                ["debootstrap", "--arch=arm64", "--variant=minbase", include, suite, root, MIRROR],
                check=True, stdout=log, stderr=log, env=environment(),
            )  # fmt: skip
            Chroot(root, desk).furnish()
            _pretend(root)
            _install(Chroot(root, desk), log)

        recipe = f"{hashlib.sha256(project).hexdigest()} {_CORE}"
        return Chroot(kept(f"arm64-{suite}", recipe, f"a Debian {suite} for arm64", system), desk)


def _pretend(root: Path) -> None:
    (root / "srv/cpuinfo").write_text("".join(_CORE.format(number=n) for n in range(CORES)))
    (root / _SYSTEM_CPUS).mkdir(parents=True)
    for name in ("possible", "present"):
        (root / _SYSTEM_CPUS / name).write_text(f"0-{CORES - 1}\n")


def _install(debian: Chroot, log: IO[str]) -> None:
    debian.run("python3", "-m", "venv", "/opt/edgepose", log=log)
    # What `make test` installs. Wheels only: a Pi would compile for an hour.
    pip = (PYTHON, "-m", "pip", "install", "--quiet", "--only-binary", ":all:")
    debian.run(*pip, "--editable", "/checkout[all,dev]", log=log)
