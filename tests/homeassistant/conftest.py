"""Fixtures of the tests in a real Home Assistant."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.homeassistant.home import RELEASES, Home

TOOLS = ("debootstrap", "unshare", "nsenter", "setpriv", "ip", "mosquitto", "mosquitto_pub")


@pytest.fixture(scope="session", params=os.environ.get("SUITES", "").split() or list(RELEASES))
def home(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Home]:
    """Return a running Home Assistant of each release, with the MQTT integration."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if os.geteuid() != 0 or absent:
        pytest.fail(f"these tests need root and {' '.join(absent)}: make test-homeassistant")
    folder: Path = tmp_path_factory.mktemp("home") / "home"
    with Home(folder, request.param) as running:
        yield running
