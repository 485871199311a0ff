"""Measure the cost of the daemon: `make bench`, or `python -m tools.bench` in the repository.

Prints the figures of `edgepose benchmark --pipeline` with INT8 Lightning on the CPU and with a fake
Edge TPU that takes 7 ms, then start, memory, smoothing, and the cost of the Edge TPU's process.
"""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepose.inference.cpu import CpuAccelerator
from edgepose.inference.edgetpu import EdgeTpuAccelerator
from edgepose.inference.failover import SingleModel
from edgepose.inference.interpreter import RuntimeInterpreter
from edgepose.inference.runtime import load_runtime
from edgepose.mqtt.local_broker import local_broker
from edgepose.pipeline import Pipeline
from edgepose.pose_models.movenet_single import MovenetSingle
from edgepose.protocols import Interpreter, LoadedModel, Smoother
from edgepose.registry.registry import resolve
from edgepose.smoothing.no_smoother import NoSmoother
from edgepose.smoothing.one_euro import PRESETS, OneEuro, OneEuroParameters
from edgepose.sources.synthetic import SyntheticSource
from edgepose.tracking.oks_tracker import OksTracker
from tests.edgetpu import FakeEdgeTpu

MODEL = "movenet-lightning-int8"
SIZE_WH = (640, 480)
STEP_NS = 33_333_333
EDGETPU_MS = 7
ROUND_TRIP: Final = "EDGEPOSE_BENCH_ROUND_TRIP"


def main() -> None:
    """Print every figure."""
    if ROUND_TRIP in os.environ:
        edgetpu()
        return
    pipeline()
    with local_broker() as broker:
        start_and_memory(broker.url)
    smoothing()
    edgetpu()


def pipeline() -> None:
    """Measure throughput relative to a bare loop, latency, and processor time beyond `invoke`."""
    command = [sys.executable, "-m", "edgepose", "benchmark", "--no-latency", "--pipeline"]
    subprocess.run([*command, "--models", MODEL, "--threads", "1"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        fake_edgetpu = FakeEdgeTpu(Path(folder))
        path = fake_edgetpu.compiled_model()
        fake_edgetpu.set("slow", ms=EDGETPU_MS)
        subprocess.run(
            [*command, "--models", str(path), "--accelerator", "edgetpu"],
            env={**os.environ, **fake_edgetpu.environment()},
            check=True,
        )


def start_and_memory(url: str) -> None:
    """Measure from exec to the first pose at a subscriber, and resident memory after 5 s."""
    times, memory, port = [], 0.0, url.rpartition(":")[2]
    for _ in range(5):
        listener = subprocess.Popen(
            [sys.executable, "-c", _FIRST_POSE, port],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert listener.stdout is not None
        listener.stdout.readline()
        started = time.time()
        daemon = _daemon(url)
        arrived = float(listener.stdout.readline())
        times.append(arrived - started)
        listener.wait()
        if len(times) == 5:
            time.sleep(5)
            status = Path(f"/proc/{daemon.pid}/status").read_text()
            line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
            memory = int(line.split()[1]) * 1024 / 1e6
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()
    _print(f"start to first pose at a subscriber: median {statistics.median(times):.2f} s")
    _print(f"resident memory after 5 s: {memory:.1f} MB")


def edgetpu() -> None:
    """Measure the cost of running an Edge TPU in another process, with a fake device.

    The same file and library run in this process and in a worker alternately, back to back and with
    pauses as between the frames of a camera; the device itself takes next to no time.
    """
    if ROUND_TRIP not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            fake_edgetpu = FakeEdgeTpu(Path(folder))
            path = fake_edgetpu.compiled_model()
            fake_edgetpu.set("zeros")
            # glibc reads the path of the library when a process starts.
            environment = {**os.environ, **fake_edgetpu.environment(), ROUND_TRIP: str(path)}
            subprocess.run([sys.executable, "-m", "tools.bench"], env=environment, check=True)
        return
    path = Path(os.environ[ROUND_TRIP])
    # One process per device, and here are two: each gets its own lock.
    worker = EdgeTpuAccelerator(runtime="litert").load(path)
    control = Path(os.environ["FAKE_EDGETPU_CONTROL"])
    os.environ["FAKE_EDGETPU_CONTROL"] = str(shutil.copy(control, f"{control}-here"))
    _, runtime = load_runtime("litert")
    delegate = runtime.load_delegate("libedgetpu.so.1")
    model = runtime.Interpreter(str(path), experimental_delegates=[delegate])
    model.allocate_tensors()
    here = RuntimeInterpreter(model, path)
    tensor = np.zeros(here.input.shape, here.input.dtype)
    _print("an inference that takes no time, in this process and in a worker (median ms)")
    for name, pause_s, count in (("back to back", 0.0, 500), ("30 a second", 0.033, 60)):
        times: dict[Interpreter, list[float]] = {here: [], worker: []}
        for _ in range(count):
            for interpreter, taken in times.items():
                time.sleep(pause_s)
                before = time.perf_counter()
                interpreter.invoke(tensor)
                taken.append((time.perf_counter() - before) * 1e3)
        inside, outside = (statistics.median(taken) for taken in times.values())
        _print(f"  {name:13} {inside:6.3f} {outside:6.3f}   {outside - inside:+.3f}")
    worker.close()


def smoothing() -> None:
    """Measure jitter and lag on the synthetic source, whose true motion is known."""
    interpreter = CpuAccelerator().load(resolve(MODEL).path)
    _print("smoothing on the synthetic source, keypoints of score >= 0.3 (px)")
    _print("  preset      jitter   error   lag ms")
    for name, parameters in [("off", None), *PRESETS.items()]:
        found, truth = _followed(interpreter, parameters)
        jitter = np.abs(np.diff(found - truth, axis=0)).mean()
        centred = (found - truth) - (found - truth).mean(axis=0)
        speed = np.gradient(truth, STEP_NS / 1e6, axis=0)
        # The lag that explains the error best: error = -lag * speed, in the least-squares sense.
        lag_ms = -float((centred * speed).sum() / np.square(speed).sum())
        error = np.linalg.norm(centred, axis=2).mean()
        _print(f"  {name:10} {jitter:7.3f} {error:7.2f} {lag_ms:7.1f}")


def _followed(
    interpreter: RuntimeInterpreter, parameters: OneEuroParameters | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    source = SyntheticSource(size_wh=SIZE_WH, frame_count=241, realtime=False)
    smoother = OneEuro(parameters) if parameters is not None else NoSmoother()
    pipeline = _pipeline(interpreter, smoother)
    points, affines, scores = [], [], []
    with source:
        for frame in source.frames():
            step = pipeline.process(frame)
            if len(step.tracked):
                points.append(step.tracked.poses.keypoints[0])
                scores.append(step.tracked.poses.keypoint_scores[0])
                affines.append(source.affine_at(frame.timestamp_ns - source.start_ns))
    found, matrices = np.array(points, np.float64), np.array(affines)
    kept = np.median(np.array(scores), axis=0) >= 0.3
    found = found[:, kept]
    # The position of each keypoint on the photograph: the median of the model over the motion.
    inverse = np.linalg.inv(matrices[:, :, :2])
    on_photograph = np.einsum("tij,tkj->tki", inverse, found - matrices[:, None, :, 2])
    still = np.median(on_photograph, axis=0)
    truth = np.einsum("tij,kj->tki", matrices[:, :, :2], still) + matrices[:, None, :, 2]
    return found, truth


def _pipeline(interpreter: RuntimeInterpreter, smoother: Smoother) -> Pipeline:
    model = MovenetSingle(interpreter.input, interpreter.outputs, name=MODEL)
    return Pipeline(
        SingleModel(
            LoadedModel(MODEL, Path(MODEL), "movenet_single", "cpu", interpreter, model, 0.3, 0.3)
        ),
        OksTracker(),
        smoother,
        [],
        node="bench",
        camera="main",
    )


def _daemon(url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgepose", "run", "--source", "synthetic:", "--mqtt", url],
        env={**os.environ, "EDGEPOSE_MQTT_PASSWORD": ""},
        stderr=subprocess.DEVNULL,
    )


def _print(text: str) -> None:
    print(text, flush=True)


_FIRST_POSE = """
import json, sys, threading, time
import paho.mqtt.client as paho
done = threading.Event()
def on_message(client, userdata, message):
    if json.loads(message.payload)["poses"] and not done.is_set():
        print(time.time(), flush=True)
        done.set()
client = paho.Client(paho.CallbackAPIVersion.VERSION2)
def on_subscribe(*_): print("listening", flush=True)
client.on_connect = lambda c, *_: c.subscribe("edgepose/+/main/poses")
client.on_subscribe = on_subscribe
client.on_message = on_message
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_start()
done.wait(20)
"""


if __name__ == "__main__":
    main()
