"""The files of the service, checked by systemd's tools and compared with the installation."""

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from edgepose.config.loader import SYSTEM_FILE, load_config
from edgepose.config.schema import Config
from edgepose.registry.registry import MACHINE_FOLDER
from edgepose.util.secrets import CAMERA_PASSWORD, MQTT_PASSWORD
from tests.requirements import missing

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "systemd"
UNITS = ("edgepose.service", "edgepose@.service")
INSTALLED_UNITS = Path("usr/local/lib/systemd/system")
MAX_EXPOSURE = 2.0
# Paths that `make install` does not create: the virtual environment, which DESTDIR leaves out, the
# state of the daemon, passwords, and parts of every Debian.
NO_FILES = ("/opt/edgepose/bin/edgepose", "/var/lib/edgepose", "/etc/credstore/", "/bin/kill")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the files of `make install`, in a separate folder."""
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


def _warnings(units: Path, unit: str) -> list[str]:
    # It exits with 0 at an unknown key and only prints a warning. The program is not installed.
    output = _analyze("verify", str(units / unit)).stderr.splitlines()
    return [line for line in output if "/opt/edgepose/bin/edgepose is not executable" not in line]


@pytest.mark.parametrize("unit", UNITS)
def test_units_are_valid(unit: str, system: Path) -> None:
    """systemd-analyze has no warning."""
    assert _warnings(system / INSTALLED_UNITS, unit) == []


@pytest.mark.parametrize("file", [UNITS[0], f"{UNITS[0]}.d/sandbox.conf"])
def test_units_invalid_line_is_reported(file: str, system: Path, tmp_path: Path) -> None:
    """The test above would fail for an invalid line."""
    units = shutil.copytree(system / INSTALLED_UNITS, tmp_path / "units")
    with (units / file).open("a") as text:
        text.write("\n[Service]\nWatchdogSecs=1\n")
    (warning,) = _warnings(units, UNITS[0])
    assert "WatchdogSecs" in warning


@pytest.mark.parametrize("unit", UNITS)
def test_units_sandbox_exposure(unit: str, system: Path, tmp_path: Path) -> None:
    """The exposure of systemd-analyze security is low."""
    assert _exposure(system / INSTALLED_UNITS, unit) <= MAX_EXPOSURE
    units = shutil.copytree(system / INSTALLED_UNITS, tmp_path / "units")
    shutil.rmtree(units / f"{unit}.d")
    assert _exposure(units, unit) > MAX_EXPOSURE, "the figure is that of both files together"


def test_units_template_equals_the_service() -> None:
    """They differ only in the instance name."""

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
def test_units_paths_are_installed(unit: str, system: Path) -> None:
    """Every path of the units is created by the installation."""
    text = (FOLDER / unit).read_text() + (FOLDER / "sandbox.conf").read_text()
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    paths = set(re.findall(r"(?<!\w)/[a-z][\w./%@-]*", text))
    assert "/opt/edgepose/bin/edgepose" in paths
    for path in paths:
        # The user writes the file of an instance, beside the installed one.
        found = system / path.replace("%i", "config")[1:]
        assert found.exists() or path.startswith(NO_FILES), path


def test_units_paths_are_those_of_the_program(system: Path) -> None:
    """Paths of the units and of the program agree."""
    settings = _settings_of("edgepose.service")
    assert settings["ExecStart"] == [f"/opt/edgepose/bin/edgepose run -c {SYSTEM_FILE}"]
    assert settings["ReadOnlyPaths"] == [f"-{MACHINE_FOLDER}"]
    assert settings["ConfigurationDirectory"] == [SYSTEM_FILE.parent.name]
    assert MACHINE_FOLDER.parent == Path("/var/lib", *settings["StateDirectory"])
    names = (MQTT_PASSWORD, CAMERA_PASSWORD)
    # An absolute path would have to exist for the service to start.
    assert settings["LoadCredential"] == [f"{name}:edgepose.{name}" for name in names]
    assert " ".join(names) in (FOLDER / "install.sh").read_text()


def test_udev_rules_groups() -> None:
    """The user of the service is in every group of the rules."""
    given = set(re.findall(r'GROUP="(\w+)"', (FOLDER / "60-edgepose.rules").read_text()))
    assert given == set(re.findall(r"^m edgepose (\w+)$", _sysusers(), re.MULTILINE))
    assert _settings_of("edgepose.service")["User"] == re.findall(r"^u (\w+)", _sysusers())


def _sysusers() -> str:
    return "\n".join(
        line for line in (FOLDER / "sysusers.conf").read_text().splitlines() if line[:1] != "#"
    )


def test_udev_rules_edge_tpus() -> None:
    """The rules have all USB ids and the PCIe devices."""
    lines = (FOLDER / "60-edgepose.rules").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    ids = set()
    for rule in rules:
        # The permissions of a seat are set at 73; a later rule would come too late.
        assert 'TAG+="uaccess"' in rule
        assert 'MODE="0660"' in rule
        found = re.findall(r'ATTR\{id(?:Vendor|Product)\}=="(\w{4})"', rule)
        if found:
            ids.add(":".join(found))
    assert ids == {"1a6e:089a", "18d1:9302"}
    subsystems = [re.findall(r'^SUBSYSTEM=="(\w+)"', rule)[0] for rule in rules]
    assert subsystems == ["usb", "usb", "apex", "dma_heap"]


def test_units_device_policy() -> None:
    """The sandbox allows the devices of the sources and accelerators."""
    assert set(_settings_of("edgepose.service")["DeviceAllow"]) == {
        f"char-{name} rw" for name in ("video4linux", "media", "dma_heap", "usb_device", "apex")
    }


def test_uninstall_keeps_the_configuration(tmp_path: Path) -> None:
    """Only files of the installation are removed."""
    _install(tmp_path, "install")
    config = tmp_path / "etc/edgepose/config.yaml"
    config.write_text("node: gym\n")
    _install(tmp_path, "install")
    assert config.read_text() == "node: gym\n"
    output = _install(tmp_path, "uninstall")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [config]
    assert "sudo rm -r /etc/edgepose /var/lib/edgepose" in output


def test_installed_configuration_equals_the_defaults(system: Path) -> None:
    """The installed file has only comments."""
    assert load_config(system / "etc/edgepose/config.yaml") == Config()


def test_installed_configuration_example_is_valid(system: Path, tmp_path: Path) -> None:
    """The commented example is a valid configuration."""
    text = (system / "etc/edgepose/config.yaml").read_text()
    shown = text[text.index("# node:") :]
    file = tmp_path / "config.yaml"
    file.write_text("\n".join(line.removeprefix("# ") for line in shown.splitlines()))
    config = load_config(file)
    assert config.node_name == "gym"
    assert config.cameras[0].rotation == 180
