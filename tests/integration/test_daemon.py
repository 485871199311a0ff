"""The daemon for its subscribers: a real process, a real broker, real signals."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from edgepose import messages
from edgepose.inference.cpu import default_threads
from edgepose.mqtt.local_broker import free_port
from edgepose.skeleton import EDGES, KEYPOINT_NAMES
from tests.daemon import (
    CAMERA,
    NODE,
    Daemon,
    last,
    running,
    wait_for_last,
    wait_for_more_poses,
)
from tests.images import DATA
from tests.media import make_clip
from tests.mosquitto import Mosquitto, wait_for

SLOW = "cameras: [{source: 'synthetic:?fps=10'}]\n"
VERIFIER = "movenet-lightning-int8"
RETAINED = {
    f"{NODE}/availability": b"online",
    f"{CAMERA}/status": b"online",
    f"{CAMERA}/enabled": b"ON",
    f"{CAMERA}/presence": b"ON",
    f"{CAMERA}/count": b"1",
}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "broker"
    folder.mkdir()
    tmp_path.chmod(0o755)
    with Mosquitto(folder) as running:
        yield running


def test_daemon_publishes_every_topic_of_the_contract(tmp_path: Path, broker: Mosquitto) -> None:
    with broker.listener() as listener, running(tmp_path, broker) as daemon:
        for topic, payload in RETAINED.items():
            wait_for_last(listener, topic, payload)
        listener.wait_for(f"{NODE}/stats")
        wait_for(lambda: len(listener.payloads(f"{CAMERA}/poses")) > 10, "ten poses")
        with broker.listener() as late_subscriber:
            for topic, payload in RETAINED.items():
                assert late_subscriber.wait_for(topic, payload).retain
            assert f"{CAMERA}/poses" not in [m.topic for m in late_subscriber.received if m.retain]
        code, stdout, stderr = daemon.end()
        wait_for_last(listener, f"{NODE}/availability", b"offline")
    assert (code, stdout) == (0, "")
    assert "Traceback" not in stderr
    assert last(listener, f"{CAMERA}/status") == b"offline"
    assert last(listener, f"{CAMERA}/presence") == b"OFF"
    assert last(listener, f"{CAMERA}/count") == b"0"

    info = json.loads(listener.wait_for(f"{NODE}/info").payload)
    assert info["keypoint_names"] == list(KEYPOINT_NAMES)
    assert [tuple(edge) for edge in info["skeleton"]] == list(EDGES)
    assert info["cameras"] == ["main"]
    assert info["message_schema"]["$defs"]

    poses = [messages.decode(payload) for payload in listener.payloads(f"{CAMERA}/poses")]
    with_poses = [message for message in poses if message.poses]
    assert len(with_poses) > 10
    assert poses[-1].poses == []
    sequences = [message.sequence for message in with_poses]
    assert sequences == sorted(set(sequences))
    one = with_poses[5]
    assert (one.schema, one.node, one.camera) == (1, "testnode", "main")
    assert (one.frame.width, one.frame.height) == (640, 480)
    assert one.captured_at <= one.published_at
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
    assert re.fullmatch(stamp, one.captured_at)
    assert re.fullmatch(stamp, one.published_at)
    assert len({pose.id for message in with_poses for pose in message.poses}) == 1

    stats = json.loads(listener.payloads(f"{NODE}/stats")[-1])
    stages = stats["cameras"]["main"]["stages_ms"]
    assert set(stages) == {
        *("preprocess", "invoke", "decode", "track", "smooth", "publish", "total")
    }
    assert stages["invoke"]["p50"] <= stages["invoke"]["p99"]
    assert stats["cameras"]["main"]["fps"] > 1
    assert stats["memory_mb"] > 10
    assert stats["mqtt"]["connected"] is True


def test_daemon_verifies_poses_and_reloads_without(tmp_path: Path, broker: Mosquitto) -> None:
    """Who verifies is in `info`, how often in `stats`; a reload switches it off."""
    config = f"{SLOW}model: {{name: movenet-multipose-int8, verify: '%s'}}\n"
    with (
        broker.listener() as listener,
        running(tmp_path, broker, "synthetic:?fps=10", config=config % "auto") as daemon,
    ):
        wait_for_last(listener, f"{CAMERA}/presence", b"ON")
        stats = json.loads(listener.wait_for(f"{NODE}/stats").payload)
        assert stats["cameras"]["main"]["verifications"] >= 1
        assert json.loads(last(listener, f"{NODE}/info") or b"")["verifier"] == VERIFIER
        daemon.configure(config % "off")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: json.loads(last(listener, f"{NODE}/info") or b"")["verifier"] is None,
            "the reload",
        )
        wait_for_more_poses(listener)
        code, _, stderr = daemon.end()
    assert code == 0
    assert "Traceback" not in stderr


def test_daemon_measures_threads(tmp_path: Path, broker: Mosquitto) -> None:
    """They are in `info` as soon as they are measured, and after a restart from the start."""
    if default_threads() == 1:
        pytest.skip("this machine has one core")

    def threads(info: bytes | None) -> dict[str, object]:
        found: dict[str, object] = json.loads(info or b"")["threads"]["movenet-lightning-int8"]
        return found

    with broker.listener() as listener, running(tmp_path, broker) as daemon:
        info = listener.wait_for(f"{NODE}/info").payload
        assert threads(info) == {"count": default_threads(), "reason": "default", "invoke_ms": {}}
        wait_for(
            lambda: threads(last(listener, f"{NODE}/info"))["reason"] == "measured",
            "the measurement",
            90,
        )
        wait_for_more_poses(listener)
        _, _, stderr = daemon.end()
    assert "Traceback" not in stderr
    measured = threads(last(listener, f"{NODE}/info"))
    with broker.listener() as listener, running(tmp_path, broker) as daemon:
        wait_for_more_poses(listener)
        assert threads(last(listener, f"{NODE}/info")) == measured
        daemon.end()


def test_daemon_ends_after_clip_and_publishes_offline(tmp_path: Path, broker: Mosquitto) -> None:
    clip = make_clip(tmp_path / "clip with spaces.mp4", frames=20)
    with broker.listener() as listener, running(tmp_path, broker, str(clip)) as daemon:
        code, _, stderr = daemon.wait()
        assert code == 0, stderr
        wait_for_last(listener, f"{NODE}/availability", b"offline")
        assert len(listener.payloads(f"{CAMERA}/poses")) >= 18


def test_daemon_privacy_switch_survives_restart(tmp_path: Path, broker: Mosquitto) -> None:
    with broker.listener() as listener:
        with running(tmp_path, broker) as daemon:
            wait_for_last(listener, f"{CAMERA}/presence", b"ON")
            broker.publish(f"{CAMERA}/enabled/set", b"OFF")
            for topic, payload in (
                (f"{CAMERA}/enabled", b"OFF"),
                (f"{CAMERA}/status", b"offline"),
                (f"{CAMERA}/presence", b"OFF"),
            ):
                wait_for_last(listener, topic, payload)
            assert messages.decode(listener.payloads(f"{CAMERA}/poses")[-1]).poses == []
            assert daemon.end()[0] == 0
        count = len(listener.payloads(f"{CAMERA}/poses"))
        with running(tmp_path, broker):
            wait_for_last(listener, f"{NODE}/availability", b"online")
            for nonsense in (b"", b"on", b'{"state": "ON"}', b"\xff\xfe", b"ON" * 10_000):
                broker.publish(f"{CAMERA}/enabled/set", nonsense)
            assert last(listener, f"{CAMERA}/enabled") == b"OFF"
            assert len(listener.payloads(f"{CAMERA}/poses")) == count
            broker.publish(f"{CAMERA}/enabled/set", b"ON")
            wait_for_last(listener, f"{CAMERA}/enabled", b"ON")
            wait_for_last(listener, f"{CAMERA}/status", b"online")
            wait_for(lambda: len(listener.payloads(f"{CAMERA}/poses")) > count + 3, "poses again")


def test_daemon_broker_restart_restores_states_and_events(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with running(tmp_path, broker) as daemon:
        with broker.listener() as listener:
            wait_for_last(listener, f"{CAMERA}/presence", b"ON")
        broker.kill()
        broker.start()
        with broker.listener() as listener:
            for topic, payload in RETAINED.items():
                wait_for_last(listener, topic, payload)
            listener.wait_for(f"{NODE}/info")
            listener.wait_for(f"{CAMERA}/poses")
        code, _, stderr = daemon.end(signal.SIGINT)
    assert code == 0
    assert "Traceback" not in stderr


def test_daemon_reload_valid_and_invalid_configuration(tmp_path: Path, broker: Mosquitto) -> None:
    """A valid one is applied, an invalid one is rejected."""
    with broker.listener() as listener, running(tmp_path, broker) as daemon:
        wait_for_last(listener, f"{CAMERA}/presence", b"ON")
        path = tmp_path / "config.yaml"
        before = path.read_text()

        path.write_text(before + "model: {name: movenet-thunder-int8}\n")
        daemon.process.send_signal(signal.SIGHUP)

        def model() -> str:
            return messages.decode(listener.payloads(f"{CAMERA}/poses")[-1]).model

        wait_for(lambda: model() == "movenet-thunder-int8", "poses of the other model")
        wait_for_last(listener, f"{CAMERA}/presence", b"ON")

        for invalid in ("pose: {keypoint_treshold: 0.2}\n", "stats_interval_s: 7\n", "\tx"):
            path.write_text(before.replace("stats_interval_s: 1\n", "") + invalid)
            daemon.process.send_signal(signal.SIGHUP)
            wait_for_more_poses(listener)
        assert listener.payloads(f"{NODE}/availability") == [b"online"]
        code, _, stderr = daemon.end()
    assert code == 0
    failures = [
        line for line in stderr.splitlines() if "keeping the previous configuration" in line
    ]
    assert len(failures) == 3
    assert "did you mean" in stderr
    assert "restart edgepose" in stderr
    assert model() == "movenet-thunder-int8"


ZONES = (
    "cameras: [{source: 'synthetic:?fps=10', zones: ["
    "{name: room, polygon: [[0, 0], [1, 0], [1, 1], [0, 1]]},"
    "{name: sky, polygon: [[0, 0], [1, 0], [1, 0.01]], place: torso}]}]\n"
)
ROOM, SKY = f"{CAMERA}/zones/room", f"{CAMERA}/zones/sky"


def test_daemon_zones_over_a_reload_and_a_restart(tmp_path: Path, broker: Mosquitto) -> None:
    """A zone has topics and events; those of a zone that is removed are cleared."""
    arguments = ("--mqtt", broker.url)
    with broker.listener() as listener:
        daemon = Daemon(tmp_path, *arguments, config=SLOW)
        try:
            wait_for_last(listener, f"{CAMERA}/presence", b"ON")
            daemon.configure(ZONES)
            daemon.process.send_signal(signal.SIGHUP)
            wait_for_last(listener, f"{ROOM}/presence", b"ON")
            zones = json.loads(last(listener, f"{NODE}/info") or b"")["zones"]["main"]
            assert [zone["name"] for zone in zones] == ["room", "sky"]
            assert last(listener, f"{ROOM}/count") == b"1"
            assert last(listener, f"{SKY}/presence") == b"OFF"
            events = [json.loads(payload) for payload in listener.payloads(f"{CAMERA}/event")]
            assert [(e["type"], e.get("zone")) for e in events] == [
                ("enter", None),
                ("zone_enter", "room"),
            ]
            daemon.configure(ZONES.replace("name: sky", "name: air"))
            daemon.process.send_signal(signal.SIGHUP)
            wait_for_last(listener, f"{SKY}/presence", b"")
            wait_for_last(listener, f"{CAMERA}/zones/air/count", b"0")
            assert last(listener, f"{ROOM}/presence") == b"ON"
        finally:
            daemon.end()
        # The broker keeps the states of zones that the next configuration does not have.
        daemon = Daemon(tmp_path, *arguments, config=SLOW)
        try:
            for topic in (ROOM, f"{CAMERA}/zones/air"):
                wait_for_last(listener, f"{topic}/presence", b"")
                wait_for_last(listener, f"{topic}/count", b"")
        finally:
            daemon.end()


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        (f"{SLOW}model: {{name: never.tflite}}\n", "never.tflite: no such model file"),
        (
            "cameras: [{source: 'rtsp://u@127.0.0.1:1/l', password_file: never}]\n",
            "never: the password cannot be read (No such file or directory)",
        ),
    ],
    ids=["model", "password"],
)
def test_daemon_reload_missing_file(
    tmp_path: Path, broker: Mosquitto, config: str, missing: str
) -> None:
    """A configuration that names a file that is missing is not taken: what runs goes on."""
    daemon = Daemon(tmp_path, "--mqtt", broker.url, config=SLOW)
    try:
        with broker.listener() as listener:
            listener.wait_for(f"{CAMERA}/poses")
            daemon.configure(config)
            daemon.process.send_signal(signal.SIGHUP)
            wait_for_more_poses(listener)
    finally:
        code, _, stderr = daemon.end()
    assert code == 0
    assert f"keeping the previous configuration: {tmp_path}/{missing}" in stderr


def test_daemon_shows_no_password(tmp_path: Path, broker: Mosquitto) -> None:
    """No piece of a password is in a message, in the log or in the list of processes."""
    place = f"127.0.0.1:{free_port()}"
    password = "96Q@J/ZQ:Q9?#ZQ"
    (tmp_path / "password").write_text(password)
    config = (
        "log: {level: debug}\n"
        f"mqtt: {{url: '{broker.url}', username: u, password_file: password}}\n"
        "cameras:\n"
        "  - {name: main, source: 'synthetic:?fps=10'}\n"
        f"  - {{name: a, source: 'rtsp://{place}/l', username: u, password_file: password}}\n"
        f"  - {{name: b, source: 'rtsp://u@{place}/l', password: '{password}'}}\n"
        f"  - {{name: c, source: 'rtsp://u:{quote(password, safe='')}@{place}/l?token=96Q'}}\n"
        f"  - {{name: d, source: 'rtsp://u@{place}/l'}}\n"
    )
    environment = {"EDGEPOSE_CAMERA_PASSWORD": password}
    daemon = Daemon(tmp_path, config=config, environment=environment)
    try:
        with broker.listener() as listener:
            listener.wait_for(f"{CAMERA}/poses")
            for camera in "abcd":
                wait_for_last(listener, f"{NODE}/{camera}/status", b"offline")
            listener.wait_for(f"{NODE}/stats")
            command = Path(f"/proc/{daemon.process.pid}/cmdline").read_text()
            published = b"".join(message.payload for message in listener.received).decode()
    finally:
        code, stdout, stderr = daemon.end()
    assert code == 0
    assert all(f"camera {camera}: rtsp://" in stderr for camera in "abcd")
    shown = f"{published}{stdout}{stderr}{command}"
    pieces = {password[start : start + 3] for start in range(len(password) - 2)}
    assert {piece for piece in pieces if piece in shown} == set()


def test_daemon_debug_shows_no_password(tmp_path: Path) -> None:
    """The traceback for a report contains the errors of libraries, which quote whole URLs."""
    url = f"rtsp://u:96QZJ@127.0.0.1:{free_port()}/l"
    config = "mqtt: {enabled: false}\n"
    code, _, stderr = Daemon(tmp_path, "--debug", "--source", url, config=config).wait()
    assert code == 1
    assert "Traceback" in stderr
    assert "rtsp://u:********@127.0.0.1" in stderr
    assert not {"96Q", "6QZ", "QZJ"} & {stderr[start : start + 3] for start in range(len(stderr))}


def test_daemon_killed_leaves_last_will(tmp_path: Path, broker: Mosquitto) -> None:
    with broker.listener() as listener, running(tmp_path, broker) as daemon:
        wait_for_last(listener, f"{NODE}/availability", b"online")
        daemon.end(signal.SIGKILL)
        wait_for_last(listener, f"{NODE}/availability", b"offline")


def test_daemon_ndjson_on_stdout_without_broker(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=12)
    daemon = Daemon(
        tmp_path,
        "--source",
        str(clip),
        config="mqtt:\n  enabled: false\noutput:\n  ndjson: true\n",
    )
    code, stdout, stderr = daemon.wait()
    assert code == 0, stderr
    lines = [messages.decode(line) for line in stdout.splitlines()]
    assert len(lines) >= 10
    # The last message is the one without poses.
    assert all(line.poses for line in lines[:-1])
    assert lines[-1].poses == []


def test_daemon_publishes_the_pose_of_an_image(tmp_path: Path) -> None:
    """An image has no next frame that could confirm its pose."""
    daemon = Daemon(
        tmp_path,
        "--source",
        str(DATA / "camera.jpg"),
        config="mqtt:\n  enabled: false\noutput:\n  ndjson: true\n",
    )
    code, stdout, stderr = daemon.wait()
    assert code == 0, stderr
    pose, empty = [messages.decode(line) for line in stdout.splitlines()]
    assert (len(pose.poses), len(empty.poses)) == (1, 0)


def test_daemon_ends_if_ndjson_reader_closes_pipe(tmp_path: Path) -> None:
    config = "mqtt:\n  enabled: false\noutput:\n  ndjson: true\n"
    daemon = Daemon(tmp_path, "--source", "synthetic:", config=config)
    assert daemon.process.stdout is not None
    daemon.process.stdout.readline()
    daemon.process.stdout.close()
    assert daemon.process.stderr is not None
    stderr = daemon.process.stderr.read()
    assert daemon.process.wait(60) == 0
    assert "Traceback" not in stderr
    assert "edgepose: " not in stderr


def test_daemon_two_cameras_share_one_model(tmp_path: Path, broker: Mosquitto) -> None:
    config = (
        "cameras:\n"
        "  - {name: door, source: 'synthetic:?fps=10'}\n"
        "  - {name: yard, source: 'synthetic:?width=320&height=240&fps=10&mirror=1'}\n"
    )
    path = Daemon(tmp_path, "--mqtt", broker.url, config=config)
    try:
        with broker.listener() as listener:
            for camera in ("door", "yard"):
                wait_for_last(listener, f"{NODE}/{camera}/presence", b"ON")
                listener.wait_for(f"{NODE}/{camera}/poses")
            door = messages.decode(listener.payloads(f"{NODE}/door/poses")[-1])
            yard = messages.decode(listener.payloads(f"{NODE}/yard/poses")[-1])
        assert (yard.frame.width, door.frame.width) == (320, 640)
        # The astronaut's left shoulder is on the right of the image, and on the left if mirrored.
        left_door, left_yard = door.poses[0].keypoints[5], yard.poses[0].keypoints[5]
        right_door, right_yard = door.poses[0].keypoints[6], yard.poses[0].keypoints[6]
        assert left_door is not None
        assert right_door is not None
        assert left_yard is not None
        assert right_yard is not None
        assert left_door[0] > right_door[0]
        assert left_yard[0] < right_yard[0]
    finally:
        assert path.end()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--source", "missing.mp4"], "missing.mp4: no such file", 1),
        (["--source", "/dev/video99"], "/dev/video99: no such camera", 1),
        (["--source", "synthetix:"], "did you mean 'synthetic'", 2),
        (["--source", "synthetic:?lop=1"], "did you mean 'loop'", 2),
        (["--source", "synthetic:", "--model", "movenet-litning-int8"], "did you mean", 2),
        (["--source", "synthetic:", "--accelerator", "edgetpu"], "edgetpu", 1),
        (["--mqtt", "http://somewhere"], "mqtt://", 2),
        (["--speed"], "No such option", 2),
    ],
)
def test_daemon_invalid_setup_is_one_error_line(
    tmp_path: Path, broker: Mosquitto, arguments: list[str], message: str, code: int
) -> None:
    given = [] if "--mqtt" in arguments else ["--mqtt", broker.url]
    exit_code, stdout, stderr = Daemon(tmp_path, *arguments, *given).wait()
    errors = [line for line in stderr.splitlines() if line.startswith("edgepose: ")]
    assert exit_code == code, stderr
    assert stdout == ""
    assert message in errors[-1]
    assert "Traceback" not in stderr


def test_daemon_connection_refused_ends_with_error(tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    code, _, stderr = Daemon(tmp_path, "--source", "synthetic:", "--mqtt", url).wait()
    assert code == 1
    assert "refuses" in stderr.splitlines()[-1]
