"""The Debian package from `apt install` to `apt purge`, in a booted Debian without anything else.

Run by `make test-deb`; the tests of a suite follow each other on one machine.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mosquitto import wait_for
from tests.systemd.container import ROOT, Container, Image, Subscriber, require_container_tools
from tests.systemd.machine import BASIC, CONFIG, STATE, Machine

pytestmark = [pytest.mark.deb, pytest.mark.timeout(1800)]

SUITES = os.environ.get("SUITES", "").split() or ["bookworm", "trixie"]
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
DEBS = Path(os.environ.get("DEBS", ROOT / "dist"))
UNITS_OF_MAKE = "/usr/local/lib/systemd/system"
APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q")
NEWER = "99.0"


def package_of(suite: str) -> Path:
    """Return the package that `make deb` has built; fail without it."""
    found = sorted(DEBS.glob(f"edgepose_*~{suite}_{ARCH}.deb"))
    if len(found) != 1:
        pytest.fail(f"expected one package of {suite} in {DEBS}, got {found}: make test-deb")
    return found[0]


def upgraded(package: Path, folder: Path) -> Path:
    """Return the same package with a higher version."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {NEWER}", control.read_text()))
    newer = folder / "newer.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, newer],
        check=True,
        capture_output=True,
    )
    shutil.rmtree(tree)
    return newer


@pytest.fixture(scope="module", params=SUITES)
def machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """Return a Debian with both versions of the package in /srv/share."""
    require_container_tools()
    package = package_of(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    checkout = folder / "checkout"
    checkout.mkdir()
    shutil.copy(ROOT / "edgepose/assets/astronaut.jpg", checkout)
    with Container(Image(request.param).make(), checkout, folder) as container:
        shutil.copy(package, container.share / "first.deb")
        shutil.move(upgraded(package, folder), container.share / "newer.deb")
        container.run("useradd", "--create-home", "person")
        machine = Machine(container)
        machine.before = machine.files()
        yield machine


def test_package_refuses_beside_make_install(machine: Machine) -> None:
    """Its units would be hidden by those of `make install`."""
    container = machine.container
    container.write(f"{UNITS_OF_MAKE}/edgepose.service", "[Unit]\n")
    done = container.run(*APT, "install", "/srv/share/first.deb", check=False, timeout_s=300)
    assert done.returncode != 0
    assert "run `make uninstall`" in done.stdout + done.stderr
    container.run("rm", "-r", "/usr/local/lib/systemd")
    container.run("dpkg", "--purge", "edgepose", check=False)


def test_package_installs(machine: Machine) -> None:
    """One command, without a network: user, folders, service, and a command for everyone."""
    container = machine.container
    container.run(*APT, "install", "--no-install-recommends", "/srv/share/first.deb", timeout_s=600)
    assert container.property("edgepose", "UnitFileState") == "enabled"
    wait_for(lambda: container.property("edgepose", "ActiveState") == "active", "the service", 60)
    assert container.output("stat", "-c", "%a %U %G", CONFIG) == "640 root edgepose"
    assert container.output("stat", "-c", "%a %U", STATE) == "755 edgepose"
    assert container.output("stat", "-c", "%a %U", f"{STATE}/models") == "755 root"
    person = ("runuser", "-u", "person", "--")
    assert container.output(*person, "edgepose", "--version").startswith("edgepose")
    done = container.run(*person, "edgepose", "estimate", "/srv/checkout/astronaut.jpg")
    assert f"{CONFIG} is not readable for this user" in done.stderr
    line = done.stdout
    (pose,) = json.loads(line)["poses"]
    # The nose of the woman in the photograph.
    assert pose["keypoints"][0][:2] == pytest.approx([0.44, 0.22], abs=0.03)
    # There is no camera, and picamera2 is only recommended.
    assert "sudo apt install python3-picamera2`" in container.journal("edgepose")
    licences = container.output("ls", "/usr/share/doc/edgepose/licences").split()
    assert any(name.startswith("opencv_python_headless") for name in licences)
    assert "numpy" in container.read("/usr/share/doc/edgepose/copyright")


def test_package_setup(machine: Machine, tmp_path: Path) -> None:
    """The second command: asks, tries the broker that it finds, and the service publishes poses."""
    container = machine.container
    with Subscriber(container, tmp_path / "log") as subscriber:
        answers = ("", "gym", "synthetic:", "", "", "")
        done = container.run("edgepose", "setup", stdin="".join(f"{a}\n" for a in answers))
        assert "with the defaults only. Replace it? [Y/n]" in done.stdout
        assert "The service is stopped until the end" in done.stdout
        assert "found: localhost:1883" in done.stdout
        assert "The service runs with it." in done.stdout
        subscriber.wait_for("edgepose/gym/main/poses")
    assert container.output("stat", "-c", "%a %U %G", CONFIG) == "640 root edgepose"


def test_package_service_publishes_poses(machine: Machine, tmp_path: Path) -> None:
    """The service, configured, publishes what it should, in its sandbox; and the doctor agrees."""
    with machine.serving(tmp_path / "log", BASIC) as subscriber:
        subscriber.wait_for("edgepose/gym/availability", "online")
        wait_for(
            lambda: any(
                json.loads(text)["poses"] for text in subscriber.payloads("edgepose/gym/main/poses")
            ),
            "a pose",
        )
        assert machine.exposure("edgepose.service") <= 2.0
        report = json.loads(machine.container.output("edgepose", "doctor", "--format", "json"))
        statuses = {check["name"]: check["status"] for check in report["checks"]}
        assert report["ok"], report
        assert statuses["service"] == statuses["broker"] == statuses["model"] == "ok"


def test_package_upgrade_keeps_the_configuration(machine: Machine, tmp_path: Path) -> None:
    """The running service is restarted with the new version; what was configured stays."""
    container = machine.container
    container.write(CONFIG, BASIC)
    with Subscriber(container, tmp_path / "log") as subscriber:
        container.run("systemctl", "restart", "edgepose")
        subscriber.wait_for("edgepose/gym/availability", "online")
        before = machine.pid()
        container.run(*APT, "install", "/srv/share/newer.deb", timeout_s=600)
        assert container.output("dpkg-query", "-W", "-f", "${Version}", "edgepose") == NEWER
        machine.wait_for_restart(before)
        subscriber.wait_for("edgepose/gym/main/poses", more_than=0)
    assert container.read(CONFIG) == BASIC


def test_package_removal_and_purge(machine: Machine) -> None:
    """Removal keeps configuration and state, purge leaves nothing."""
    container = machine.container
    container.run(*APT, "remove", "edgepose", timeout_s=300)
    assert container.property("edgepose", "LoadState") != "loaded"
    assert container.read(CONFIG) == BASIC
    assert container.exists(f"{STATE}/nodes/gym")
    assert not container.exists("/usr/lib/edgepose")
    assert not container.exists("/usr/bin/edgepose")
    container.run(*APT, "purge", "edgepose", timeout_s=300)
    left = {file for file in machine.files() - machine.before if "deb-systemd" not in file}
    assert left == set()
