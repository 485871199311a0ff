"""Count the instructions of a frame: `make bench`, or `python -m tools.instructions`.

A time depends on what else a machine does, the number of executed instructions hardly does. The
daemon runs under valgrind with frames from memory, the replay accelerator and a broker in another
process. All its threads are counted, from one frame of a steady scene to another, so neither start
nor end is in the figures. Then the same frames are counted by room: valgrind knows functions of C
only, so the functions of a room are called through one of C with the name of the room.
"""

import ctypes
import dataclasses
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NoReturn

from edgepose.benchmark.feed import frame_feed
from edgepose.build import build_model, build_smoother, build_tracker
from edgepose.config.schema import Config, InferenceConfig, ModelConfig, MqttConfig
from edgepose.daemon.app import App, topics_of
from edgepose.daemon.signals import Signals
from edgepose.daemon.state_folder import StateFolder
from edgepose.datatypes import Frame
from edgepose.inference.failover import SingleModel
from edgepose.mqtt.local_broker import local_broker
from edgepose.pipeline import Pipeline
from edgepose.protocols import FrameStream
from tools.record_outputs import OutputRecorder

MODEL: Final = "movenet-lightning-int8"
WARM_UP: Final = 28
FRAMES: Final = 140
"""Both are multiples of 14, after which the frames from memory repeat."""
NEEDED: Final = (Path("/usr/bin/gcc"), Path("/usr/include/valgrind/callgrind.h"))

ROOMS: Final[Mapping[str, tuple[str, ...]]] = {
    "invoke": ("edgepose.inference.replay:ReplayInterpreter.invoke",),
    "imaging": ("edgepose.pipeline:preprocess",),
    "pose_models": ("edgepose.pose_models.movenet_single:MovenetSingle.decode",),
    "detection": (
        "edgepose.detection.crop_state:CropState.region_for",
        "edgepose.detection.crop_state:CropState.update",
    ),
    "tracking": ("edgepose.tracking.oks_tracker:OksTracker.update",),
    "smoothing": ("edgepose.smoothing.one_euro:OneEuro.apply",),
    "messages": ("edgepose.pipeline:pose_message",),
    "mqtt": (
        "edgepose.sinks.mqtt:MqttSink.publish",
        "edgepose.mqtt.connection:MqttConnection.serve",
    ),
    "events": (
        "edgepose.events.detectors:Detectors.update",
        "edgepose.events.detectors:Detectors.tick",
    ),
}
"""The functions of each room that a frame passes through, none of which calls another one."""
REST: Final = "pipeline, daemon"

_PREFIX: Final = "room_"
# PyObject_Call as Python's headers declare it, which need not be installed.
_SOURCE: Final = """\
#include <valgrind/callgrind.h>
extern void *PyObject_Call(void *, void *, void *);
void start(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void dump(void) { CALLGRIND_DUMP_STATS; }
"""
# Two functions, since valgrind does not see what libffi calls as a function of its own.
_ROOM: Final = """\
void *room_NAME(void *f, void *a, void *k) { return PyObject_Call(f, a, k); }
void *call_NAME(void *f, void *a, void *k) { return room_NAME(f, a, k); }
"""

_TOTAL: Final = re.compile(r"^totals: (\d+)", re.MULTILINE)
_NAME: Final = re.compile(r"^c?fn=\((\d+)\) (.+)", re.MULTILINE)
_CALL: Final = re.compile(r"^cfn=\((\d+)\).*\ncalls=.*\n\S+ (\d+)", re.MULTILINE)


def instructions() -> dict[str, float]:
    """Return the instructions of a frame by room, and of the rest.

    The model runs once, to record its outputs. Raises CalledProcessError if a program fails.
    """
    with tempfile.TemporaryDirectory() as name, local_broker() as broker:
        folder = Path(name)
        _record(folder / "outputs.npz")
        source = folder / "counted.c"
        source.write_text(_SOURCE + "".join(_ROOM.replace("NAME", room) for room in ROOMS))
        # Optimized, the calls would be jumps.
        compiler = ["gcc", "-O0", "-shared", "-fPIC", str(source), "-o", f"{folder}/counted.so"]
        subprocess.run(compiler, check=True)
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--fair-sched=yes", "-q"]
        command += [f"--callgrind-out-file={folder}/profile", sys.executable, "-m"]
        # The order of a set depends on the hashes of strings.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        subprocess.run([*command, __spec__.name, name, broker.url], env=environment, check=True)
        total, by_room = ((folder / f"profile.{number}").read_text() for number in (1, 2))
    counts = {room: count / FRAMES for room, count in read_rooms(by_room).items()}
    return counts | {REST: read_total(total) / FRAMES - sum(counts.values())}


def read_total(profile: str) -> int:
    """Return the instructions of a profile of callgrind."""
    return sum(int(count) for count in _TOTAL.findall(profile))


def read_rooms(profile: str) -> dict[str, int]:
    """Return the instructions of each room in a profile of callgrind."""
    names = dict(_NAME.findall(profile))
    counts = dict.fromkeys(ROOMS, 0)
    for number, count in _CALL.findall(profile):
        if names[number].startswith(_PREFIX):
            counts[names[number].removeprefix(_PREFIX)] += int(count)
    return counts


def _record(path: Path) -> None:
    """Record the outputs of the model for the frames that are counted."""
    config = Config(model=ModelConfig(name=MODEL), accelerator="cpu")
    model = build_model(config)
    recorder = OutputRecorder(model.interpreter)
    pipeline = Pipeline(
        SingleModel(dataclasses.replace(model, interpreter=recorder)),
        build_tracker(config),
        build_smoother(config.smoothing),
        [],
        node="bench",
        camera="main",
    )
    for frame in _frames():
        pipeline.process(frame)
    recorder.save(path)


def _frames() -> Iterator[Frame]:
    opener = frame_feed(None).back_to_back
    assert opener is not None
    return itertools.islice(opener().frames(), WARM_UP + 2 * FRAMES + 1)


class _CountedSource:
    """Frames from memory, some of which are counted."""

    live = False
    description = "memory"

    def __init__(self, counted: Any) -> None:
        self._counted = counted
        self.connected: Callable[[], bool] = lambda: False

    def frames(self) -> FrameStream:
        while not self.connected():
            time.sleep(0.05)
        for number, frame in enumerate(_frames()):
            if number == WARM_UP:
                self._counted.start()
            elif number == WARM_UP + FRAMES:
                self._counted.dump()
                _call_by_room(self._counted)
                self._counted.start()
            elif number == WARM_UP + 2 * FRAMES:
                self._counted.dump()
            yield frame


def _call_by_room(counted: Any) -> None:
    """Have the functions of each room called through its function of C."""
    for room, functions in ROOMS.items():
        call = counted[f"call_{room}"]
        call.restype, call.argtypes = ctypes.py_object, [ctypes.py_object] * 3
        for function in functions:
            module, _, path = function.partition(":")
            *owners, name = path.split(".")
            owner: Any = import_module(module)
            for part in owners:
                owner = getattr(owner, part)
            setattr(owner, name, _through(call, getattr(owner, name)))


def _through(call: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def counted(*arguments: Any, **options: Any) -> Any:
        return call(function, arguments, options)

    return counted


def _run(folder: Path, url: str) -> None:
    """Run the daemon under valgrind."""
    # Threads take turns after 5 ms, and here everything takes longer.
    sys.setswitchinterval(50 * sys.getswitchinterval())
    config = Config(
        model=ModelConfig(name=MODEL),
        accelerator="replay",
        inference=InferenceConfig(recording=folder / "outputs.npz"),
        mqtt=MqttConfig(url=url),
        # Once in as many frames as it comes, its share would depend on the speed of valgrind.
        stats_interval_s=3600,
    )
    source = _CountedSource(ctypes.PyDLL(str(folder / "counted.so")))
    state = StateFolder(folder, topics_of(config), None)
    app = App(config, _interrupt, state, new_source=lambda: source)
    mqtt = app.daemon.mqtt
    assert mqtt is not None
    source.connected = lambda: bool(mqtt.counters()["connected"])
    with Signals() as signals:
        app.daemon.run(signals)


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Print the table, or run the daemon that is counted."""
    if len(sys.argv) > 1:
        _run(Path(sys.argv[1]), sys.argv[2])
        return
    missing = next((path for path in NEEDED if not path.exists()), None)
    if missing is not None:
        print(f"instructions of a frame: not counted without {missing}; install gcc and valgrind")
        return
    counts = instructions()
    beyond = sum(counts.values()) - counts["invoke"]
    print("instructions of a frame in thousands, by room; invoke plays a recording")
    for room, count in [*counts.items(), ("beyond invoke", beyond)]:
        print(f"  {room:17} {count / 1e3:7.1f}", flush=True)


if __name__ == "__main__":
    main()
