"""The service's files, held against systemd's own opinion and against what installs them."""

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from edgepose.config import Config, load_config
from edgepose.config.loader import SYSTEM_FILE
from edgepose.config.schema import MQTT_PASSWORD_CREDENTIAL
from edgepose.registry.registry import MACHINE_FOLDER
from tests.helpers import missing

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "systemd"
UNITS = ("edgepose.service", "edgepose@.service")
INSTALLED_UNITS = Path("usr/local/lib/systemd/system")
MAX_EXPOSURE = 2.0
# What no file of `make install` is: the virtual environment, which DESTDIR leaves out, the folder
# of what the daemon remembers, passwords, and parts of every Debian.
NO_FILES = ("/opt/edgepose/bin/edgepose", "/var/lib/edgepose", "/etc/credstore/", "/bin/kill")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the files of `make install`, under a folder of their own."""
    folder = tmp_path_factory.mktemp("system")
    _install(folder, "install")
    return folder


def _install(folder: Path, what: str) -> str:
    return subprocess.run(
        ["make", "-C", str(ROOT), what, f"DESTDIR={folder}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def _settings(*files: Path) -> dict[str, list[str]]:
    settings = defaultdict(list)
    for file in files:
        for line in file.read_text().splitlines():
            if "=" in line and not line.startswith("#"):
                name, _, value = line.partition("=")
                settings[name].append(value)
    return settings


def _settings_of(unit: str) -> dict[str, list[str]]:
    return _settings(FOLDER / unit, FOLDER / "sandbox.conf")


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze is not installed (apt install systemd)")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)


def _exposure(units: Path, unit: str) -> float:
    done = _analyze("security", "--no-pager", "--offline=true", str(units / unit))
    found = re.search(r"Overall exposure level for .*: ([0-9.]+) ", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


def _complaints(units: Path, unit: str) -> list[str]:
    # It returns 0 on a key that it does not know; that is only said. The program is not there.
    said = _analyze("verify", str(units / unit)).stderr.splitlines()
    return [line for line in said if "/opt/edgepose/bin/edgepose is not executable" not in line]


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_understands_every_line(unit: str, system: Path) -> None:
    assert _complaints(system / INSTALLED_UNITS, unit) == []


@pytest.mark.parametrize("file", [UNITS[0], f"{UNITS[0]}.d/sandbox.conf"])
def test_a_mistake_would_be_seen(file: str, system: Path, tmp_path: Path) -> None:
    units = shutil.copytree(system / INSTALLED_UNITS, tmp_path / "units")
    with (units / file).open("a") as text:
        text.write("\n[Service]\nWatchdogSecs=1\n")
    (complaint,) = _complaints(units, UNITS[0])
    assert "WatchdogSecs" in complaint


@pytest.mark.parametrize("unit", UNITS)
def test_the_sandbox_is_tight(unit: str, system: Path, tmp_path: Path) -> None:
    assert _exposure(system / INSTALLED_UNITS, unit) <= MAX_EXPOSURE
    units = shutil.copytree(system / INSTALLED_UNITS, tmp_path / "units")
    shutil.rmtree(units / f"{unit}.d")
    assert _exposure(units, unit) > MAX_EXPOSURE, "the figure is that of both files together"


def test_the_template_is_the_service_with_names() -> None:
    def text(unit: str) -> str:
        lines = (FOLDER / unit).read_text().splitlines()
        return "\n".join(lines[lines.index("[Unit]") :])

    assert text("edgepose@.service") == (
        text("edgepose.service")
        .replace("edgepose, a pose sensor:", "edgepose, a pose sensor (%i):")
        .replace("/etc/edgepose/config.yaml", "/etc/edgepose/%i.yaml")
        .replace("SyslogIdentifier=edgepose", "SyslogIdentifier=edgepose@%i")
        .replace("StateDirectory=edgepose", "StateDirectory=edgepose/instances/%i")
    )


@pytest.mark.parametrize("unit", UNITS)
def test_every_path_is_one_that_installing_makes(unit: str, system: Path) -> None:
    text = (FOLDER / unit).read_text() + (FOLDER / "sandbox.conf").read_text()
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    paths = set(re.findall(r"(?<!\w)/[a-z][\w./%@-]*", text))
    assert "/opt/edgepose/bin/edgepose" in paths
    for path in paths:
        # The file of an instance is the user's to write, beside the one that is there.
        found = system / path.replace("%i", "config")[1:]
        assert found.exists() or path.startswith(NO_FILES), path


def test_the_paths_are_those_that_the_program_knows(system: Path) -> None:
    settings = _settings_of("edgepose.service")
    assert settings["ExecStart"] == [f"/opt/edgepose/bin/edgepose run -c {SYSTEM_FILE}"]
    assert settings["ReadOnlyPaths"] == [f"-{MACHINE_FOLDER}"]
    assert settings["ConfigurationDirectory"] == [SYSTEM_FILE.parent.name]
    assert MACHINE_FOLDER.parent == Path("/var/lib", *settings["StateDirectory"])
    (credential,) = settings["LoadCredential"]
    name, _, where = credential.partition(":")
    assert name == MQTT_PASSWORD_CREDENTIAL
    # An absolute path would have to exist for the service to start.
    assert not where.startswith("/")
    assert f"/etc/credstore/{where}" in (FOLDER / "install.sh").read_text()


def test_the_groups_of_the_udev_rules_are_those_of_the_user() -> None:
    given = set(re.findall(r'GROUP="(\w+)"', (FOLDER / "60-edgepose.rules").read_text()))
    assert given == set(re.findall(r"^m edgepose (\w+)$", _sysusers(), re.MULTILINE))
    assert _settings_of("edgepose.service")["User"] == re.findall(r"^u (\w+)", _sysusers())


def _sysusers() -> str:
    return "\n".join(
        line for line in (FOLDER / "sysusers.conf").read_text().splitlines() if line[:1] != "#"
    )


def test_the_udev_rules_know_every_edge_tpu() -> None:
    lines = (FOLDER / "60-edgepose.rules").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    ids = set()
    for rule in rules:
        # The seat's own permissions are given at 73; a later rule would come too late.
        assert 'TAG+="uaccess"' in rule
        assert 'MODE="0660"' in rule
        found = re.findall(r'ATTR\{id(?:Vendor|Product)\}=="(\w{4})"', rule)
        if found:
            ids.add(":".join(found))
    assert ids == {"1a6e:089a", "18d1:9302"}
    subsystems = [re.findall(r'^SUBSYSTEM=="(\w+)"', rule)[0] for rule in rules]
    assert subsystems == ["usb", "usb", "apex", "dma_heap"]


def test_every_folder_of_devices_is_let_in() -> None:
    assert set(_settings_of("edgepose.service")["DeviceAllow"]) == {
        f"char-{name} rw" for name in ("video4linux", "media", "dma_heap", "usb_device", "apex")
    }


def test_uninstalling_leaves_the_configuration_alone(tmp_path: Path) -> None:
    _install(tmp_path, "install")
    config = tmp_path / "etc/edgepose/config.yaml"
    config.write_text("node: gym\n")
    _install(tmp_path, "install")
    assert config.read_text() == "node: gym\n"
    said = _install(tmp_path, "uninstall")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [config]
    assert "sudo rm -r /etc/edgepose /var/lib/edgepose" in said


def test_the_first_configuration_changes_nothing(system: Path) -> None:
    assert load_config(system / "etc/edgepose/config.yaml") == Config()


def test_what_the_first_configuration_shows_is_right(system: Path, tmp_path: Path) -> None:
    text = (system / "etc/edgepose/config.yaml").read_text()
    shown = text[text.index("# node:") :]
    file = tmp_path / "config.yaml"
    file.write_text("\n".join(line.removeprefix("# ") for line in shown.splitlines()))
    config = load_config(file)
    assert config.node_name == "gym"
    assert config.cameras[0].rotation == 180
