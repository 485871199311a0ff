"""Outputs that block, fail or are closed, for the subscribers of a running daemon."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon import CAMERA, NODE, Daemon, running, wait_for_last, wait_for_more_poses
from tests.mosquitto import Listener, Mosquitto, wait_for

NDJSON = "output: {ndjson: true}\n"


@contextmanager
def full_pipe(path: Path) -> Iterator[str]:
    """Make a pipe that is full and has no reader; yield a word of a shell."""
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        while True:
            os.write(descriptor, b"\0")
    except BlockingIOError:
        yield str(path)
    finally:
        os.close(descriptor)


def stats(listener: Listener) -> dict[str, object]:
    """Return the newest statistics."""
    payloads = listener.payloads(f"{NODE}/stats")
    return dict(json.loads(payloads[-1])) if payloads else {}


def check_alive(broker: Mosquitto, listener: Listener) -> None:
    """Check that poses arrive and that the privacy switch works."""
    wait_for_more_poses(listener)
    broker.publish(f"{CAMERA}/enabled/set", b"OFF")
    wait_for_last(listener, f"{CAMERA}/enabled", b"OFF")
    wait_for_last(listener, f"{CAMERA}/status", b"offline")
    broker.publish(f"{CAMERA}/enabled/set", b"ON")
    wait_for_last(listener, f"{CAMERA}/status", b"online")
    wait_for_more_poses(listener)


def cause_event(daemon: Daemon, config: str) -> None:
    """Add a zone around the whole frame, which the person there enters."""
    zone = "{name: all, polygon: [[0, 0], [1, 0], [1, 1], [0, 1]]}"
    daemon.configure(f"{config}cameras: [{{zones: [{zone}]}}]\n")
    daemon.process.send_signal(signal.SIGHUP)


def check_end(daemon: Daemon) -> None:
    """Check that SIGTERM ends it although its output is not read meanwhile."""
    daemon.process.terminate()
    assert daemon.process.wait(30) == 0


@pytest.mark.parametrize("stream", ["stdout", "stderr", "both"])
def test_daemon_output_that_is_not_read(
    tmp_path: Path, broker: Mosquitto, listener: Listener, stream: str
) -> None:
    """At debug level there is a line a second at least."""
    with full_pipe(tmp_path / "pipe") as pipe:
        redirections = {"stdout": f">{pipe}", "stderr": f"2>{pipe}", "both": f">{pipe} 2>&1"}
        config = f"{NDJSON}log: {{level: debug}}\n"
        with running(tmp_path, broker, config=config, redirections=redirections[stream]) as daemon:
            check_alive(broker, listener)
            wait_for_last(listener, f"{NODE}/availability", b"online")
            check_end(daemon)
            wait_for_last(listener, f"{NODE}/availability", b"offline")


def test_daemon_stdout_on_a_full_disk(
    tmp_path: Path, broker: Mosquitto, listener: Listener
) -> None:
    with running(tmp_path, broker, config=NDJSON, redirections=">/dev/full") as daemon:
        check_alive(broker, listener)
        wait_for(lambda: stats(listener).get("output_working") == {"stdout": False}, "the stats")
        assert stats(listener)["output_dropped"]
        code, _, stderr = daemon.end()
    assert code == 0
    assert stderr.count("No space left on device") == 1


HANGING_DISK = """
import os, pathlib, sqlite3, threading, time

def hang(function, hangs):
    def call(*arguments, **options):
        while hangs(*arguments):
            pathlib.Path(__file__).with_name(function.__name__).touch()
            time.sleep(1)
        return function(*arguments, **options)
    return call

def of_recording(descriptor, _data):
    return os.readlink(f"/proc/self/fd/{descriptor}").endswith(".ndjson")

def in_background(*_arguments):
    return threading.current_thread() is not threading.main_thread()

os.write = hang(os.write, of_recording)
os.fsync = hang(os.fsync, lambda _descriptor: True)
sqlite3.connect = hang(sqlite3.connect, in_background)
"""
"""Imported by Python at its start: the recording, the switches and the events are never written.

A file beside it has the name of each function that hangs.
"""


def test_daemon_disk_that_hangs(tmp_path: Path, broker: Mosquitto, listener: Listener) -> None:
    """Switches, waiting events and the recording delay no pose, command or connection."""
    (tmp_path / "sitecustomize.py").write_text(HANGING_DISK)
    config = f"output: {{record: {tmp_path / 'r.ndjson'}}}\n"
    with running(
        tmp_path,
        broker,
        config=config,
        environment={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    ) as daemon:
        check_alive(broker, listener)
        broker.kill()
        cause_event(daemon, config)
        wait_for((tmp_path / "connect").exists, "an event that waits for the disk")
        broker.start()
        with broker.listener() as again:
            check_alive(broker, again)
        code, _, stderr = daemon.end()
    assert code == 0
    for text in ("recording: still blocked", "the switches are not saved", "events are not saved"):
        assert text in stderr
    assert (tmp_path / "r.ndjson").read_bytes() == b""


def test_daemon_recording_whose_folder_is_mounted_later(
    tmp_path: Path, broker: Mosquitto, listener: Listener
) -> None:
    path = tmp_path / "stick" / "r.ndjson"
    config = f"output: {{record: {path}, record_max_mb: 0.01, record_keep: 2}}\n"
    with running(tmp_path, broker, config=config) as daemon:
        check_alive(broker, listener)
        wait_for(lambda: stats(listener).get("output_working") == {"recording": False}, "the stats")
        path.parent.mkdir()
        wait_for(lambda: stats(listener)["output_working"] == {"recording": True}, "the stats")
        wait_for(lambda: len(list(path.parent.iterdir())) == 3, "two renamed files")
        code, _, stderr = daemon.end()
    wait_for_last(listener, f"{NODE}/availability", b"offline")
    assert code == 0
    assert stderr.count("No such file or directory") == 1
    files = [path.with_name("r.ndjson.2"), path.with_name("r.ndjson.1"), path]
    recorded = [line.rstrip() for file in files for line in file.open("rb")]
    assert recorded == listener.payloads(f"{CAMERA}/poses")[-len(recorded) :]
    assert max(file.stat().st_size for file in files) <= 10_000


def test_daemon_recording_to_a_pipe(tmp_path: Path, broker: Mosquitto, listener: Listener) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with running(tmp_path, broker, config=f"output: {{record: {pipe}}}\n") as daemon:
        check_alive(broker, listener)
        code, _, stderr = daemon.end()
    assert code == 0
    assert stderr.count("expected a regular file, got a pipe") == 1


def test_daemon_files_are_not_for_others(
    tmp_path: Path, broker: Mosquitto, listener: Listener
) -> None:
    """Who came and went is in the state directory and in the recording."""
    recording = tmp_path / "r.ndjson"
    config = f"output: {{record: {recording}}}\n"
    with running(tmp_path, broker, config=config) as daemon:
        check_alive(broker, listener)
        broker.kill()
        cause_event(daemon, config)
        wait_for(lambda: list(tmp_path.glob("state/**/events.sqlite")), "the waiting events")
        state = tmp_path / "state"
        modes = {path: path.stat().st_mode for path in (recording, state, *state.rglob("*"))}
        daemon.end()
    assert {path.name for path in modes} >= {"switches.json", "events.sqlite", "lock", "r.ndjson"}
    assert [path for path, mode in modes.items() if mode & 0o027] == []


@pytest.mark.parametrize("redirections", ["<&- >&- 2>&-", "</dev/null 2>&-", "</dev/null >&-"])
def test_daemon_closed_streams(
    tmp_path: Path, broker: Mosquitto, listener: Listener, redirections: str
) -> None:
    """It runs without a log; no file or connection takes the place of a closed stream."""
    with running(tmp_path, broker, redirections=redirections) as daemon:
        wait_for_more_poses(listener)
        descriptors = [Path(f"/proc/{daemon.process.pid}/fd/{number}") for number in range(3)]
        places = {str(descriptor.readlink()) for descriptor in descriptors}
        code, stdout, stderr = daemon.end()
    assert code == 0
    assert "/dev/null" in places
    assert all(place == "/dev/null" or place.startswith("pipe:") for place in places)
    assert stdout == ""
    assert "Traceback" not in stderr


def test_daemon_ndjson_to_a_closed_stdout(tmp_path: Path, broker: Mosquitto) -> None:
    with running(tmp_path, broker, config=NDJSON, redirections=">&-") as daemon:
        code, _, stderr = daemon.wait()
    assert code == 2
    assert stderr.splitlines()[-1].startswith("edgepose: output.ndjson writes to stdout, which is")


@pytest.mark.parametrize("kind", ["closed pipe", "full disk"])
def test_cli_exit_code_without_a_stderr(kind: str) -> None:
    """The error line is lost, the exit code is not."""
    reader, stderr = os.pipe()
    os.close(reader)
    if kind == "full disk":
        os.close(stderr)
        stderr = os.open("/dev/full", os.O_WRONLY)
    for words, code in ((("estimate", "missing.jpg"), 1), (("config", "chek"), 2)):
        command = [sys.executable, "-m", "edgepose", *words]
        process = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, check=False)
        assert (process.returncode, process.stdout) == (code, b"")
    os.close(stderr)
