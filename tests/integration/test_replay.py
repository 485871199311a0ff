"""`edgepose replay` onto a real broker."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from edgepose.mqtt.local_broker import free_port
from edgepose.sinks.recorder import RecorderSink
from edgepose.util.secrets import MQTT_VARIABLE
from tests.builders import line_of, message_of
from tests.mosquitto import PASSWORD, USERNAME, Listener, Mosquitto

POSES = "edgepose/gym/main/poses"


def run_replay(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgepose", "replay", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def record(path: Path, count: int) -> list[bytes]:
    sink = RecorderSink(path)
    for sequence in range(count):
        sink.publish(message_of(sequence))
    sink.close()
    return path.read_bytes().splitlines()


def test_replay_publishes_recorded_bytes(
    broker: Mosquitto, listener: Listener, tmp_path: Path
) -> None:
    """Without waiting, faster than any broker: nothing may be dropped on this side."""
    lines = record(tmp_path / "r", 3000)
    done = run_replay(tmp_path / "r", "--mqtt", broker.url, "--speed", "0")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "replay: 3000 messages published\n"
    listener.wait_for(POSES, lines[-1])
    assert listener.payloads(POSES) == lines
    # A replay is no node: it publishes no state and no retained message.
    assert set(listener.topics()) == {POSES}
    assert not any(received.retain for received in listener.received)


def test_replay_invalid_lines_and_exit_code(
    broker: Mosquitto, listener: Listener, tmp_path: Path
) -> None:
    """What is published is counted, what is skipped is named, and the exit code tells."""
    good = [line_of(at) for at in (1.0, 2.0, 3.0)]
    bad = [line_of(2.0, node="x" * 70_000), line_of(2.0, camera="a/#")]
    path = tmp_path / "r"
    path.write_bytes(b"\n".join((good[0], bad[0], good[1], bad[1], good[2])) + b"\n")
    done = run_replay(path, "--mqtt", broker.url, "--speed", "0")
    assert done.returncode == 1
    for text in ("line 2: ", "line 4: ", "3 messages published, 2 invalid lines skipped, 0 "):
        assert text in done.stderr
    listener.wait_for(POSES, good[2])
    assert listener.payloads(POSES) == good
    assert set(listener.topics()) == {POSES}


def test_replay_standard_input(broker: Mosquitto, listener: Listener, tmp_path: Path) -> None:
    lines = record(tmp_path / "r", 3)
    program = [sys.executable, "-m", "edgepose", "replay", "/dev/stdin", "--mqtt", broker.url]
    with subprocess.Popen(["cat", tmp_path / "r"], stdout=subprocess.PIPE) as cat:
        done = subprocess.run(
            program, stdin=cat.stdout, check=False, capture_output=True, text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (0, "replay: 3 messages published\n")
    listener.wait_for(POSES, lines[-1])
    assert listener.payloads(POSES) == lines


def test_replay_uses_another_client_id(broker: Mosquitto, tmp_path: Path) -> None:
    record(tmp_path / "r", 1)
    with broker.listener("edgepose/#") as listener:
        done = run_replay(
            tmp_path / "r", "--mqtt", broker.url, "--speed", "0", "--base-topic", "edgepose/again"
        )
        assert done.returncode == 0, done.stderr
        listener.wait_for("edgepose/again/gym/main/poses")


def test_replay_password_file_and_environment(password_broker: Mosquitto, tmp_path: Path) -> None:
    record(tmp_path / "r", 1)
    url = password_broker.url.replace("//", f"//{USERNAME}@")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    done = run_replay(tmp_path / "r", "--mqtt", url, "--password-file", tmp_path / "password")
    assert done.returncode == 0, done.stderr
    done = run_replay(tmp_path / "r", "--mqtt", url, **{MQTT_VARIABLE: PASSWORD})
    assert done.returncode == 0, done.stderr
    done = run_replay(tmp_path / "r", "--mqtt", url)
    assert done.returncode == 1
    assert "without a password" in done.stderr


def test_cli_replay_errors_are_one_line_with_exit_code(tmp_path: Path) -> None:
    record(tmp_path / "r", 1)
    (tmp_path / "rubbish").write_bytes(b"\0" * 100)
    unused = f"mqtt://localhost:{free_port()}"
    user = unused.replace("//", "//u@")
    for arguments, code, text in (
        ((tmp_path / "r", "--mqtt", unused), 1, "refuses connections"),
        ((tmp_path / "r", "--mqtt", "localhost"), 2, "mqtt://"),
        ((tmp_path / "r", "--mqtt", "mqtt://u:hunter2@localhost"), 2, "password_file"),
        ((tmp_path / "r", "--base-topic", "#", "--mqtt", unused), 2, "base topic"),
        ((tmp_path / "r", "--password-file", tmp_path / "no", "--mqtt", user), 1, "No such file"),
        ((tmp_path / "r", "--password-file", "p", "--mqtt", unused), 2, "without username"),
        ((tmp_path / "r", "--ca-file", "ca.pem", "--mqtt", unused), 2, "write mqtts://"),
        ((tmp_path / "nowhere", "--mqtt", unused), 1, "nowhere"),
        ((tmp_path / "rubbish", "--mqtt", unused), 1, "no pose message"),
        ((tmp_path / "r", "--speed", "-1", "--mqtt", unused), 2, "speed"),
    ):
        done = run_replay(*arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
        assert "hunter2" not in done.stderr
        assert done.stdout == ""


def test_replay_lost_broker_ends_with_reason(
    broker: Mosquitto, listener: Listener, tmp_path: Path
) -> None:
    path = tmp_path / "r"
    path.write_bytes(b"\n".join(map(line_of, (0.0, 0.5, 1.0, 1.5))) + b"\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepose", "replay", str(path), "--mqtt", broker.url],
        stderr=subprocess.PIPE,
        text=True,
    )
    listener.wait_for(POSES)
    broker.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "gave up after 10 s" in errors


def test_replay_counts_what_a_broker_does_not_take(
    broker: Mosquitto, listener: Listener, tmp_path: Path
) -> None:
    """Messages that still wait for the socket at the end were not published."""
    path = tmp_path / "r"
    large = b'{"extra": "%s", ' % (b"x" * 900_000)
    path.write_bytes(line_of(0.0) + b"\n" + (large + line_of(3.0)[1:] + b"\n") * 10)
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepose", "replay", str(path), "--mqtt", broker.url],
        stderr=subprocess.PIPE,
        text=True,
    )
    listener.wait_for(POSES)
    broker.freeze()
    _, errors = process.communicate(timeout=60)
    broker.thaw()
    assert process.returncode == 1
    lost = re.search(r": (\d+) messages published, 0 invalid lines skipped, (\d+) ", errors)
    assert lost is not None, errors
    assert int(lost[1]) + int(lost[2]) == 11
    assert int(lost[2]) > 0


def test_replay_ctrl_c(broker: Mosquitto, listener: Listener, tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(b"\n".join(map(line_of, (0.0, 3000.0))) + b"\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepose", "replay", str(path), "--mqtt", broker.url],
        stderr=subprocess.PIPE,
        text=True,
    )
    listener.wait_for(POSES)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in errors
