"""The Debian package for arm64 in a bare Debian, on an emulated processor of a Raspberry Pi.

Run by `make test-deb ARCH=arm64` on another machine; an emulated machine does not boot here.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.arm64.debian import CPU, require_emulator
from tests.chroot import MIRROR, TEST_FOLDER, Chroot, cached, environment

pytestmark = [pytest.mark.deb, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
SUITES = os.environ.get("SUITES", "").split() or ["bookworm", "trixie"]
DEBS = Path(os.environ.get("DEBS", ROOT / "dist"))
PHOTOGRAPH = "edgepose/assets/astronaut.jpg"


def bare(suite: str) -> Path:
    """Return a Debian without Python, built first if there is none."""

    def make(fresh: Path) -> None:
        kind = ("--arch=arm64", "--variant=minbase", "--include=ca-certificates")
        words = ("debootstrap", *kind, suite, str(fresh), MIRROR)
        subprocess.run(words, check=True, capture_output=True, env=environment())
        Chroot(fresh, ROOT).furnish()

    return cached(f"deb-arm64-{suite}", "1", f"a Debian {suite} for arm64", make)


class Pi:
    """A Debian in which nothing that is done is kept."""

    def __init__(self, suite: str, folder: Path) -> None:
        self.share = folder / "share"
        self._root = folder / "root"
        for name in ("share", "root", "upper", "work"):
            (folder / name).mkdir()
        layers = f"lowerdir={bare(suite)},upperdir={folder}/upper,workdir={folder}/work"
        subprocess.run(["mount", "-t", "overlay", "pi", "-o", layers, self._root], check=True)
        self._chroot = Chroot(self._root, self.share)

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root."""
        done = subprocess.run(
            self._chroot.command(words, self.share),
            capture_output=True,
            text=True,
            env={**environment(), "QEMU_CPU": CPU},
        )
        assert not check or done.returncode == 0, (words, done.stdout[-3000:], done.stderr[-3000:])
        return done

    def close(self) -> None:
        subprocess.run(["umount", self._root], check=True)


@pytest.fixture(scope="module", params=SUITES)
def pi(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pi]:
    """Return a Debian with the package in its share."""
    tools = ("debootstrap", "qemu-aarch64-static", "unshare", "mount")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if os.geteuid() != 0 or not all(shutil.which(tool, path=path) for tool in tools):
        pytest.fail(f"this test needs root and {' '.join(tools)}: make test-deb ARCH=arm64")
    require_emulator()
    suite = request.param
    (package,) = DEBS.glob(f"edgepose_*~{suite}_arm64.deb")
    emulated = Pi(suite, tmp_path_factory.mktemp(suite))
    try:
        shutil.copy(package, emulated.share / "edgepose.deb")
        shutil.copy(ROOT / PHOTOGRAPH, emulated.share)
        yield emulated
    finally:
        emulated.close()


def test_emulated_package_installs_and_finds_the_pose(pi: Pi) -> None:
    """apt fetches Python, which the Debian lacks; edgepose then runs on a processor of a Pi."""
    pi.run("apt-get", "-q", "update")
    package = f"{TEST_FOLDER}/edgepose.deb"
    pi.run("apt-get", "-y", "-q", "install", "--no-install-recommends", package)
    assert pi.run("uname", "-m").stdout.strip() == "aarch64"
    assert pi.run("edgepose", "--version").stdout.startswith("edgepose, version ")
    done = pi.run("edgepose", "estimate", f"{TEST_FOLDER}/{Path(PHOTOGRAPH).name}")
    (pose,) = json.loads(done.stdout)["poses"]
    # The nose of the woman in the photograph.
    assert pose["keypoints"][0][:2] == pytest.approx([0.44, 0.22], abs=0.03)
    report = json.loads(pi.run("edgepose", "doctor", "--format", "json", check=False).stdout)
    statuses = {check["name"]: check["status"] for check in report["checks"]}
    # Each group of checks ends after 8 s, which the others need for the start when emulated.
    assert statuses["config"] == "ok", report
    assert report["ok"] is False, "there is no camera"
