"""The installed service in a Debian container, from `make install` to `make uninstall`.

Run by `make test-systemd`; each test restores the machine.
"""

import json
import os
import re
from pathlib import Path

import pytest

from tests.edgetpu import FakeEdgeTpu
from tests.mosquitto import wait_for
from tests.systemd.container import Subscriber
from tests.systemd.machine import BASIC, CHECKOUT, CONFIG, STATE, Machine, libc_of

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(1800)]

UNITS = "/usr/local/lib/systemd/system"
AVAILABILITY = "edgepose/gym/availability"
STATUS = "edgepose/gym/main/status"
POSES = "edgepose/gym/main/poses"
ACCELERATOR = "edgepose/gym/accelerator"
MAX_EXPOSURE = 2.0
# Run by the service instead of the daemon, to check its sandbox.
PROBE = (Path(__file__).parent / "sandbox_probe.py").read_text()


def test_install_prints_steps_and_enables_service(machine: Machine) -> None:
    output, container = machine.install_output, machine.container
    assert "installing Debian's python3-venv" in output
    assert "creating a virtual environment in /opt/edgepose" in output
    assert "starting the service" in output
    assert container.property("edgepose", "UnitFileState") == "enabled"
    # There is no camera; the installation reports it too.
    assert "picamera2 is not installed" in output
    assert container.output("stat", "-c", "%a %U %G", CONFIG) == "640 root edgepose"
    assert container.output("stat", "-c", "%a %U", STATE) == "755 edgepose"
    assert container.output("stat", "-c", "%a %U", f"{STATE}/models") == "755 root"
    groups = container.output("id", "-Gn", "edgepose").split()
    assert groups == ["edgepose", "video", "plugdev", "apex"]
    assert container.output("edgepose", "--version").startswith("edgepose")
    container.run("edgepose", "config", "check", "-c", CONFIG)


def test_service_units_and_rules_are_valid(machine: Machine) -> None:
    container = machine.container
    for unit in ("edgepose.service", "edgepose@.service"):
        assert container.run("systemd-analyze", "verify", f"{UNITS}/{unit}").stderr == ""
    # udev cannot check its rules before systemd 254.
    if "verify" in container.output("udevadm", "--help"):
        container.run("udevadm", "verify", "/usr/local/lib/udev/rules.d/60-edgepose.rules")


def test_service_is_ready_and_publishes_poses(machine: Machine, tmp_path: Path) -> None:
    with machine.serving(tmp_path / "log") as subscriber:
        subscriber.wait_for(AVAILABILITY, "online")
        subscriber.wait_for(STATUS, "online")
        wait_for(
            lambda: any(json.loads(text)["poses"] for text in subscriber.payloads(POSES)),
            "a pose that is not empty",
        )
        assert machine.container.property("edgepose", "ActiveState") == "active"
        assert machine.exposure("edgepose.service") <= MAX_EXPOSURE
        assert "unexpected" not in machine.container.journal("edgepose")


def test_service_opens_no_port(machine: Machine, tmp_path: Path) -> None:
    container = machine.container
    user = container.output("id", "-u", "edgepose")
    with machine.serving(tmp_path / "log"):
        sockets = [
            line.split()
            for kind in ("tcp", "tcp6", "udp", "udp6")
            for line in container.read(f"/proc/net/{kind}").splitlines()[1:]
        ]
    of_the_daemon = [fields for fields in sockets if fields[7] == user]
    assert of_the_daemon, "no connection to the broker"
    listening = [fields[1] for fields in sockets if fields[3] in ("0A", "07")]
    assert listening, "no broker"
    assert [fields[1] for fields in of_the_daemon if fields[1] in listening] == []


def test_service_sandbox_permissions(machine: Machine) -> None:
    container = machine.container
    container.write("/etc/edgepose/probe.py", PROBE)
    container.write("/etc/edgepose/secret", "of cameras' users")
    container.run("chown", "root:video", "/etc/edgepose/secret")
    container.run("chmod", "640", "/etc/edgepose/secret")
    machine.drop_in(
        "edgepose@probe",
        "[Service]\nType=oneshot\nExecStart=\nRestart=no\n"
        "ExecStart=/opt/edgepose/bin/python /etc/edgepose/probe.py\n",
    )
    try:
        container.run("systemctl", "start", "edgepose@probe", check=False)
        journal = container.journal("edgepose@probe")
    finally:
        container.run("systemctl", "revert", "edgepose@probe")
        container.run("rm", "-r", "/etc/edgepose/probe.py", "/etc/edgepose/secret")
        container.run("rm", "-r", f"{STATE}/instances/probe")
    (line,) = re.findall(r"^results: (.*)$", journal, re.MULTILINE)
    assert json.loads(line) == {
        "memory shared with a child": "yes",
        "a callback from C": "yes",
        "netlink": "yes",
        "a file of the group video": "yes",
        "its state directory": "yes",
        "the configuration": "yes",
        "the processor's features": "yes",
        "memory to write and execute": "PermissionError",
        "a packet socket": "OSError",
        "another user's process": "FileNotFoundError",
        "the home folders": "PermissionError",
        "writing the configuration": "PermissionError",
        "writing the models": "OSError",
        "writing the program": "OSError",
        "a user namespace": "PermissionError",
    }


def test_service_hung_daemon_is_restarted(machine: Machine, tmp_path: Path) -> None:
    container = machine.container
    with machine.serving(tmp_path / "log") as subscriber:
        # Shorter than the 20 s of the unit, to shorten the test.
        machine.drop_in("edgepose", "[Service]\nWatchdogSec=3\n")
        container.run("systemctl", "restart", "edgepose")
        pid = machine.pid()
        received = len(subscriber.payloads(AVAILABILITY, retained=False))
        container.run("kill", "-STOP", str(pid))
        machine.wait_for_restart(pid)
        assert "Watchdog timeout" in container.journal("edgepose")
        subscriber.wait_for(AVAILABILITY, "offline", more_than=received)
        poses = len(subscriber.payloads(POSES))
        subscriber.wait_for(POSES, more_than=poses)


def test_service_killed_daemon_is_restarted(machine: Machine, tmp_path: Path) -> None:
    container = machine.container
    with machine.serving(tmp_path / "log") as subscriber:
        for _ in range(3):
            pid = machine.pid()
            received = len(subscriber.payloads(AVAILABILITY, retained=False))
            container.run("kill", "-KILL", str(pid))
            subscriber.wait_for(AVAILABILITY, "offline", more_than=received)
            machine.wait_for_restart(pid)
            subscriber.wait_for(AVAILABILITY, "online", more_than=received + 1)


def test_service_waits_for_missing_camera(machine: Machine, tmp_path: Path) -> None:
    container = machine.container
    container.run("systemctl", "stop", "edgepose")
    previous = container.read(CONFIG)
    container.write(CONFIG, BASIC.replace('"synthetic:"', f'"{STATE}/camera.jpg?loop=1"'))
    try:
        with Subscriber(container, tmp_path / "log") as subscriber:
            container.run("systemctl", "start", "edgepose", check=False)
            wait_for(
                lambda: "camera.jpg" in container.journal("edgepose"),
                "the missing camera in the journal",
            )
            photograph = "/opt/edgepose/lib/python3*/site-packages/edgepose/assets/astronaut.jpg"
            container.run("sh", "-c", f"install -m 644 {photograph} {STATE}/camera.jpg")
            subscriber.wait_for(POSES)
            subscriber.wait_for(STATUS, "online")
    finally:
        container.run("systemctl", "stop", "edgepose")
        container.write(CONFIG, previous)
        container.run("rm", f"{STATE}/camera.jpg")


def test_service_invalid_configuration_is_not_restarted(machine: Machine) -> None:
    container = machine.container
    container.run("systemctl", "stop", "edgepose")
    previous = container.read(CONFIG)
    container.write(CONFIG, BASIC.replace("node:", "nod:"))
    try:
        assert container.run("systemctl", "start", "edgepose", check=False).returncode
        # It would be `activating` if a restart was scheduled.
        assert container.property("edgepose", "ActiveState") == "failed"
        assert container.property("edgepose", "NRestarts") == "0"
        assert container.property("edgepose", "ExecMainStatus") == "2"
        assert "did you mean" in container.journal("edgepose")
    finally:
        container.write(CONFIG, previous)
        container.run("systemctl", "reset-failed", "edgepose")


def test_service_reload_keeps_broker_connection(machine: Machine, tmp_path: Path) -> None:
    container = machine.container
    container.run(
        *(
            "sh",
            "-c",
            "cp /opt/edgepose/lib/python3*/site-packages/edgepose/assets/models/$1 $2",
            "sh",
        ),
        *("posenet-mobilenet-int8.tflite", f"{STATE}/models/mine.tflite"),
    )
    with machine.serving(tmp_path / "log") as subscriber:
        pid, connected = machine.pid(), machine.times_connected()
        container.write(CONFIG, f"{BASIC}model:\n  name: {STATE}/models/mine.tflite\n")
        container.run("systemctl", "reload", "edgepose")

        def model() -> str:
            name: str = json.loads(subscriber.payloads(POSES)[-1])["model"]
            return name

        wait_for(lambda: model() == "mine", "poses of the other model")
        assert machine.pid() == pid
        assert machine.times_connected() == connected
        assert subscriber.payloads(AVAILABILITY, retained=False) == ["online"]
    container.run("rm", f"{STATE}/models/mine.tflite")


@pytest.mark.parametrize("how", ["systemctl", "signal"])
def test_service_reload_invalid_configuration(machine: Machine, tmp_path: Path, how: str) -> None:
    container = machine.container
    with machine.serving(tmp_path / "log") as subscriber:
        pid, length = machine.pid(), len(container.journal("edgepose"))
        container.write(CONFIG, f"{BASIC}presence:\n  on_delay: 5\n")
        if how == "systemctl":
            assert container.run("systemctl", "reload", "edgepose", check=False).returncode
        else:
            container.run("kill", "-HUP", str(pid))
        wait_for(
            lambda: "presence.on_delay" in container.journal("edgepose")[length:],
            "the error in the journal",
        )
        if how == "signal":
            assert "keeping the previous configuration" in container.journal("edgepose")[length:]
        poses = len(subscriber.payloads(POSES))
        subscriber.wait_for(POSES, more_than=poses)
        assert machine.pid() == pid
        assert subscriber.payloads(AVAILABILITY, retained=False) == ["online"]


def test_service_reload_other_broker_needs_restart(machine: Machine, tmp_path: Path) -> None:
    container = machine.container
    with machine.serving(tmp_path / "log") as subscriber:
        pid = machine.pid()
        container.write(CONFIG, f"{BASIC}mqtt:\n  url: mqtt://127.0.0.2:1883\n")
        container.run("systemctl", "reload", "edgepose")
        wait_for(
            lambda: "keeping the previous configuration" in container.journal("edgepose"),
            "the rejection",
        )
        assert machine.pid() == pid
        poses = len(subscriber.payloads(POSES))
        subscriber.wait_for(POSES, more_than=poses)


def test_service_stop_publishes_offline_and_ends(machine: Machine, tmp_path: Path) -> None:
    container = machine.container
    with machine.serving(tmp_path / "log") as subscriber:
        container.run("systemctl", "stop", "edgepose")
        subscriber.wait_for(AVAILABILITY, "offline")
        assert subscriber.payloads(STATUS)[-1] == "offline"
        assert container.property("edgepose", "ExecMainStatus") == "0"
        # It would be `timeout` if it was killed after TimeoutStopSec.
        assert container.property("edgepose", "Result") == "success"


def test_service_two_instances(machine: Machine, tmp_path: Path) -> None:
    container = machine.container
    config = BASIC.replace("gym", "garage")
    with (
        machine.serving(tmp_path / "gym"),
        machine.serving(tmp_path / "garage", config, "edgepose@garage", "garage") as subscriber,
    ):
        assert machine.exposure("edgepose@garage.service") <= MAX_EXPOSURE
        assert container.property("edgepose", "ActiveState") == "active"
        assert set(subscriber.payloads(AVAILABILITY)) == {"online"}
        container.run(
            *("mosquitto_pub", "-t", "edgepose/garage/main/enabled/set", "-q", "1", "-m", "OFF")
        )
        own = f"{STATE}/instances/garage/nodes/garage"
        wait_for(lambda: container.exists(f"{own}/switches.json"), "the switch to be saved")
        assert not container.exists(f"{STATE}/nodes/gym/switches.json")
        assert container.output("stat", "-c", "%U", own) == "edgepose"
    container.run("rm", "-r", f"{STATE}/instances")


def test_service_password_from_credential(machine: Machine, tmp_path: Path) -> None:
    container = machine.container
    container.run("mosquitto_passwd", "-b", "-c", "/etc/passwords", "pose", "geheim!")
    container.run("chown", "mosquitto", "/etc/passwords")
    container.write(
        "/etc/locked.conf",
        "listener 1884 127.0.0.1\nallow_anonymous false\npassword_file /etc/passwords\n",
    )
    container.run("systemd-run", "--unit=locked", "mosquitto", "-c", "/etc/locked.conf")
    secret = "/etc/credstore/edgepose.mqtt-password"
    assert container.output("stat", "-c", "%a", "/etc/credstore") == "700"
    container.run("install", "-m", "600", "/dev/stdin", secret, stdin="geheim!\n")
    config = (
        BASIC.replace("gym", "locked") + "mqtt:\n  url: mqtt://127.0.0.1:1884\n  username: pose\n"
    )
    container.write("/etc/edgepose/locked.yaml", config)
    options = ("-p", "1884", "-u", "pose", "-P", "geheim!")
    try:
        with Subscriber(container, tmp_path / "log", *options) as subscriber:
            container.run("systemctl", "start", "edgepose@locked")
            subscriber.wait_for("edgepose/locked/availability", "online")
            subscriber.wait_for("edgepose/locked/main/poses")
        # A broker without login gets no password.
        with machine.serving(tmp_path / "open"):
            assert "geheim!" not in container.journal("edgepose")
        assert "geheim!" not in container.journal("edgepose@locked")
    finally:
        container.run("systemctl", "stop", "edgepose@locked", "locked")
        container.run("rm", "-r", secret, "/etc/edgepose/locked.yaml", f"{STATE}/instances")
        container.run("rm", "/etc/passwords", "/etc/locked.conf")


def test_service_edge_tpu_in_sandbox(machine: Machine, tmp_path: Path) -> None:
    """The worker process ignores SIGTERM and ends with the daemon, also by systemd's KillMode."""
    container = machine.container
    if machine.libc() < libc_of(os.confstr("CS_GNU_LIBC_VERSION")):
        pytest.skip("the fake Edge TPU is built here, with a C library newer than this Debian's")
    fake_edgetpu = FakeEdgeTpu(container.share / "edgetpu")
    model = fake_edgetpu.compiled_model()
    for path in (container.share, *container.share.rglob("*")):
        path.chmod(0o777)

    def inside(text: object) -> str:
        return str(text).replace(str(container.share), "/srv/share")

    environment = " ".join(
        f"{name}={inside(value)}" for name, value in fake_edgetpu.environment().items()
    )
    # The lock file of the fake Edge TPU.
    machine.drop_in(
        "edgepose", f"[Service]\nEnvironment={environment}\nReadWritePaths=/srv/share\n"
    )
    config = f"{BASIC}accelerator: edgetpu\nmodel:\n  name: {inside(model)}\n"
    with machine.serving(tmp_path / "log", config) as subscriber:

        def wait_for_device(device: str) -> None:
            wait_for(
                lambda: json.loads(subscriber.payloads(ACCELERATOR)[-1])["device"] == device,
                f"the device to become {device}",
                30,
            )

        wait_for_device("edgetpu")
        pid = machine.pid()
        assert len(machine.processes()) == 2
        fake_edgetpu.set("abort")
        wait_for_device("cpu")
        fake_edgetpu.set("ok")
        wait_for_device("edgetpu")
        assert machine.pid() == pid
        fake_edgetpu.set("hang")
        container.run("kill", "-KILL", str(pid))
        fake_edgetpu.set("ok")
        machine.wait_for_restart(pid)
        wait_for_device("edgetpu")
        wait_for(lambda: len(machine.processes()) == 2, "the old process to be gone")
        container.run("systemctl", "stop", "edgepose")
        assert machine.processes() == []
        assert container.property("edgepose", "Result") == "success"


def test_install_again_upgrades(machine: Machine, tmp_path: Path) -> None:
    container = machine.container
    package = f"{CHECKOUT}/edgepose/__init__.py"
    with machine.serving(tmp_path / "log") as subscriber:
        pid, config = machine.pid(), container.read(CONFIG)
        container.run("sed", "-i", 's/^__version__ = .*/__version__ = "99.1"/', package)
        output = machine.make("install")
        assert f"keeping {CONFIG}" in output
        assert "creating a virtual environment" not in output
        assert "edgepose is running; its log so far:" in output
        assert "edgepose 99.1: node gym" in output
        assert container.read(CONFIG) == config
        assert machine.pid() != pid
        assert "99.1" in subscriber.payloads("edgepose/gym/info")[-1]


def test_install_after_python_upgrade_and_on_raspberry_pi(machine: Machine) -> None:
    """After an upgrade of Debian /opt/edgepose had links to a missing Python."""
    container = machine.container
    container.run("ln", "-sfn", "/usr/bin/python3.0", "/opt/edgepose/bin/python3")
    container.write("/srv/board", "Raspberry Pi 5 Model B Rev 1.0\0")
    done = container.run(
        *("env", "BOARD=/srv/board", "sh", "/srv/checkout/systemd/install.sh", "install"),
        timeout_s=300,
    )
    assert "creating a virtual environment in /opt/edgepose" in done.stdout
    assert "installing Debian's python3-picamera2" in done.stdout
    container.run("/opt/edgepose/bin/python", "-c", "import picamera2")
    container.run("edgepose", "--version")


def test_uninstall_keeps_configuration_and_state(machine: Machine, tmp_path: Path) -> None:
    container = machine.container
    container.write("/etc/edgepose/garage.yaml", BASIC.replace("gym", "garage"))
    container.run("systemctl", "enable", "--now", "edgepose@garage")
    with machine.serving(tmp_path / "log"):
        config = container.read(CONFIG)
        output = machine.make("uninstall")
        left = machine.files() - machine.before
        assert "sudo rm -r /etc/edgepose /var/lib/edgepose && sudo userdel edgepose" in output
        assert {path for path in left if not path.startswith(("/etc/edgepose", STATE))} <= {
            "/etc/credstore"
        }
        assert container.read(CONFIG) == config
        for unit in ("edgepose", "edgepose@garage"):
            assert container.property(unit, "LoadState") == "not-found"
            assert container.property(unit, "ActiveState") == "inactive"
        assert machine.processes() == []
        assert machine.make("uninstall"), "a second time is no error"
        machine.make("install")
        assert container.read(CONFIG) == config
    container.run("rm", "-r", "/etc/edgepose/garage.yaml", f"{STATE}/instances")
