"""A container with edgepose installed in it, for each suite of Debian."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.container import ROOT, Container, Image, require_container_tools
from tests.systemd.machine import CHECKOUT, Machine

SUITES = os.environ.get("SUITES", "").split() or ["bookworm", "trixie"]
NEEDED = ("edgepose", "models", "systemd", "config.yaml", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the parts of the checkout that the installation needs."""
    folder = tmp_path_factory.mktemp("checkout")
    folder.chmod(0o755)
    for name in (*NEEDED, "Makefile"):
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session", params=SUITES)
def machine(
    request: pytest.FixtureRequest, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """Return a Debian in which a user with sudo has run `make install`."""
    require_container_tools()
    image = Image(request.param).make()
    with Container(image, checkout, tmp_path_factory.mktemp(request.param)) as container:
        container.run("useradd", "--create-home", "person")
        container.write("/etc/sudoers.d/person", "person ALL=(ALL) NOPASSWD: ALL\n")
        container.run("runuser", "-u", "person", "--", "cp", "-r", "/srv/checkout", CHECKOUT)
        machine = Machine(container)
        machine.before = machine.files()
        machine.install_output = machine.make("install")
        yield machine
