"""`edgepose replay --nodes` onto a real broker."""

import json
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from edgepose.messages import decode
from tests.builders import line_of, message_of
from tests.integration.test_replay import run_replay
from tests.mosquitto import Listener, Mosquitto, wait_for

NODES = 20
IDS = [f"hall-{number:04}" for number in range(1, NODES + 1)]


def write_recording(path: Path, *, messages: int, interval_s: float = 0.05) -> Path:
    """Write a recording in which a person is there at first and later not."""
    lines = []
    for sequence in range(messages):
        poses = message_of(sequence).poses if sequence < messages // 2 else []
        lines.append(line_of(sequence * interval_s, sequence=sequence, poses=poses))
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def start(path: Path, broker: Mosquitto, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "edgepose", "replay", str(path), "--mqtt", broker.url),
            *("--nodes", str(count), "--name", "hall"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )


def newest(listener: Listener) -> dict[str, bytes]:
    return {message.topic: message.payload for message in list(listener.received)}


def test_replay_nodes_publish_each_message_once_and_in_order(
    broker: Mosquitto, listener: Listener, tmp_path: Path
) -> None:
    path = write_recording(tmp_path / "r", messages=40)
    done = run_replay(path, "--mqtt", broker.url, "--nodes", str(NODES), "--name", "hall")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "replay: 20 nodes, hall-0001 to hall-0020; Ctrl-C ends them",
        "replay: 800 messages of 20 nodes published",
    ]
    for node in IDS:
        listener.wait_for(f"edgepose/{node}/availability", b"offline")
    sequences = defaultdict(list)
    for message in listener.received:
        if message.topic.endswith("/poses"):
            pose_message = decode(message.payload)
            assert message.topic == f"edgepose/{pose_message.node}/main/poses"
            sequences[pose_message.node].append(pose_message.sequence)
    assert sequences == {node: list(range(40)) for node in IDS}


def test_replay_nodes_have_the_states_of_real_nodes(broker: Mosquitto, tmp_path: Path) -> None:
    """What a subscriber finds that comes later, and what changes with the messages."""
    path = write_recording(tmp_path / "r", messages=20)
    with broker.listener("edgepose/#") as listener:
        assert run_replay(path, "--mqtt", broker.url, "--nodes", "2").returncode == 0
        listener.wait_for("edgepose/gym-0002/main/count", b"1")
        for node in ("gym-0001", "gym-0002"):
            assert listener.payloads(f"edgepose/{node}/main/presence") == [b"ON", b"OFF"]
            assert listener.payloads(f"edgepose/{node}/main/count") == [b"1", b"0"]
            assert listener.payloads(f"edgepose/{node}/main/status") == [b"online"]
            assert listener.payloads(f"edgepose/{node}/main/enabled") == [b"ON"]
            availability = listener.payloads(f"edgepose/{node}/availability")
            assert (availability[0], availability[-1]) == (b"online", b"offline")
    with broker.listener("edgepose/gym-0002/#") as late:
        late.wait_for("edgepose/gym-0002/availability", b"offline")
        late.wait_for("edgepose/gym-0002/accelerator")
        info = json.loads(late.wait_for("edgepose/gym-0002/info").payload)
        assert info["cameras"] == ["main"]
        assert info["node"] == "gym-0002"
        assert len(info["keypoint_names"]) == 17
        assert all(message.retain for message in late.received)


def test_replay_nodes_killed_leave_their_last_wills(
    broker: Mosquitto, listener: Listener, tmp_path: Path
) -> None:
    """Every node has a connection with a last will."""
    process = start(write_recording(tmp_path / "r", messages=2000), broker, NODES)
    for node in IDS:
        listener.wait_for(f"edgepose/{node}/main/poses")
        assert newest(listener)[f"edgepose/{node}/availability"] == b"online"
    process.kill()
    process.communicate()
    wait_for(
        lambda: all(
            newest(listener)[f"edgepose/{node}/availability"] == b"offline" for node in IDS
        ),
        "every last will",
    )


def test_replay_nodes_ctrl_c_ends_all_of_them(
    broker: Mosquitto, listener: Listener, tmp_path: Path
) -> None:
    process = start(write_recording(tmp_path / "r", messages=2000), broker, NODES)
    for node in IDS:
        listener.wait_for(f"edgepose/{node}/main/poses")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    wait_for(
        lambda: all(
            newest(listener)[f"edgepose/{node}/availability"] == b"offline" for node in IDS
        ),
        "every node to be offline",
    )


def test_replay_nodes_broker_restart(broker: Mosquitto, listener: Listener, tmp_path: Path) -> None:
    """Nodes connect again and announce themselves; what was lost is counted."""
    path = write_recording(tmp_path / "r", messages=150)
    process = start(path, broker, 3)
    listener.wait_for("edgepose/hall-0003/main/poses")
    broker.kill()
    listener.received.clear()
    broker.start()
    for node in IDS[:3]:
        listener.wait_for(f"edgepose/{node}/availability", b"online")
        listener.wait_for(f"edgepose/{node}/main/status", b"online")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert " messages of 3 nodes published, 0 invalid lines skipped, " in errors
    # Three nodes lose their connection together.
    assert errors.count("ended the connection") <= 1


def test_replay_nodes_errors_are_one_line(broker: Mosquitto, tmp_path: Path) -> None:
    path = write_recording(tmp_path / "r", messages=2)
    two = tmp_path / "two"
    two.write_bytes(line_of(1.0) + b"\n" + line_of(2.0, node="hall") + b"\n")
    for arguments, code, text in (
        ((path, "--name", "hall"), 2, "give --nodes too"),
        ((path, "--nodes", "2", "--speed", "0"), 2, "--speed 0 does not wait"),
        ((path, "--nodes", "0"), 2, "1<=x<=900"),
        ((path, "--nodes", "2", "--name", "a/b"), 2, "the node id: expected"),
        ((two, "--nodes", "2"), 1, "expected a recording of one node, got gym and hall"),
        ((path, "--nodes", "2", "--mqtt", "mqtt://127.0.0.1:1"), 1, "refuses connections"),
    ):
        done = run_replay("--mqtt", broker.url, *arguments)
        assert (done.returncode, done.stdout) == (code, ""), (arguments, done.stderr)
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
