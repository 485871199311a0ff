"""A Debian for arm64 with edgepose, on an emulated processor of a Raspberry Pi.

Built once per suite in the user's cache. Inside, everything is arm64: Debian's Python and the
wheels of a Pi.
"""

import hashlib
import subprocess
from pathlib import Path
from typing import IO, Final

from tests.chroot import CACHE, CHECKOUT, MIRROR, TEST_FOLDER, Chroot, cached, environment

CPUS: Final = {
    # Without and with the dot product instructions, for which the runtime has separate code.
    "Raspberry Pi 4": "cortex-a72",
    "Raspberry Pi 5": "cortex-a76",
}
CPU: Final = CPUS["Raspberry Pi 4"]
PYTHON: Final = "/opt/edgepose/bin/python"
CORES: Final = 2
BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")

# The runtime reads the kind of the cores from these; the host's files are of another kind.
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
    """Register the emulator for arm64 programs in the kernel."""
    if not BINFMT.joinpath("status").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)], check=True)
    if not BINFMT.joinpath("qemu-aarch64").exists():
        subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"], check=True)


def prepared(suite: str, folder: Path) -> Chroot:
    """Return the Debian of a suite, built first if it is missing or outdated."""
    CACHE.mkdir(parents=True, exist_ok=True)
    project = (CHECKOUT / "pyproject.toml").read_bytes()
    with (CACHE / f"arm64-{suite}.log").open("w") as log:

        def system(root: Path) -> None:
            include = "--include=ca-certificates,python3,python3-venv"
            subprocess.run(
                ["debootstrap", "--arch=arm64", "--variant=minbase", include, suite, root, MIRROR],
                check=True, stdout=log, stderr=log, env=environment(),
            )  # fmt: skip
            Chroot(root, folder).furnish()
            _write_cpu_files(root)
            _install(Chroot(root, folder), log)

        recipe = f"{hashlib.sha256(project).hexdigest()} {_CORE} {TEST_FOLDER}"
        return Chroot(
            cached(f"arm64-{suite}", recipe, f"a Debian {suite} for arm64", system), folder
        )


def _write_cpu_files(root: Path) -> None:
    (root / "srv/cpuinfo").write_text("".join(_CORE.format(number=n) for n in range(CORES)))
    (root / _SYSTEM_CPUS).mkdir(parents=True)
    for name in ("possible", "present"):
        (root / _SYSTEM_CPUS / name).write_text(f"0-{CORES - 1}\n")


def _install(debian: Chroot, log: IO[str]) -> None:
    debian.run("python3", "-m", "venv", "/opt/edgepose", log=log)
    # The same as `make test`. Wheels only: a Pi would compile for an hour.
    pip = (PYTHON, "-m", "pip", "install", "--quiet", "--only-binary", ":all:")
    debian.run(*pip, "--editable", "/checkout[all,dev]", log=log)
