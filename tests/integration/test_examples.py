"""The shell lines and the Python program of docs/examples.md, with a real broker."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edgepose.messages import AcceleratorMessage, EventMessage, encode
from tests.builders import line_of, message_of
from tests.documents import example, pipelines
from tests.mosquitto import Mosquitto, require, wait_for

EVENT = EventMessage(
    id="a-main-1",
    boot="a",
    type="enter",
    node="gym",
    camera="main",
    track_id=3,
    time="2026-01-31T12:00:00.5Z",
)
ACCELERATOR = AcceleratorMessage(
    device="cpu",
    degraded=True,
    reason="the Edge TPU is lost",
    since="2026-01-31T12:00:00.5Z",
    model="m",
    pose_threshold=0.3,
    keypoint_threshold=0.3,
    restarts=1,
)
STATS = {
    "boot": "a",
    "cameras": {
        "main": {"fps": 14.9, "frames": 149, "stages_ms": {"total": {"p50": 8, "p95": 9.5}}}
    },
}
MESSAGES = {
    "edgepose/gym/main/poses": line_of(0.0),
    "edgepose/gym/main/event": encode(EVENT),
    "edgepose/gym/info": json.dumps({"node": "gym", "version": "0.1.0"}).encode(),
    "edgepose/gym/accelerator": encode(ACCELERATOR),
    "edgepose/gym/stats": json.dumps(STATS).encode(),
}
PRINTED = {
    "length": "1",
    "keypoints[0][:2]": "[3,0.5,0.5]",
    "/event": "2026-01-31T12:00:00.5Z gym/main: enter of person 3",
    "/info": "gym 0.1.0",
    "/accelerator": "edgepose/gym/accelerator: the Edge TPU is lost",
    "/stats": '{"main":{"fps":14.9,"ms":9.5}}',
}
"""What each line prints, by a part of it that no other one has."""


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker that has a message on every topic."""
    folder = tmp_path_factory.mktemp("broker")
    folder.parent.chmod(0o755)
    with Mosquitto(folder) as broker:
        for topic, payload in MESSAGES.items():
            # A subscriber that comes later receives it too.
            broker.publish(topic, payload, retain=True)
        yield broker


def test_example_shell_lines_all_have_an_expected_output() -> None:
    assert len(pipelines()) == len(PRINTED)
    for part in PRINTED:
        assert len([line for line in pipelines() if part in line]) == 1


@pytest.mark.parametrize("part", PRINTED)
def test_example_shell_line_prints(part: str, messages: Mosquitto) -> None:
    """As in the document but for the port, and that it ends after one message."""
    require("mosquitto_sub")
    require("jq")
    (line,) = [line for line in pipelines() if part in line]
    line = line.replace("-h 127.0.0.1", f"-h 127.0.0.1 -p {messages.port} -C 1", 1)
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{PRINTED[part]}\n"


def test_example_python_program_prints_noses(messages: Mosquitto, tmp_path: Path) -> None:
    program = example("subscriber.py").read_text()
    assert "1883" in program
    path = tmp_path / "subscriber.py"
    path.write_text(program.replace("1883", str(messages.port)))
    log = tmp_path / "output"
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, path], stdout=output, stderr=output)
    try:
        wait_for(lambda: log.read_text() == "gym main 3 [0.5, 0.5]\n", "a line of the program")
        (pose,) = message_of(1).poses
        hidden = msgspec.structs.replace(pose, keypoints=[None] * 17)
        line = line_of(0.0, camera="door", node="hall", poses=[hidden])
        messages.publish("edgepose/hall/door/poses", line)
        wait_for(lambda: log.read_text().endswith("\nhall door 3 None\n"), "the second line")
    finally:
        process.kill()
        process.wait()
