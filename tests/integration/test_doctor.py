"""`edgepose doctor` with one trouble after the other, made for real."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgepose.diagnostics import runner
from tests.edgetpu import FakeEdgeTpu
from tests.mosquitto import PASSWORD, USERNAME, Certificates, Mosquitto

HEALTHY = "cameras: [{name: main, source: 'synthetic:'}]\n"
SMALLEST_PACKET = 1500


def doctor(
    folder: Path, config: str, environment: Mapping[str, str] = {}
) -> tuple[int, dict[str, Any]]:
    """Return the exit code, and each check by its name."""
    path = folder / "config.yaml"
    path.write_text(f"state_directory: {folder / 'state'}\n{config}")
    done = subprocess.run(
        [sys.executable, "-m", "edgepose", "doctor", "-c", str(path), "--format", "json"],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )
    report = json.loads(done.stdout)
    assert report["schema"] == 1
    assert done.stderr == b""
    checks = {check.pop("name"): check for check in report["checks"]}
    errors = [name for name, check in checks.items() if check["status"] == "error"]
    assert (done.returncode, report["ok"]) == ((1, False) if errors else (0, True))
    for check in checks.values():
        assert bool(check["remedy"]) == (check["status"] in ("warning", "error"))
    return done.returncode, checks


def test_doctor_healthy(tmp_path: Path, broker: Mosquitto) -> None:
    """Nothing is wrong with a synthetic camera, the bundled model and a broker."""
    code, checks = doctor(tmp_path, f"{HEALTHY}mqtt: {{url: '{broker.url}'}}\n")
    assert code == 0
    assert {name: check["status"] for name, check in checks.items()} == {
        "config": "ok",
        "camera main": "ok",
        "model": "ok",
        "model files": "ok",
        "edgetpu": "skipped",
        "broker": "ok",
        "broker packet size": "ok",
        "broker access": "ok",
        "broker discovery": "ok",
        "state": "ok",
        "disk": "ok",
        "clock": "ok",
        "power": "skipped",
        "versions": "ok",
        "service": "skipped",
    }
    assert checks["camera main"]["message"].startswith("synthetic:: 640x480 at ")


def test_doctor_many_troubles(tmp_path: Path, password_broker: Mosquitto) -> None:
    """Each trouble of an installation is named beside the others."""
    (tmp_path / "state").write_text("a file")
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(b"no model")
    config = (
        "cameras: [{name: main, source: /dev/video77}]\n"
        f"model: {{name: {damaged}}}\n"
        f"mqtt: {{url: '{password_broker.url}', username: {USERNAME}, password: wrong}}\n"
    )
    _, checks = doctor(tmp_path, config)
    assert "/dev/video77: no such camera" in checks["camera main"]["message"]
    assert checks["camera main"]["status"] == "error"
    assert str(damaged) in checks["model"]["message"]
    assert checks["model"]["status"] == "error"
    assert "refuses the login" in checks["broker"]["message"]
    assert "check the username 'pose', its password" in checks["broker"]["remedy"]
    assert checks["state"]["status"] == "warning"
    assert "Not a directory" in checks["state"]["message"]


def test_doctor_missing_model_and_unknown_host(tmp_path: Path) -> None:
    """A name of a model that is not installed, and one of a host that does not exist."""
    config = (
        f"{HEALTHY}model: {{name: movenet-thunder-int8-edgetpu}}\naccelerator: edgetpu\n"
        "mqtt: {url: 'mqtt://broker.invalid:1883'}\n"
    )
    _, checks = doctor(tmp_path, config)
    assert checks["model"]["status"] == checks["edgetpu"]["status"] == "error"
    assert "edgepose models pull movenet-thunder-int8-edgetpu" in checks["edgetpu"]["remedy"]
    assert "broker.invalid:1883 cannot be reached" in checks["broker"]["message"]
    assert "the spelling of the host" in checks["broker"]["remedy"]


def test_doctor_edgetpu(tmp_path: Path) -> None:
    """An Edge TPU that works, and one without its library."""
    tpu = FakeEdgeTpu(tmp_path)
    config = (
        f"{HEALTHY}mqtt: {{enabled: false}}\naccelerator: edgetpu\n"
        f"model: {{name: {tpu.compiled_model()}}}\n"
    )
    code, checks = doctor(tmp_path, config, tpu.environment())
    assert code == 0
    assert checks["edgetpu"]["status"] == "ok"
    assert checks["broker"]["status"] == "skipped"
    _, checks = doctor(tmp_path, config)
    assert checks["edgetpu"]["status"] == "error"
    assert "libedgetpu" in checks["edgetpu"]["message"]
    assert "install" in checks["edgetpu"]["remedy"]


def test_doctor_wrong_ca(tmp_path: Path, tls_broker: Mosquitto, certificates: Certificates) -> None:
    """The certificate of another authority is not accepted."""
    config = (
        f"{HEALTHY}mqtt: {{url: '{tls_broker.url}', tls: {{ca_file: {certificates.unrelated}}}}}\n"
    )
    _, checks = doctor(tmp_path, config)
    assert "has a certificate that is not accepted" in checks["broker"]["message"]
    assert "set the CA file" in checks["broker"]["remedy"]


@pytest.fixture
def strict_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Return a broker that denies the poses' camera, and takes small packets only."""
    acl = f"user {USERNAME}\ntopic readwrite edgepose/other/#\n"
    settings = [f"max_packet_size {SMALLEST_PACKET}"]
    with Mosquitto(tmp_path, password=True, acl=acl, settings=settings) as mosquitto:
        yield mosquitto


def test_doctor_denied_topics_and_packet_limit(tmp_path: Path, strict_broker: Mosquitto) -> None:
    """Access rights and a limit are found, with MQTT 5, before any message is missing."""
    config = (
        f"{HEALTHY}node: gym\n"
        f"mqtt: {{url: '{strict_broker.url}', username: {USERNAME}, password: {PASSWORD}}}\n"
    )
    _, checks = doctor(tmp_path, config)
    assert checks["broker"]["status"] == "ok"
    assert "edgepose/gym/" in checks["broker access"]["message"]
    assert "access" in checks["broker access"]["remedy"]
    assert f"at most {SMALLEST_PACKET:,} bytes" in checks["broker packet size"]["message"]
    assert "max_packet_size" in checks["broker packet size"]["remedy"]


@pytest.fixture
def broker_without_discovery(tmp_path: Path) -> Iterator[Mosquitto]:
    """Return a broker that allows the topics of the node, but not those of Home Assistant."""
    acl = f"user {USERNAME}\ntopic readwrite edgepose/gym/#\n"
    with Mosquitto(tmp_path, password=True, acl=acl) as mosquitto:
        yield mosquitto


def test_doctor_denied_discovery(tmp_path: Path, broker_without_discovery: Mosquitto) -> None:
    """The node runs without it, so it is a warning, with the topics that are needed."""
    url = broker_without_discovery.url
    config = (
        f"{HEALTHY}node: gym\nmqtt: {{url: '{url}', username: {USERNAME}, password: {PASSWORD}}}\n"
    )
    code, checks = doctor(tmp_path, config)
    assert (code, checks["broker access"]["status"]) == (0, "ok")
    discovery = checks["broker discovery"]
    assert discovery["status"] == "warning"
    assert "a message on homeassistant/device/edgepose-gym/doctor" in discovery["message"]
    assert "write access to homeassistant/device/edgepose-gym/#" in discovery["remedy"]
    _, checks = doctor(tmp_path, f"{config}homeassistant: {{enabled: false}}\n")
    assert checks["broker discovery"]["status"] == "skipped"


def test_doctor_mistyped_config(tmp_path: Path) -> None:
    """All errors of the configuration are in the check, and the machine is checked all the same."""
    _, checks = doctor(tmp_path, "modle: {}\nstats_interval_s: soon\n")
    assert "config.yaml:2: modle: " in checks["config"]["message"]
    assert "stats_interval_s" in checks["config"]["message"]
    assert checks["camera"]["status"] == "skipped"
    assert checks["clock"]["status"] == "ok"


def test_doctor_states_are_those_of_a_node_that_does_not_run(
    tmp_path: Path, broker: Mosquitto
) -> None:
    """Its messages change nothing for a subscriber, and the broker keeps none of them."""
    with broker.listener() as listener:
        doctor(tmp_path, f"{HEALTHY}node: gym\nmqtt: {{url: '{broker.url}'}}\n")
        listener.wait_for("edgepose/gym/main/count")
        received = {(message.topic, message.payload) for message in listener.received}
    assert received == {
        ("edgepose/gym/doctor", b"ok"),
        # Home Assistant reads topics that end with /config only.
        ("homeassistant/device/edgepose-gym/doctor", b"ok"),
        ("edgepose/gym/availability", b"offline"),
        ("edgepose/gym/main/status", b"offline"),
        ("edgepose/gym/main/presence", b"OFF"),
        ("edgepose/gym/main/count", b"0"),
    }
    broker.publish("end", b"1", retain=True)
    with broker.listener() as later:
        later.wait_for("end")
        assert later.topics() == ["end"]


def test_doctor_ends_although_a_camera_hangs(tmp_path: Path) -> None:
    """A check that hangs is reported as such, and the others are complete."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path = tmp_path / "config.yaml"
        path.write_text(
            "mqtt: {enabled: false}\n"
            f"cameras: [{{name: main, source: 'rtsp://127.0.0.1:{silent.getsockname()[1]}/'}}]\n"
        )
        report = runner.run_checks(path, timeout_s=6.0)
    checks = {check.name: check for check in report.checks}
    assert not report.ok
    assert checks["camera main"].message == "did not answer within 6 s"
    assert checks["model"].status == "ok"
