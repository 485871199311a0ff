"""`edgepose setup`, answered as on a terminal."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgepose.cli import setup as cli_setup
from edgepose.config.loader import load_config
from edgepose.first_setup import writing
from edgepose.first_setup.brokers import parse_browse
from edgepose.first_setup.cameras import person_in_words
from tests.builders import frame_of, poses_of
from tests.mosquitto import PASSWORD, USERNAME, Mosquitto

BROWSE = """\
+;eth0;IPv4;Mosquitto\\032on\\032nas;_mqtt._tcp;local
=;eth0;IPv4;Mosquitto\\032on\\032nas;_mqtt._tcp;local;nas.local;192.168.1.7;1883;
=;eth0;IPv6;Mosquitto\\032on\\032nas;_mqtt._tcp;local;nas.local;fe80::7;1883;
"""


def setup(path: Path, *answers: str) -> subprocess.CompletedProcess[str]:
    """Run it with these answers, one a question."""
    return subprocess.run(
        [sys.executable, "-m", "edgepose", "setup", "-o", str(path)],
        input="".join(f"{answer}\n" for answer in answers),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        # Without a terminal of the tests, from which a password would be read.
        start_new_session=True,
    )


def test_setup_writes_a_configuration_that_runs(tmp_path: Path, password_broker: Mosquitto) -> None:
    """Camera and broker are tried, wrong answers are asked again, and the password is private."""
    path = tmp_path / "new" / "config.yaml"
    camera = ("nowhere:7", "n", "synthetic:")
    wrong = (password_broker.url, USERNAME, "wrong", "n")
    done = setup(path, "my gym", "gym", *camera, *wrong, "", USERNAME, PASSWORD, "n")
    assert done.returncode == 0, done.stderr
    assert "expected 1 to 64 of the characters" in done.stdout
    assert "unknown source nowhere:" in done.stdout
    assert "it shows: 640x480, a person " in done.stdout
    assert "refuses the login" in done.stdout
    assert "logged in with MQTT 5" in done.stdout
    config = load_config(path)
    assert (config.node, config.cameras[0].source) == ("gym", "synthetic:")
    assert config.mqtt.address.netloc == password_broker.url.removeprefix("mqtt://")
    assert not config.homeassistant.enabled
    secret = config.mqtt.read_password()
    assert secret is not None
    assert secret.reveal() == PASSWORD
    assert PASSWORD not in path.read_text() + done.stdout + done.stderr
    for file in (path, path.with_name("mqtt-password")):
        assert file.stat().st_mode & 0o777 == 0o600
    assert {file.name for file in path.parent.iterdir()} == {"config.yaml", "mqtt-password"}


def test_setup_replaces_nothing_unasked(tmp_path: Path) -> None:
    """The default answer keeps an existing configuration."""
    path = tmp_path / "config.yaml"
    path.write_text("node: mine\n")
    done = setup(path, "")
    assert done.returncode == 0
    assert "exists. Replace it?" in done.stdout
    assert path.read_text() == "node: mine\n"


def test_setup_interrupted(tmp_path: Path) -> None:
    """The end of the input, or Ctrl-C, writes nothing."""
    path = tmp_path / "config.yaml"
    done = setup(path, "gym")
    assert done.returncode == 130
    assert done.stderr.endswith("edgepose: interrupted\n")
    assert not path.exists()


SYSTEMCTL = """\
#!/bin/sh
folder=$(dirname "$0")
case $1 in
  show) cat "$folder/state" ;;
  stop) echo ActiveState=inactive >"$folder/state"; echo LoadState=loaded >>"$folder/state" ;;
  start) echo ActiveState=active >"$folder/state"; echo LoadState=loaded >>"$folder/state" ;;
esac
[ "$1" = show ] || echo "$1 $2" >>"$folder/calls"
"""


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a systemctl with an active service: its `state`, and the `calls`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "systemctl"
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    (folder / "state").write_text("LoadState=loaded\nActiveState=active\n")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


@pytest.fixture
def system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the configuration of the service, with comments only, as it is installed."""
    path = tmp_path / "etc/config.yaml"
    path.parent.mkdir()
    path.write_text("# node: gym\n")
    for module in (writing, cli_setup):
        monkeypatch.setattr(module, "SYSTEM_FILE", path)
    monkeypatch.setattr(writing, "default_path", lambda: path)
    return path


def test_setup_stops_the_service_that_has_the_camera(
    systemctl: Path, system_file: Path, broker: Mosquitto
) -> None:
    """It is started again with what was written; defaults are replaced unless the answer is no."""
    answers = ("", "gym", "synthetic:", broker.url, "", "")
    done = CliRunner().invoke(cli_setup.command, input="".join(f"{a}\n" for a in answers))
    assert done.exit_code == 0, done.output
    assert "exists, with the defaults only. Replace it? [Y/n]" in done.output
    assert (systemctl / "calls").read_text().splitlines()[:2] == ["stop edgepose", "start edgepose"]
    assert done.output.endswith(
        "The service runs with it. Check everything: sudo edgepose doctor\n"
    )
    assert load_config(system_file).node == "gym"


def test_setup_interrupted_starts_the_service_again(systemctl: Path, system_file: Path) -> None:
    """The service runs as before."""
    before = system_file.read_text()
    done = CliRunner().invoke(cli_setup.command, input="y\ngym\n")
    assert done.exit_code != 0
    assert (systemctl / "calls").read_text().splitlines() == ["stop edgepose", "start edgepose"]
    assert system_file.read_text() == before


def test_write_config_for_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its password is a systemd credential, so that only root can read it."""
    system, credential = tmp_path / "etc/config.yaml", tmp_path / "credstore/edgepose.mqtt-password"
    monkeypatch.setattr(writing, "SYSTEM_FILE", system)
    monkeypatch.setattr(writing, "CREDENTIAL", credential)
    monkeypatch.setattr(writing, "SERVICE_USER", "no-such-group")
    values = {"node": "gym", "mqtt": {"url": "mqtt://host:1883", "username": "u"}}
    assert writing.write_config(system, values, "secret") == [system, credential]
    assert credential.read_text() == "secret\n"
    assert credential.stat().st_mode & 0o777 == 0o600
    assert "password" not in system.read_text()
    # Readable for the service, which has another user.
    assert system.stat().st_mode & 0o777 == 0o644


def test_parse_browse() -> None:
    """Each resolved host once."""
    assert parse_browse(BROWSE) == [("nas.local", 1883)]


@pytest.mark.parametrize(
    ("x", "torso_px", "words"),
    [
        (100, 100, "a person at the left, about 3 m away"),
        (320, 53, "a person in the middle, about 5 m away"),
        (600, 400, "a person at the right, about 1 m away"),
    ],
)
def test_person_in_words(x: int, torso_px: int, words: str) -> None:
    """A torso of half a metre, seen by a camera of 62 degrees: 0.5 * 640 / 100 / 1.2 m."""
    points = np.full((17, 2), (x, 20), np.float32)
    points[11:] = (x, 20 + torso_px)
    assert person_in_words(poses_of(points), frame_of((640, 480))) == words
