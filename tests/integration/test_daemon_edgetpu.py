"""Failures of the Edge TPU in a running daemon: the device is fake, all else is real."""

import json
import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from edgepose import messages
from edgepose.messages import PoseMessage
from tests.daemon import CAMERA, NODE, Daemon, last, running, wait_for_more_poses
from tests.edgetpu import Behaviour, FakeEdgeTpu
from tests.mosquitto import Listener, Mosquitto, wait_for
from tests.processes import children, is_idle

TOPIC = f"{NODE}/accelerator"
MODEL = "movenet-lightning-int8_edgetpu"
CPU_MODEL = "movenet-lightning-int8"
PHOTOGRAPH = files("edgepose") / "assets" / "astronaut.jpg"


@pytest.fixture
def fake_edgetpu(tmp_path: Path) -> FakeEdgeTpu:
    return FakeEdgeTpu(tmp_path / "edgetpu")


def running_on(
    tmp_path: Path, broker: Mosquitto, model: Path, fake_edgetpu: FakeEdgeTpu
) -> AbstractContextManager[Daemon]:
    """Run a daemon with a model file on a fake Edge TPU."""
    return running(
        *(tmp_path, broker, "synthetic:", "--model", str(model)),
        environment=fake_edgetpu.environment(),
    )


def state(listener: Listener) -> dict[str, Any]:
    payload = last(listener, TOPIC)
    return {} if payload is None else dict(json.loads(payload))


def wait_for_device(listener: Listener, device: str) -> dict[str, Any]:
    wait_for(lambda: state(listener).get("device") == device, f"the device to become {device}", 20)
    return state(listener)


def newest(listener: Listener) -> PoseMessage:
    return messages.decode(listener.payloads(f"{CAMERA}/poses")[-1])


def wait_for_poses_on(listener: Listener, device: str) -> PoseMessage:
    topic = f"{CAMERA}/poses"
    wait_for(
        lambda: bool(listener.payloads(topic)) and newest(listener).accelerator == device,
        f"poses from the {device}",
        20,
    )
    return newest(listener)


@pytest.mark.parametrize("behaviour", ["abort", "fail", "hang", "unplugged"])
def test_daemon_falls_back_to_cpu_and_returns_to_edge_tpu(
    tmp_path: Path, broker: Mosquitto, fake_edgetpu: FakeEdgeTpu, behaviour: Behaviour
) -> None:
    """The CPU runs the frame on which the Edge TPU died, and the track keeps its id."""
    model = fake_edgetpu.compiled_model()
    with (
        broker.listener() as listener,
        running_on(tmp_path, broker, model, fake_edgetpu) as daemon,
    ):
        healthy = wait_for_device(listener, "edgetpu")
        assert (healthy["degraded"], healthy["reason"], healthy["model"]) == (False, None, MODEL)
        before = wait_for_poses_on(listener, "edgetpu")
        assert not before.degraded

        fake_edgetpu.set(behaviour)
        degraded = wait_for_device(listener, "cpu")
        assert degraded["degraded"]
        assert degraded["reason"]
        assert degraded["model"] == CPU_MODEL
        meanwhile = wait_for_poses_on(listener, "cpu")
        assert (meanwhile.model, meanwhile.degraded) == (CPU_MODEL, True)

        fake_edgetpu.set("ok")
        again = wait_for_device(listener, "edgetpu")
        assert (again["degraded"], again["restarts"]) == (False, 1)
        after = wait_for_poses_on(listener, "edgetpu")
        code, _, stderr = daemon.end()
    assert (code, "Traceback" in stderr) == (0, False), stderr
    assert {pose.id for message in (before, meanwhile, after) for pose in message.poses} == {1}
    sent = [messages.decode(payload) for payload in listener.payloads(f"{CAMERA}/poses")]
    assert all(message.poses for message in sent[:-1]), "a frame without a pose in between"
    assert stderr.count(f"falling back to {CPU_MODEL} on the CPU") == 1


def test_daemon_device_auto_uses_cpu_until_edge_tpu_appears(
    tmp_path: Path, broker: Mosquitto, fake_edgetpu: FakeEdgeTpu
) -> None:
    model = fake_edgetpu.compiled_model()
    fake_edgetpu.set("absent")
    with (
        broker.listener() as listener,
        running_on(tmp_path, broker, model, fake_edgetpu),
    ):
        assert wait_for_poses_on(listener, "cpu").degraded
        wait_for(lambda: "no Edge TPU" in str(state(listener)["reason"]), "the reason")
        fake_edgetpu.set("ok")
        assert not wait_for_poses_on(listener, "edgetpu").degraded


def test_daemon_named_model_uses_compiled_file(
    tmp_path: Path, broker: Mosquitto, fake_edgetpu: FakeEdgeTpu
) -> None:
    """The thresholds of `pose.edgetpu` apply on the Edge TPU only."""
    path = fake_edgetpu.compiled_model()
    config = "pose: {edgetpu: {pose_threshold: 0.11, keypoint_threshold: 0.99}}\n"
    with (
        broker.listener() as listener,
        running(
            tmp_path,
            broker,
            "synthetic:",
            *("--model", str(path.with_name(f"{CPU_MODEL}.tflite"))),
            config=config,
            environment=fake_edgetpu.environment(),
        ),
    ):
        on_cpu = wait_for_poses_on(listener, "cpu")
        assert any(point is not None for point in on_cpu.poses[0].keypoints)
        assert wait_for_device(listener, "edgetpu")["pose_threshold"] == 0.11
        assert set(wait_for_poses_on(listener, "edgetpu").poses[0].keypoints) == {None}


def test_daemon_without_fallback_waits_for_edge_tpu(
    tmp_path: Path, broker: Mosquitto, fake_edgetpu: FakeEdgeTpu
) -> None:
    model = fake_edgetpu.compiled_model()
    model.with_name(f"{CPU_MODEL}.tflite").unlink()
    with (
        broker.listener() as listener,
        running_on(tmp_path, broker, model, fake_edgetpu) as daemon,
    ):
        wait_for_device(listener, "edgetpu")
        wait_for(lambda: last(listener, f"{CAMERA}/presence") == b"ON", "presence")
        fake_edgetpu.set("abort")
        wait_for(lambda: state(listener)["degraded"], "the loss")
        assert state(listener)["model"] is None
        wait_for(lambda: last(listener, f"{CAMERA}/presence") == b"OFF", "presence OFF")
        # States are sent before messages.
        wait_for(lambda: newest(listener).poses == [], "the message without poses")
        fake_edgetpu.set("ok")
        wait_for(lambda: not state(listener)["degraded"], "the return")
        wait_for_more_poses(listener)
        code, _, stderr = daemon.end()
    assert (code, "Traceback" in stderr) == (0, False), stderr


def test_daemon_notices_stopped_worker_while_idle(
    tmp_path: Path, broker: Mosquitto, fake_edgetpu: FakeEdgeTpu
) -> None:
    """With the camera switched off nothing is invoked; the heartbeat detects it."""
    model = fake_edgetpu.compiled_model()
    with (
        broker.listener() as listener,
        running_on(tmp_path, broker, model, fake_edgetpu) as daemon,
    ):
        # Not the poses: the first of them arrive before the topic changes from `cpu`.
        wait_for_device(listener, "edgetpu")
        broker.publish(f"{CAMERA}/enabled/set", b"OFF")
        wait_for(lambda: last(listener, f"{CAMERA}/enabled") == b"OFF", "the camera to be off")
        (worker,) = children(daemon.process.pid)
        wait_for(lambda: is_idle(worker), "the last inference to end")
        os.kill(worker, signal.SIGSTOP)
        assert "not responded for 5 s" in wait_for_device(listener, "cpu")["reason"]
        wait_for_device(listener, "edgetpu")
        assert worker not in children(daemon.process.pid)


def test_daemon_reload_keeps_or_reopens_edge_tpu(
    tmp_path: Path, broker: Mosquitto, fake_edgetpu: FakeEdgeTpu
) -> None:
    """Only a change of the model or its thresholds opens the device again."""
    path = fake_edgetpu.compiled_model()
    with (
        broker.listener() as listener,
        running(
            tmp_path,
            broker,
            config=f"model: {{name: {path}}}\n",
            environment=fake_edgetpu.environment(),
        ) as daemon,
    ):
        wait_for_poses_on(listener, "edgetpu")
        (worker,) = children(daemon.process.pid)
        daemon.configure(f"model: {{name: {path}}}\npresence: {{off_delay_ms: 100}}\n")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: listener.payloads(f"{CAMERA}/status")[-2:] == [b"offline", b"online"], "")
        wait_for_more_poses(listener)
        assert children(daemon.process.pid) == {worker}
        assert newest(listener).accelerator == "edgetpu"

        daemon.configure(
            f"model: {{name: {path}}}\npose: {{edgetpu: {{keypoint_threshold: 0.99}}}}\n"
        )
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: worker not in children(daemon.process.pid), "another worker")
        wait_for(
            lambda: (
                newest(listener).accelerator == "edgetpu"
                and any(set(pose.keypoints) == {None} for pose in newest(listener).poses)
            ),
            "the new threshold",
            20,
        )
        code, _, stderr = daemon.end()
    assert (code, "Traceback" in stderr) == (0, False), stderr


def test_daemon_reload_and_stop_while_edge_tpu_hangs_in_opening(
    tmp_path: Path, broker: Mosquitto, fake_edgetpu: FakeEdgeTpu
) -> None:
    """The CPU goes on with the other model; neither waits for the device."""
    path = fake_edgetpu.compiled_model()
    fake_edgetpu.set("slow-at-create", ms=600_000)
    with (
        broker.listener() as listener,
        running(
            tmp_path,
            broker,
            config=f"accelerator: auto\nmodel: {{name: {path}}}\n",
            environment=fake_edgetpu.environment(),
        ) as daemon,
    ):
        wait_for_poses_on(listener, "cpu")
        wait_for(lambda: children(daemon.process.pid), "the worker")
        daemon.configure(
            f"accelerator: auto\nmodel: {{name: {path}}}\npose: {{keypoint_threshold: 0.99}}\n"
        )
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: any(set(pose.keypoints) == {None} for pose in newest(listener).poses),
            "the new threshold",
        )
        assert newest(listener).accelerator == "cpu"
        code, _, stderr = daemon.end()
    assert (code, "Traceback" in stderr) == (0, False), stderr


def test_daemon_stop_while_a_required_edge_tpu_hangs_in_opening(
    tmp_path: Path, broker: Mosquitto, fake_edgetpu: FakeEdgeTpu
) -> None:
    """At the start nothing else runs yet; systemd killed it after TimeoutStopSec."""
    path = fake_edgetpu.compiled_model()
    fake_edgetpu.set("slow-at-create", ms=600_000)
    with running(
        tmp_path,
        broker,
        config=f"accelerator: edgetpu\nmodel: {{name: {path}}}\n",
        environment=fake_edgetpu.environment(),
    ) as daemon:
        wait_for(lambda: children(daemon.process.pid), "the worker")
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(30) == 0


def test_estimate_with_compiled_model(tmp_path: Path, fake_edgetpu: FakeEdgeTpu) -> None:
    model = fake_edgetpu.compiled_model()
    command = [sys.executable, "-m", "edgepose", "estimate", "--model", str(model), str(PHOTOGRAPH)]
    environment = {**os.environ, **fake_edgetpu.environment()}
    # With the CPU's file beside it, a command that ends would use that one.
    model.with_name(f"{CPU_MODEL}.tflite").unlink()
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    line = json.loads(run.stdout)
    assert (line["accelerator"], len(line["poses"])) == ("edgetpu", 1)
    fake_edgetpu.set("absent")
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("edgepose: no Edge TPU is plugged in")


def test_daemon_killed_ends_edge_tpu_worker(
    tmp_path: Path, broker: Mosquitto, fake_edgetpu: FakeEdgeTpu
) -> None:
    """An orphaned worker would hold the device for ever."""
    model = fake_edgetpu.compiled_model()
    with (
        broker.listener() as listener,
        running_on(tmp_path, broker, model, fake_edgetpu) as daemon,
    ):
        wait_for_poses_on(listener, "edgetpu")
        (worker,) = children(daemon.process.pid)
        fake_edgetpu.set("hang")
        daemon.end(signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{worker}").exists(), "the worker to end")


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("absent", "no Edge TPU is plugged in"),
        ("abort-at-create", "SIGABRT"),
        ("segfault-at-create", "set inference.runtime to another runtime"),
        ("version", "update libedgetpu"),
        ("fail", "failed its first inference"),
    ],
)
def test_daemon_edgetpu_fails_at_start_with_reason(
    tmp_path: Path, broker: Mosquitto, fake_edgetpu: FakeEdgeTpu, behaviour: Behaviour, message: str
) -> None:
    fake_edgetpu.set(behaviour)
    model = str(fake_edgetpu.compiled_model())
    arguments = ("--model", model, "--accelerator", "edgetpu", "--mqtt", broker.url)
    daemon = Daemon(
        tmp_path, "--source", "synthetic:", *arguments, environment=fake_edgetpu.environment()
    )
    code, stdout, stderr = daemon.wait()
    assert (code, stdout) == (1, "")
    assert message in stderr
    assert "Traceback" not in stderr


def test_daemon_edgetpu_as_service_waits_for_it(
    tmp_path: Path, broker: Mosquitto, fake_edgetpu: FakeEdgeTpu
) -> None:
    """An Edge TPU that is plugged in after the start of the service is as one that failed later."""
    fake_edgetpu.set("abort")
    # A notification to a socket that does not exist is lost.
    manager = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    model = str(fake_edgetpu.compiled_model())
    arguments = ("--model", model, "--accelerator", "edgetpu")
    with (
        broker.listener() as listener,
        running(
            *(tmp_path, broker, "synthetic:", *arguments),
            environment=fake_edgetpu.environment() | manager,
        ) as daemon,
    ):
        wait_for_poses_on(listener, "cpu")
        assert state(listener)["degraded"]
        fake_edgetpu.set("ok")
        wait_for_poses_on(listener, "edgetpu")
        assert daemon.end()[0] == 0


def test_daemon_edgetpu_without_compiled_file_names_remedy(
    tmp_path: Path, broker: Mosquitto
) -> None:
    arguments = ("--accelerator", "edgetpu", "--mqtt", broker.url)
    code, _, stderr = Daemon(tmp_path, "--source", "synthetic:", *arguments).wait()
    assert code == 1
    assert "edgepose models pull movenet-lightning-int8-edgetpu" in stderr
