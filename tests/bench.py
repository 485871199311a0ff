"""What `make bench` measures: the line against a bare loop of the same model, in one run.

Nothing here passes or fails; figures are printed with what they are relative to. Rounds of both
alternate, so that a machine whose clock drifts treats them alike.
"""

import itertools
import json
import os
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgepose.accelerators._interpreter import RuntimeInterpreter
from edgepose.accelerators.cpu import CpuAccelerator
from edgepose.datatypes import Frame
from edgepose.mqtt_url import parse_broker_url
from edgepose.pipeline import LoadedModel, Look, Pipeline
from edgepose.pose_models.movenet_single import MovenetSingle
from edgepose.preprocess import halved
from edgepose.protocols import FrameSource, Smoother
from edgepose.sinks.mqtt import MqttSink
from edgepose.smoothing.one_euro import PRESETS, OneEuro, OneEuroParameters
from edgepose.smoothing.passthrough import Passthrough
from edgepose.sources.synthetic import SyntheticSource
from edgepose.topics import Topics
from edgepose.tracking.oks import OksTracker
from edgepose.weights import resolve
from tests.mosquitto import free_port, require

MODEL = "movenet-lightning-int8"
SIZE_WH = (640, 480)
ROUNDS = 8
FRAMES = 120
RING = 8
"""Different frames in memory: as with a camera, whose frame was written a moment ago, they fit the
processor's last cache. In motion forth and back."""
STEP_NS = 33_333_333


def main() -> None:
    """Print every figure."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        broker = _mosquitto(port, Path(folder))
        try:
            overhead(port)
            throughput(port)
            latency(port)
            start_and_memory(port)
        finally:
            broker.terminate()
            broker.wait()
    smoothing()


def overhead(port: int) -> None:
    """Measure everything but invoke, frame in memory to message handed to the MQTT client."""
    interpreter = CpuAccelerator(threads=1).load(resolve(MODEL).path)
    sink = _sink(port)
    pipeline = _pipeline(interpreter, sink)
    frames = list(_frames())
    tensor = np.ascontiguousarray(frames[0].image[:192, :192])[np.newaxis]
    rows, bare, whole, bare_loop = [], [], [], []
    clock = 0
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        for _ in frames:
            before = time.perf_counter_ns()
            interpreter.invoke(tensor)
            bare.append(time.perf_counter_ns() - before)
        bare_loop.append(time.perf_counter_ns() - started)
        started = time.perf_counter_ns()
        for frame in frames:
            clock += 1
            stamped = replace(frame, timestamp_ns=clock * STEP_NS, sequence=clock)
            before = time.perf_counter_ns()
            step = pipeline.step(stamped)
            took = time.perf_counter_ns() - before
            timings = step.timings
            rows.append(
                (
                    timings.preprocess_ns,
                    timings.invoke_ns,
                    timings.decode_ns,
                    timings.track_ns,
                    timings.smooth_ns,
                    step.publish_ns,
                    took - timings.invoke_ns,
                )
            )
        whole.append(time.perf_counter_ns() - started)
    halving = []
    for frame in frames:
        interpreter.invoke(tensor)
        before = time.perf_counter_ns()
        halved(frame.image)
        halving.append(time.perf_counter_ns() - before)
    sink.close()
    medians = np.median(np.array(rows), axis=0) / 1e6
    names = ("preprocess", "invoke", "decode", "track", "smooth", "publish", "all but invoke")
    _print("one frame, one thread, 640x480, one pose (median ms)")
    for name, value in zip(names, medians, strict=True):
        _print(f"  {name:16} {value:7.3f}")
    _print(f"  {'bare invoke':16} {statistics.median(bare) / 1e6:7.3f}")
    _print(f"  {'(halving':16} {statistics.median(halving) / 1e6:7.3f}  in the capture thread)")
    ratio = statistics.median(b / w for b, w in zip(bare_loop, whole, strict=True))
    _print(f"  throughput of the steps in one thread to bare invoke: {ratio:.3f}")


def throughput(port: int) -> None:
    """Measure the daemon's way, which tells of one frame while it looks at the next."""
    interpreter = CpuAccelerator(threads=1).load(resolve(MODEL).path)
    sink = _sink(port)
    pipeline = _pipeline(interpreter, sink)
    frames = list(_frames())
    tensor = np.ascontiguousarray(frames[0].image[:192, :192])[np.newaxis]
    ratios = []
    clock = 0
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        for _ in frames:
            interpreter.invoke(tensor)
        bare = time.perf_counter_ns() - started
        looks: queue.Queue[Look | None] = queue.Queue(maxsize=2)

        def tell(waiting: queue.Queue[Look | None] = looks) -> None:
            while (look := waiting.get()) is not None:
                pipeline.tell(look)

        teller = threading.Thread(target=tell)
        started = time.perf_counter_ns()
        teller.start()
        look: Look | None = None
        for frame in frames:
            clock += 1
            stamped = replace(frame, timestamp_ns=clock * STEP_NS, sequence=clock)
            prepared = pipeline.prepare(stamped)
            if look is not None:
                looks.put(look)
            look = pipeline.see(prepared)
        looks.put(look)
        looks.put(None)
        teller.join()
        ratios.append(bare / (time.perf_counter_ns() - started))
    sink.close()
    _print("the daemon's two threads, frames from memory, one invoke thread")
    _print(
        f"  throughput of the whole line to bare invoke: {statistics.median(ratios):.3f} "
        f"(rounds {min(ratios):.3f} to {max(ratios):.3f})"
    )


def latency(port: int) -> None:
    """Measure from a frame's timestamp to the message at a subscriber in another process."""
    listener = subprocess.Popen(
        [sys.executable, "-c", _LISTENER, str(port), "10"], stdout=subprocess.PIPE, text=True
    )
    time.sleep(0.5)
    daemon = _daemon(port, "synthetic:?fps=30")
    output, _ = listener.communicate()
    daemon.send_signal(signal.SIGTERM)
    daemon.wait()
    values = np.array(json.loads(output))
    if not len(values):
        _print("no message reached the subscriber")
        return
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    late = int((values > 35).sum())
    _print(f"the daemon at 30 fps, frame to subscriber, {len(values)} messages (ms)")
    _print(f"  p50 {p50:.2f}  p95 {p95:.2f}  p99 {p99:.2f}  over 35 ms: {late}")


def start_and_memory(port: int) -> None:
    """Measure from exec to the first pose at a subscriber, and resident memory after 5 s."""
    times, memory = [], 0.0
    for _ in range(5):
        listener = subprocess.Popen(
            [sys.executable, "-c", _FIRST_POSE, str(port)], stdout=subprocess.PIPE, text=True
        )
        assert listener.stdout is not None
        listener.stdout.readline()
        started = time.time()
        daemon = _daemon(port, "synthetic:")
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


def smoothing() -> None:
    """Measure jitter and lag where the true motion is known: the synthetic source."""
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
    smoother = OneEuro(parameters) if parameters is not None else Passthrough()
    pipeline = _pipeline(interpreter, None, smoother)
    points, affines, scores = [], [], []
    with source:
        for frame in source.frames():
            step = pipeline.step(frame)
            if len(step.tracked):
                points.append(step.tracked.poses.keypoints[0])
                scores.append(step.tracked.poses.keypoint_scores[0])
                affines.append(source.affine_at(frame.timestamp_ns - source.start_ns))
    found, matrices = np.array(points, np.float64), np.array(affines)
    kept = np.median(np.array(scores), axis=0) >= 0.3
    found = found[:, kept]
    # Where each keypoint is on the photograph: what the model says on average over the motion.
    inverse = np.linalg.inv(matrices[:, :, :2])
    on_photograph = np.einsum("tij,tkj->tki", inverse, found - matrices[:, None, :, 2])
    still = np.median(on_photograph, axis=0)
    truth = np.einsum("tij,kj->tki", matrices[:, :, :2], still) + matrices[:, None, :, 2]
    return found, truth


def _pipeline(
    interpreter: RuntimeInterpreter, sink: MqttSink | None, smoother: Smoother | None = None
) -> Pipeline:
    model = MovenetSingle(interpreter.input, interpreter.outputs, name=MODEL)
    return Pipeline(
        LoadedModel(MODEL, Path(MODEL), "movenet_single", "cpu", interpreter, model, 0.3, 0.3),
        OksTracker(),
        smoother or OneEuro(PRESETS["steady"]),
        [] if sink is None else [sink],
        node="bench",
        camera="main",
    )


def _frames() -> Iterator[Frame]:
    source: FrameSource = SyntheticSource(size_wh=SIZE_WH, frame_count=RING, realtime=False)
    with source:
        # Halved, as a capture thread hands them over.
        ring = [replace(frame, half=halved(frame.image)) for frame in source.frames()]
    forth_and_back = itertools.cycle([*ring, *ring[-2:0:-1]])
    yield from itertools.islice(forth_and_back, FRAMES)


def _sink(port: int) -> MqttSink:
    sink = MqttSink(
        address=parse_broker_url(f"mqtt://127.0.0.1:{port}"),
        topics=Topics(node="bench"),
        client_id="edgepose-bench",
        cameras=("main",),
        info=b"{}",
    )
    sink.open(require_connection_within_s=5)
    return sink


def _daemon(port: int, source: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "edgepose", "run", "--source", source),
            *("--mqtt", f"mqtt://127.0.0.1:{port}"),
        ],
        env={**os.environ, "EDGEPOSE_MQTT_PASSWORD": ""},
        stderr=subprocess.DEVNULL,
    )


def _mosquitto(port: int, folder: Path) -> subprocess.Popen[bytes]:
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
    process = subprocess.Popen([require("mosquitto"), "-c", str(config)], stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    return process


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - printing is what a benchmark is for


_LISTENER = """
import json, sys, time
import paho.mqtt.client as paho
values = []
def on_message(client, userdata, message):
    now = time.time()
    data = json.loads(message.payload)
    if data["poses"]:
        from datetime import datetime
        values.append((now - datetime.fromisoformat(data["captured_at"]).timestamp()) * 1e3)
client = paho.Client(paho.CallbackAPIVersion.VERSION2)
client.on_connect = lambda c, *_: c.subscribe("edgepose/+/main/poses")
client.on_message = on_message
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_start()
time.sleep(float(sys.argv[2]))
print(json.dumps(values[10:]))
"""

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
