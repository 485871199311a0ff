"""The automations of docs/examples in a real Home Assistant, with the check that it offers."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.chroot import TEST_FOLDER, environment
from tests.documents import example
from tests.homeassistant.home import CONFIGURATION, PYTHON, RELEASES, prepared

pytestmark = [pytest.mark.homeassistant, pytest.mark.timeout(3600)]

SUITES = os.environ.get("SUITES", "").split() or list(RELEASES)
# The function of `hass --script check_config`, which itself needs a package for its colours.
CHECK = f"""
import asyncio, json
from homeassistant.scripts.check_config import async_check_config
found = asyncio.run(async_check_config("{TEST_FOLDER}"))
print(json.dumps([len(found["automation"]), [str(one) for one in found.errors + found.warnings]]))
"""


def checked(suite: str, folder: Path, automations: str) -> tuple[int, list[str]]:
    """Return how many automations there are, and what is reported or logged of them."""
    folder.mkdir()
    include = "automation: !include automations.yaml\n"
    (folder / "configuration.yaml").write_text(CONFIGURATION + include)
    (folder / "automations.yaml").write_text(automations)
    words = prepared(suite).command((PYTHON, "-c", CHECK), folder)
    done = subprocess.run(words, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr[-2000:]
    count, problems = json.loads(done.stdout.splitlines()[-1])
    return count, [*problems, *(line for line in done.stderr.splitlines() if "utomation" in line)]


@pytest.mark.parametrize("suite", SUITES)
def test_example_automations_are_valid(suite: str, tmp_path: Path) -> None:
    """Without a complaint; a planted mistake has one, so the check is a check."""
    automations = example("home-assistant-automations.yaml").read_text()
    assert checked(suite, tmp_path / "good", automations) == (3, [])
    planted = automations.replace("trigger: state", "trigger: sate", 1)
    assert any("sate" in one for one in checked(suite, tmp_path / "bad", planted)[1])
