"""The stand-in Edge TPU keeps its word: each behaviour, in a process of its own, on both runtimes.

What rests on it (the child process, the fallback, the return) is only as true as this is.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgepose.errors import ModelFileError
from edgepose.inference.cpu import CpuAccelerator
from edgepose.inference.runtime import RuntimeName, installed_runtimes
from edgepose.sources.synthetic import read_photograph
from edgepose.util.resource import Resource
from tests.conftest import MODELS, SHARED
from tests.edgetpu import WORDS, StandIn, compiled, probe
from tests.helpers import missing
from tests.images import existing_models

LIGHTNING = "movenet-lightning-int8"
MODULES: dict[RuntimeName, str] = {
    "litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
}
NO_DEVICE = "Failed to load delegate from libedgetpu.so.1"
"""All that a runtime says where libedgetpu finds no device: nothing follows."""


class Probe(Resource):
    """A child process that has a runtime, a model and a device."""

    def __init__(
        self, stand_in: StandIn, runtime: RuntimeName, model: Path, device: str | None = None
    ) -> None:
        tensor = stand_in.folder / f"{model.stem}.npy"
        np.save(tensor, photograph(model))
        arguments = [probe.__file__, MODULES[runtime], str(model), str(tensor)]
        self._stderr = (stand_in.folder / "stderr").open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, *arguments, *([] if device is None else [device])],
            env={**os.environ, **stand_in.environment()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._stderr.close()

    @property
    def stderr(self) -> str:
        return os.pread(self._stderr.fileno(), 1_000_000, 0).decode()

    def order(self, step: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{step}\n".encode())
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise EOFError(f"the probe ended with {self.process.wait()}: {self.stderr}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def do(self, *steps: str) -> dict[str, Any]:
        """Do some steps, of which all but the last must succeed, and return the last's answer."""
        for step in steps:
            self.order(step)
            answer = self.answer()
            assert answer.pop("did") == step
            assert step == steps[-1] or "error" not in answer, answer
        return answer

    def dies_of(self, step: str) -> signal.Signals:
        self.order(step)
        return signal.Signals(-self.process.wait())

    def silent(self) -> bool:
        """Return whether no answer comes within a moment."""
        assert self.process.stdout is not None
        return not select.select([self.process.stdout], [], [], 0.3)[0]


def photograph(model: Path) -> NDArray[np.uint8]:
    """Return the bundled photograph as the input tensor of a model, compiled or not."""
    cpu = model.with_name(model.name.replace("_edgetpu", ""))
    _, height, width, _ = CpuAccelerator(threads=1).load(cpu).input.shape
    return cv2.resize(read_photograph(), (width, height))[np.newaxis].astype(np.uint8)


def cpu_outputs(runtime: RuntimeName, model: Path) -> Sequence[NDArray[Any]]:
    """Return what the CPU file beside a compiled one makes of the photograph."""
    cpu = model.with_name(model.name.replace("_edgetpu", ""))
    return CpuAccelerator(runtime=runtime, threads=1).load(cpu).invoke(photograph(model))


@pytest.fixture(params=MODULES)
def runtime(request: pytest.FixtureRequest) -> RuntimeName:
    name: RuntimeName = request.param
    if name not in installed_runtimes():
        if name == "litert" or sys.version_info < (3, 12):
            missing(f"{name} is not installed")
        pytest.skip("tflite-runtime ends at Python 3.11")
    return name


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path)


@pytest.fixture
def ready(stand_in: StandIn, runtime: RuntimeName) -> Iterator[Probe]:
    """Return a process that has the device and a model loaded."""
    with serving(stand_in, runtime) as child:
        yield child


@contextmanager
def serving(stand_in: StandIn, runtime: RuntimeName) -> Iterator[Probe]:
    with Probe(stand_in, runtime, stand_in.compiled_model()) as child:
        assert "error" not in child.do("create", "load")
        yield child


@contextmanager
def fresh(stand_in: StandIn, runtime: RuntimeName, device: str | None = None) -> Iterator[Probe]:
    with Probe(stand_in, runtime, stand_in.compiled_model(), device) as child:
        yield child


# ---- what it computes ----


@pytest.mark.parametrize("name", [LIGHTNING, "movenet-thunder-int8", "posenet-mobilenet-int8"])
def test_stand_in_outputs_equal_cpu_file(
    stand_in: StandIn, runtime: RuntimeName, name: str
) -> None:
    model = stand_in.compiled_model(name)
    with Probe(stand_in, runtime, model) as child:
        outputs = child.do("create", "load", "invoke")["outputs"]
        again = child.do("invoke")["outputs"]
    expected = cpu_outputs(runtime, model)
    assert len(outputs) == len(expected)
    for one, two, wanted in zip(outputs, again, expected, strict=True):
        assert np.array_equal(np.array(one, wanted.dtype), wanted)
        assert np.array_equal(np.array(two, wanted.dtype), wanted)


def test_stand_in_finds_face_in_photograph(ready: Probe) -> None:
    """Two zeros are equal too: the face is where the photograph has it."""
    (poses,) = ready.do("invoke")["outputs"]
    nose_y, nose_x, nose_score = poses[0][0][0]
    assert (nose_y, nose_x) == pytest.approx((0.235, 0.433), abs=0.02)
    assert nose_score > 0.4


@pytest.mark.parametrize("name", existing_models("movenet_single_pose_lightning_ptq.tflite"))
def test_stand_in_file_of_real_compiler(stand_in: StandIn, runtime: RuntimeName, name: str) -> None:
    cpu = SHARED / "models" / name
    model = stand_in.add_model(cpu.with_name(f"{cpu.stem}_edgetpu.tflite"), cpu)
    with Probe(stand_in, runtime, model) as child:
        (poses,) = child.do("create", "load", "invoke")["outputs"]
    (expected,) = cpu_outputs(runtime, model)
    assert np.array_equal(np.array(poses, np.float32), expected)
    assert expected[..., 2].max() > 0.5


def test_stand_in_two_models_at_once(stand_in: StandIn, runtime: RuntimeName) -> None:
    """The device finds out by the operator's tensors which network it is to be."""
    stand_in.compiled_model("movenet-thunder-int8")
    with serving(stand_in, runtime) as child:
        assert "error" not in child.do("load")
        (poses,) = child.do("invoke")["outputs"]
        (expected,) = cpu_outputs(runtime, stand_in.compiled_model())
        assert np.array_equal(np.array(poses, np.float32), expected)


def test_stand_in_compiled_file_has_custom_operator(stand_in: StandIn) -> None:
    model = stand_in.compiled_model()
    before = compiled.operators((MODELS / f"{LIGHTNING}.tflite").read_bytes())
    after = compiled.operators(model.read_bytes())
    assert after["edgetpu-custom-op"] == 1
    assert not {"CONV_2D", "DEPTHWISE_CONV_2D"} & set(after)
    assert after["ARG_MAX"] == before["ARG_MAX"] == 2
    assert (
        model.with_name(f"{LIGHTNING}.tflite").read_bytes()
        == (MODELS / f"{LIGHTNING}.tflite").read_bytes()
    )
    with pytest.raises(ModelFileError, match="compiled for an Edge TPU"):
        CpuAccelerator().load(model)


def test_stand_in_compiled_file_needs_delegate(stand_in: StandIn, runtime: RuntimeName) -> None:
    with fresh(stand_in, runtime) as child:
        answer = child.do("load")
    assert answer["error"] == "RuntimeError"
    assert "unresolved custom op: edgetpu-custom-op" in answer["text"]


def test_stand_in_compile_rejects_dynamic_shapes() -> None:
    with pytest.raises(ValueError, match="fixed shapes"):
        compiled.compile_model((MODELS / "movenet-multipose-int8.tflite").read_bytes())


def test_stand_in_distinguishes_networks(stand_in: StandIn) -> None:
    thunder = MODELS / "movenet-thunder-int8.tflite"
    with pytest.raises(ValueError, match="same network"):
        stand_in.add_model(stand_in.compiled_model(), thunder)
    with pytest.raises(ValueError, match="expected one edgetpu-custom-op"):
        stand_in.add_model(thunder, thunder)


def test_stand_in_unknown_model_is_rejected(stand_in: StandIn, runtime: RuntimeName) -> None:
    """It must not serve zeros where a test forgot to give it the CPU file."""
    model = stand_in.compiled_model()
    (stand_in.folder / "heads" / f"{LIGHTNING}.tflite").unlink()
    with Probe(stand_in, runtime, model) as child:
        answer = child.do("create", "load")
    assert answer["error"] == "RuntimeError"
    assert "expected one model in" in answer["text"]


# ---- whether it is there ----


@pytest.mark.parametrize("word", ["absent", "busy", "unplugged"])
def test_stand_in_unavailable_device_gives_no_reason(
    stand_in: StandIn, runtime: RuntimeName, word: Any
) -> None:
    stand_in.set(word)
    with fresh(stand_in, runtime) as child:
        answer = child.do("create")
        assert (answer["error"], answer["text"].strip()) == ("ValueError", NO_DEVICE)
        stand_in.set("ok")
        assert child.do("create", "load", "invoke")["outputs"]


def test_stand_in_device_is_exclusive(stand_in: StandIn, runtime: RuntimeName) -> None:
    with serving(stand_in, runtime) as first, fresh(stand_in, runtime) as second:
        answer = second.do("create")
        assert (answer["error"], answer["text"].strip()) == ("ValueError", NO_DEVICE)
        assert first.do("invoke")["outputs"]
        # The kernel lets go for a process that dies, as it does with a device node.
        first.process.kill()
        first.process.wait()
        assert second.do("create", "load", "invoke")["outputs"]


def test_stand_in_device_held_by_test(stand_in: StandIn, runtime: RuntimeName) -> None:
    with fresh(stand_in, runtime) as child:
        with stand_in.held():
            assert child.do("create")["text"].strip() == NO_DEVICE
        assert "error" not in child.do("create")
        with pytest.raises(BlockingIOError), stand_in.held():
            pass


@pytest.mark.parametrize(
    ("there", "wanted", "found"),
    [
        ("usb:0", None, True),
        ("usb:0", "usb", True),
        ("usb:0", "usb:0", True),
        ("usb:0", ":0", True),
        ("usb:0", "usb:1", False),
        ("usb:0", "pci:0", False),
        ("pci:0", "pci", True),
        ("pci:0", "usb:0", False),
    ],
)
def test_stand_in_finds_present_device_only(
    tmp_path: Path, there: str, wanted: str | None, found: bool
) -> None:
    stand_in = StandIn(tmp_path, device=there)
    with fresh(stand_in, "litert", wanted) as child:
        answer = child.do("create")
        assert ("error" not in answer) == found
        assert wanted is None or f"edgetpu stand-in: option device={wanted}" in child.stderr


# ---- how it fails ----


@pytest.mark.parametrize("word", ["fail", "absent"])
def test_stand_in_failed_invoke(stand_in: StandIn, ready: Probe, word: Any) -> None:
    assert ready.do("invoke")["outputs"]
    stand_in.set(word)
    answer = ready.do("invoke")
    assert answer["error"] == "RuntimeError"
    assert "(EdgeTpuDelegateForCustomOp) failed to invoke" in answer["text"]
    stand_in.set("ok")
    assert ready.do("load", "invoke")["outputs"]


def test_stand_in_lost_device_ends_process(stand_in: StandIn, ready: Probe) -> None:
    assert ready.do("invoke")["outputs"]
    stand_in.set("abort")
    assert ready.dies_of("invoke") == signal.SIGABRT
    assert "F driver/usb/usb_driver.cc" in ready.stderr


def test_stand_in_unplugged_and_plugged_in(stand_in: StandIn, runtime: RuntimeName) -> None:
    with serving(stand_in, runtime) as child:
        before = child.do("invoke")["outputs"]
        stand_in.set("unplugged")
        assert child.dies_of("invoke") == signal.SIGABRT
    with fresh(stand_in, runtime) as child:
        assert child.do("create")["text"].strip() == NO_DEVICE
        stand_in.set("ok")
        assert child.do("create", "load", "invoke")["outputs"] == before


@pytest.mark.parametrize(
    ("word", "death"),
    [("abort-at-create", signal.SIGABRT), ("segfault-at-create", signal.SIGSEGV)],
)
def test_stand_in_library_crashes_at_load(
    stand_in: StandIn, runtime: RuntimeName, word: Any, death: signal.Signals
) -> None:
    stand_in.set(word)
    with fresh(stand_in, runtime) as child:
        assert child.dies_of("create") == death


def test_stand_in_hang_during_invoke_releases_gil(stand_in: StandIn, ready: Probe) -> None:
    """As with the real one, the GIL is free meanwhile: a heartbeat of Python's goes on."""
    stand_in.set("hang")
    ready.order("invoke")
    while "hangs" not in ready.stderr:
        assert ready.do("ping") == {}
    assert ready.do("ping") == {}
    assert ready.silent()
    assert ready.process.poll() is None


def test_stand_in_hang_at_create_holds_gil(stand_in: StandIn, runtime: RuntimeName) -> None:
    """As with the real one, `load_delegate` holds the GIL: no thread of Python's goes on."""
    stand_in.set("hang-at-create")
    with fresh(stand_in, runtime) as child:
        assert child.do("ping") == {}
        child.order("create")
        child.order("ping")
        # The ping may just have been quicker than the create, but the next one is not.
        while "hangs" not in child.stderr:
            assert child.process.poll() is None
        if not child.silent():
            assert child.answer() == {"did": "ping"}
            child.order("ping")
        assert child.silent()
        assert child.process.poll() is None


def test_stand_in_slow_invoke(stand_in: StandIn, ready: Probe) -> None:
    """It takes at least the given time."""
    stand_in.set("slow", ms=60)
    answer = ready.do("invoke")
    assert answer["took_ns"] >= 60_000_000
    assert np.any(answer["outputs"][0])


def test_stand_in_slow_create(stand_in: StandIn, runtime: RuntimeName) -> None:
    """It takes at least the given time and succeeds."""
    stand_in.set("slow-at-create", ms=60)
    with fresh(stand_in, runtime) as child:
        assert child.do("create")["took_ns"] >= 60_000_000
        assert child.do("load", "invoke")["outputs"]


def test_stand_in_model_for_newer_runtime(stand_in: StandIn, runtime: RuntimeName) -> None:
    stand_in.set("version")
    with fresh(stand_in, runtime) as child:
        answer = child.do("create", "load")
    assert answer["error"] == "RuntimeError"
    assert (
        "requires runtime version (14), which is newer than this runtime version"
        in (answer["text"])
    )
    assert "(EdgeTpuDelegateForCustomOp) failed to prepare" in answer["text"]


def test_stand_in_zeros(stand_in: StandIn, ready: Probe) -> None:
    real = ready.do("invoke")["outputs"]
    stand_in.set("zeros")
    zeros = ready.do("invoke")["outputs"]
    assert zeros != real
    # All heatmaps equal: the first cell wins for every keypoint, and sigmoid of nothing is a half.
    assert np.all(np.array(zeros)[..., 2] == 0.5)


# ---- the control file ----


def test_stand_in_after_counts_from_command(stand_in: StandIn, ready: Probe) -> None:
    for _ in range(3):
        assert ready.do("invoke")["outputs"]
    stand_in.set("fail", after=2)
    assert [("error" in ready.do("invoke")) for _ in range(4)] == [False, False, True, True]
    # Said again, in the same words, it counts again.
    stand_in.set("fail", after=1)
    stand_in.set("fail", after=2)
    assert [("error" in ready.do("invoke")) for _ in range(3)] == [False, False, True]


def test_stand_in_after_applies_to_each_process(stand_in: StandIn, runtime: RuntimeName) -> None:
    stand_in.set("unplugged", after=1)
    for _ in range(2):
        with serving(stand_in, runtime) as child:
            assert child.do("invoke")["outputs"]
            assert child.dies_of("invoke") == signal.SIGABRT


def test_stand_in_knows_every_command(stand_in: StandIn) -> None:
    """`after` keeps each from happening: only that it is known is asked."""
    with fresh(stand_in, "litert") as child:
        for word in WORDS:
            stand_in.set(word, ms=0 if word.startswith("slow") else None, after=1000)
            assert "error" not in child.do("create")
            assert "unknown" not in child.stderr
        stand_in.control.write_text("asleep")
        assert child.do("create")["error"] == "ValueError"
        assert "unknown control word asleep" in child.stderr


def test_stand_in_unknown_command(stand_in: StandIn) -> None:
    for word, ms in (("asleep", None), ("slow", None), ("hang", 5)):
        with pytest.raises(ValueError, match="no such behaviour"):
            stand_in.set(word, ms=ms)  # type: ignore[arg-type]
