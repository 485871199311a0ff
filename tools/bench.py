"""Measure the cost of the daemon: `make bench`, or `python -m tools.bench` in the repository.

Prints the figures of `edgepose benchmark --pipeline` with INT8 Lightning on the CPU and with a fake
Edge TPU that takes 7 ms, then the instructions of a frame, start, memory, what idling saves,
smoothing, and the cost of the Edge TPU's process.
"""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepose.benchmark.subscriber import Subscriber
from edgepose.benchmark.traced_daemon import run_daemon
from edgepose.build import build_model, build_smoother
from edgepose.clock import boottime_ns
from edgepose.config.people import IdleConfig
from edgepose.config.schema import (
    Config,
    InferenceConfig,
    ModelConfig,
    MqttConfig,
    SmoothingConfig,
)
from edgepose.daemon.signals import Signals
from edgepose.datatypes import Frame
from edgepose.inference.edgetpu import EdgeTpuAccelerator
from edgepose.inference.failover import SingleModel
from edgepose.inference.interpreter import RuntimeInterpreter
from edgepose.inference.runtime import load_runtime
from edgepose.mqtt.local_broker import local_broker
from edgepose.mqtt.topics import Topics
from edgepose.pipeline import Pipeline
from edgepose.protocols import FrameDemand, FrameStream, Interpreter, LoadedModel, Smoother
from edgepose.sources._base import Pacer
from edgepose.sources._video import JpegDecoder
from edgepose.sources.synthetic import SyntheticSource
from edgepose.tracking.oks_tracker import OksTracker
from tests.edgetpu import FakeEdgeTpu
from tools import instructions

MODEL = "movenet-lightning-int8"
SIZE_WH = (640, 480)
STEP_NS = 33_333_333
EDGETPU_MS = 7
IDLE_AFTER_S = 10
ROUND_TRIP: Final = "EDGEPOSE_BENCH_ROUND_TRIP"


def main() -> None:
    """Print every figure."""
    if ROUND_TRIP in os.environ:
        edgetpu()
        return
    pipeline()
    instructions.main()
    with local_broker() as broker:
        start_and_memory(broker.url)
    idle()
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
    times_s, memory_mb = [], 0.0
    command = [sys.executable, "-m", "edgepose", "run", "--source", "synthetic:", "--mqtt", url]
    mqtt = MqttConfig(url=url)
    root = Topics(Config().node_name, mqtt.base_topic).root
    with closing(Subscriber(mqtt, root)) as subscriber:
        for number in range(5):
            # The last message of the daemon before is still on its way.
            time.sleep(0.5)
            subscriber.collect(0)
            started_ns = boottime_ns()
            daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            while not (arrivals := subscriber.collect(1)):
                pass
            times_s.append((min(arrivals.values()) - started_ns) / 1e9)
            if number == 4:
                time.sleep(5)
                status = Path(f"/proc/{daemon.pid}/status").read_text()
                line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
                memory_mb = int(line.split()[1]) * 1024 / 1e6
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()
    _print(f"start to first pose at a subscriber: median {statistics.median(times_s):.2f} s")
    _print(f"resident memory after 5 s: {memory_mb:.1f} MB")


class EmptyRoom:
    """A camera of 30 frames a second that nobody is in front of, with JPEG as of a USB camera.

    `processor_s` is the time that this process took for a second, awake and idle.
    """

    live = True
    description = "an empty room"

    def __init__(self) -> None:
        self.processor_s: list[float] = []

    def frames(self) -> FrameStream:
        """Yield those frames that are wanted, for the time to become idle twice."""
        noise = np.random.default_rng(0).normal(128, 8, (SIZE_WH[1], SIZE_WH[0], 3))
        room = cv2.GaussianBlur(noise, (0, 0), 3).astype(np.uint8)
        jpeg = cv2.imencode(".jpg", room)[1].tobytes()
        decoder, pacer = JpegDecoder(), Pacer()
        demand: FrameDemand | None = None
        before_s = 0.0
        for sequence in range(60 * IDLE_AFTER_S):
            pacer.wait_for(sequence * STEP_NS)
            # The first seconds warm up, and idling begins somewhat after its time.
            if sequence in (60, 30 * IDLE_AFTER_S + 60):
                before_s = time.process_time()
            elif sequence in (30 * IDLE_AFTER_S - 30, 60 * IDLE_AFTER_S - 1):
                self.processor_s.append((time.process_time() - before_s) / (IDLE_AFTER_S - 3))
            if demand is None or demand.wanted():
                image, _ = decoder.decode(jpeg)
                assert image is not None
                demand = yield Frame(image, boottime_ns(), sequence)


def idle() -> None:
    """Measure the processor time of the daemon at an empty room, before and while it idles."""
    config = Config(
        model=ModelConfig(name=MODEL),
        inference=InferenceConfig(threads=1),
        accelerator="cpu",
        mqtt=MqttConfig(enabled=False),
        idle=IdleConfig(enabled=True, after_s=IDLE_AFTER_S),
    )
    room = EmptyRoom()
    with Signals() as signals:
        run_daemon(config, build_model(config), room, signals)
    awake_s, idle_s = room.processor_s
    _print("processor time of the daemon at an empty room, of one core")
    _print(f"  30 frames a second {awake_s:.1%}, idle {idle_s:.1%}: {idle_s / awake_s:.2f} of it")


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
    model = build_model(Config(model=ModelConfig(name=MODEL), accelerator="cpu"))
    presets: tuple[Literal["off", "responsive", "steady"], ...] = ("off", "responsive", "steady")
    _print("smoothing on the synthetic source, keypoints of score >= 0.3 (px)")
    _print("  preset      jitter   error   lag ms")
    for name in presets:
        found, truth = _followed(model, build_smoother(SmoothingConfig(preset=name)))
        jitter = np.abs(np.diff(found - truth, axis=0)).mean()
        centred = (found - truth) - (found - truth).mean(axis=0)
        speed = np.gradient(truth, STEP_NS / 1e6, axis=0)
        # The lag that explains the error best: error = -lag * speed, in the least-squares sense.
        lag_ms = -float((centred * speed).sum() / np.square(speed).sum())
        error = np.linalg.norm(centred, axis=2).mean()
        _print(f"  {name:10} {jitter:7.3f} {error:7.2f} {lag_ms:7.1f}")


def _followed(
    model: LoadedModel, smoother: Smoother
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    source = SyntheticSource(size_wh=SIZE_WH, live=False)
    pipeline = Pipeline(SingleModel(model), OksTracker(), smoother, [], node="bench", camera="main")
    points, affines, scores = [], [], []
    start_ns = None
    for frame in islice(source.frames(), 241):
        start_ns = start_ns or frame.timestamp_ns
        step = pipeline.process(frame)
        if len(step.tracked):
            points.append(step.tracked.poses.keypoints[0])
            scores.append(step.tracked.poses.keypoint_scores[0])
            affines.append(source.affine_at(frame.timestamp_ns - start_ns))
    found, matrices = np.array(points, np.float64), np.array(affines)
    kept = np.median(np.array(scores), axis=0) >= 0.3
    found = found[:, kept]
    # The position of each keypoint on the photograph: the median of the model over the motion.
    inverse = np.linalg.inv(matrices[:, :, :2])
    on_photograph = np.einsum("tij,tkj->tki", inverse, found - matrices[:, None, :, 2])
    still = np.median(on_photograph, axis=0)
    truth = np.einsum("tij,kj->tki", matrices[:, :, :2], still) + matrices[:, None, :, 2]
    return found, truth


def _print(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
