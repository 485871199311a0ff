"""Each behaviour of the fake Edge TPU, in its own process, on both runtimes.

Tests of the worker process and of the failover rely on it.
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

import numpy as np
import pytest
from numpy.typing import NDArray

from edgepose.errors import ModelFileError
from edgepose.inference.cpu import load_on_cpu
from edgepose.inference.runtime import RuntimeName, installed_runtimes
from tests.builders import photograph_tensor
from tests.conftest import MODELS, SHARED
from tests.edgetpu import BEHAVIOURS, FakeEdgeTpu, compiled, probe
from tests.images import existing_models
from tests.requirements import RUNTIMES, missing
from tests.resource import Resource

LIGHTNING = "movenet-lightning-int8"
MODULES: dict[RuntimeName, str] = {
    "litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
}
NO_DEVICE = "Failed to load delegate from libedgetpu.so.1"
"""The error of a runtime if libedgetpu finds no device; it has no reason."""


class Probe(Resource):
    """A child process with a runtime, a model and a device."""

    def __init__(
        self,
        fake_edgetpu: FakeEdgeTpu,
        runtime: RuntimeName,
        model: Path,
        device: str | None = None,
    ) -> None:
        tensor = fake_edgetpu.folder / f"{model.stem}.npy"
        np.save(tensor, photograph(model))
        arguments = [probe.__file__, MODULES[runtime], str(model), str(tensor)]
        self._stderr = (fake_edgetpu.folder / "stderr").open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, *arguments, *([] if device is None else [device])],
            env={**os.environ, **fake_edgetpu.environment()},
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

    def send(self, step: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{step}\n".encode())
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise EOFError(f"the probe ended with {self.process.wait()}: {self.stderr}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def do(self, *steps: str) -> dict[str, Any]:
        """Run steps, of which all but the last must succeed, and return the last answer."""
        for step in steps:
            self.send(step)
            answer = self.receive()
            assert answer.pop("did") == step
            assert step == steps[-1] or "error" not in answer, answer
        return answer

    def death_during(self, step: str) -> signal.Signals:
        self.send(step)
        return signal.Signals(-self.process.wait())

    def silent(self) -> bool:
        """Return whether no answer arrives within 0.3 s."""
        assert self.process.stdout is not None
        return not select.select([self.process.stdout], [], [], 0.3)[0]


def photograph(model: Path) -> NDArray[Any]:
    """Return the bundled photograph as the input tensor of a model, compiled or not."""
    cpu = model.with_name(model.name.replace("_edgetpu", ""))
    return photograph_tensor(load_on_cpu(cpu, threads=1).input)


def cpu_outputs(runtime: RuntimeName, model: Path) -> Sequence[NDArray[Any]]:
    """Return the outputs of the CPU file beside a compiled one for the photograph."""
    cpu = model.with_name(model.name.replace("_edgetpu", ""))
    return load_on_cpu(cpu, runtime=runtime, threads=1).invoke(photograph(model))


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> RuntimeName:
    name: RuntimeName = request.param
    if name not in installed_runtimes():
        missing(f"{name} is not installed")
    return name


@pytest.fixture
def fake_edgetpu(tmp_path: Path) -> FakeEdgeTpu:
    return FakeEdgeTpu(tmp_path)


@pytest.fixture
def ready(fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName) -> Iterator[Probe]:
    """Return a process that has the device and a model loaded."""
    with serving(fake_edgetpu, runtime) as child:
        yield child


@contextmanager
def serving(fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName) -> Iterator[Probe]:
    with Probe(fake_edgetpu, runtime, fake_edgetpu.compiled_model()) as child:
        assert "error" not in child.do("create", "load")
        yield child


@contextmanager
def started(
    fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName, device: str | None = None
) -> Iterator[Probe]:
    with Probe(fake_edgetpu, runtime, fake_edgetpu.compiled_model(), device) as child:
        yield child


# ---- outputs ----


@pytest.mark.parametrize("name", [LIGHTNING, "movenet-thunder-int8", "posenet-mobilenet-int8"])
def test_fake_edgetpu_outputs_equal_cpu_file(
    fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName, name: str
) -> None:
    model = fake_edgetpu.compiled_model(name)
    with Probe(fake_edgetpu, runtime, model) as child:
        outputs = child.do("create", "load", "invoke")["outputs"]
        again = child.do("invoke")["outputs"]
    expected = cpu_outputs(runtime, model)
    assert len(outputs) == len(expected)
    for one, two, wanted in zip(outputs, again, expected, strict=True):
        assert np.array_equal(np.array(one, wanted.dtype), wanted)
        assert np.array_equal(np.array(two, wanted.dtype), wanted)


def test_fake_edgetpu_finds_face_in_photograph(ready: Probe) -> None:
    """The nose is at its place in the photograph; equal outputs could both be zero."""
    (poses,) = ready.do("invoke")["outputs"]
    nose_y, nose_x, nose_score = poses[0][0][0]
    assert (nose_y, nose_x) == pytest.approx((0.235, 0.433), abs=0.02)
    assert nose_score > 0.4


@pytest.mark.parametrize("name", existing_models("movenet_single_pose_lightning_ptq.tflite"))
def test_fake_edgetpu_file_of_real_compiler(
    fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName, name: str
) -> None:
    cpu = SHARED / "models" / name
    model = fake_edgetpu.add_model(cpu.with_name(f"{cpu.stem}_edgetpu.tflite"), cpu)
    with Probe(fake_edgetpu, runtime, model) as child:
        (poses,) = child.do("create", "load", "invoke")["outputs"]
    (expected,) = cpu_outputs(runtime, model)
    assert np.array_equal(np.array(poses, np.float32), expected)
    assert expected[..., 2].max() > 0.5


def test_fake_edgetpu_two_models_at_once(fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName) -> None:
    """The device chooses the network by the tensors of the operator."""
    fake_edgetpu.compiled_model("movenet-thunder-int8")
    with serving(fake_edgetpu, runtime) as child:
        assert "error" not in child.do("load")
        (poses,) = child.do("invoke")["outputs"]
        (expected,) = cpu_outputs(runtime, fake_edgetpu.compiled_model())
        assert np.array_equal(np.array(poses, np.float32), expected)


def test_fake_edgetpu_compiled_file_has_custom_operator(fake_edgetpu: FakeEdgeTpu) -> None:
    model = fake_edgetpu.compiled_model()
    before = compiled.operators((MODELS / f"{LIGHTNING}.tflite").read_bytes())
    after = compiled.operators(model.read_bytes())
    assert after["edgetpu-custom-op"] == 1
    # Those that follow ARG_MAX run on a few places of two heads.
    assert (after["CONV_2D"], after["DEPTHWISE_CONV_2D"]) == (4, 2)
    assert after["ARG_MAX"] == before["ARG_MAX"] == 2
    assert (
        model.with_name(f"{LIGHTNING}.tflite").read_bytes()
        == (MODELS / f"{LIGHTNING}.tflite").read_bytes()
    )
    with pytest.raises(ModelFileError, match="compiled for an Edge TPU"):
        load_on_cpu(model)


def test_fake_edgetpu_compiled_file_needs_delegate(
    fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName
) -> None:
    with started(fake_edgetpu, runtime) as child:
        answer = child.do("load")
    assert answer["error"] == "RuntimeError"
    assert "unresolved custom op: edgetpu-custom-op" in answer["text"]


def test_fake_edgetpu_compile_rejects_dynamic_shapes() -> None:
    with pytest.raises(ValueError, match="fixed shapes"):
        compiled.compile_model((MODELS / "movenet-multipose-int8.tflite").read_bytes())


def test_fake_edgetpu_distinguishes_networks(fake_edgetpu: FakeEdgeTpu) -> None:
    thunder = MODELS / "movenet-thunder-int8.tflite"
    with pytest.raises(ValueError, match="same network"):
        fake_edgetpu.add_model(fake_edgetpu.compiled_model(), thunder)
    with pytest.raises(ValueError, match="expected one edgetpu-custom-op"):
        fake_edgetpu.add_model(thunder, thunder)


def test_fake_edgetpu_unknown_model_is_rejected(
    fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName
) -> None:
    """Without the CPU file of a model it fails instead of returning zeros."""
    model = fake_edgetpu.compiled_model()
    (fake_edgetpu.folder / "heads" / f"{LIGHTNING}.tflite").unlink()
    with Probe(fake_edgetpu, runtime, model) as child:
        answer = child.do("create", "load")
    assert answer["error"] == "RuntimeError"
    assert "expected one model in" in answer["text"]


# ---- presence ----


@pytest.mark.parametrize("behaviour", ["absent", "busy", "unplugged"])
def test_fake_edgetpu_unavailable_device_gives_no_reason(
    fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName, behaviour: Any
) -> None:
    fake_edgetpu.set(behaviour)
    with started(fake_edgetpu, runtime) as child:
        answer = child.do("create")
        assert (answer["error"], answer["text"].strip()) == ("ValueError", NO_DEVICE)
        fake_edgetpu.set("ok")
        assert child.do("create", "load", "invoke")["outputs"]


def test_fake_edgetpu_device_is_exclusive(fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName) -> None:
    with serving(fake_edgetpu, runtime) as first, started(fake_edgetpu, runtime) as second:
        answer = second.do("create")
        assert (answer["error"], answer["text"].strip()) == ("ValueError", NO_DEVICE)
        assert first.do("invoke")["outputs"]
        # The kernel releases the lock of a process that dies, as it does with a device node.
        first.process.kill()
        first.process.wait()
        assert second.do("create", "load", "invoke")["outputs"]


def test_fake_edgetpu_device_held_by_test(fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName) -> None:
    with started(fake_edgetpu, runtime) as child:
        with fake_edgetpu.held():
            assert child.do("create")["text"].strip() == NO_DEVICE
        assert "error" not in child.do("create")
        with pytest.raises(BlockingIOError), fake_edgetpu.held():
            pass


@pytest.mark.parametrize(
    ("present", "wanted", "found"),
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
def test_fake_edgetpu_finds_present_device_only(
    tmp_path: Path, present: str, wanted: str | None, found: bool
) -> None:
    fake_edgetpu = FakeEdgeTpu(tmp_path, device=present)
    with started(fake_edgetpu, "litert", wanted) as child:
        answer = child.do("create")
        assert ("error" not in answer) == found
        assert wanted is None or f"fake edgetpu: option device={wanted}" in child.stderr


# ---- failures ----


@pytest.mark.parametrize("behaviour", ["fail", "absent"])
def test_fake_edgetpu_failed_invoke(
    fake_edgetpu: FakeEdgeTpu, ready: Probe, behaviour: Any
) -> None:
    assert ready.do("invoke")["outputs"]
    fake_edgetpu.set(behaviour)
    answer = ready.do("invoke")
    assert answer["error"] == "RuntimeError"
    assert "(EdgeTpuDelegateForCustomOp) failed to invoke" in answer["text"]
    fake_edgetpu.set("ok")
    assert ready.do("load", "invoke")["outputs"]


def test_fake_edgetpu_lost_device_ends_process(fake_edgetpu: FakeEdgeTpu, ready: Probe) -> None:
    assert ready.do("invoke")["outputs"]
    fake_edgetpu.set("abort")
    assert ready.death_during("invoke") == signal.SIGABRT
    assert "F driver/usb/usb_driver.cc" in ready.stderr


def test_fake_edgetpu_unplugged_and_plugged_in(
    fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName
) -> None:
    with serving(fake_edgetpu, runtime) as child:
        before = child.do("invoke")["outputs"]
        fake_edgetpu.set("unplugged")
        assert child.death_during("invoke") == signal.SIGABRT
    with started(fake_edgetpu, runtime) as child:
        assert child.do("create")["text"].strip() == NO_DEVICE
        fake_edgetpu.set("ok")
        assert child.do("create", "load", "invoke")["outputs"] == before


@pytest.mark.parametrize(
    ("behaviour", "death"),
    [("abort-at-create", signal.SIGABRT), ("segfault-at-create", signal.SIGSEGV)],
)
def test_fake_edgetpu_library_crashes_at_load(
    fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName, behaviour: Any, death: signal.Signals
) -> None:
    fake_edgetpu.set(behaviour)
    with started(fake_edgetpu, runtime) as child:
        assert child.death_during("create") == death


def test_fake_edgetpu_hang_during_invoke_releases_gil(
    fake_edgetpu: FakeEdgeTpu, ready: Probe
) -> None:
    """As with the real one, the GIL is released: other Python threads run."""
    fake_edgetpu.set("hang")
    ready.send("invoke")
    while "hangs" not in ready.stderr:
        assert ready.do("ping") == {}
    assert ready.do("ping") == {}
    assert ready.silent()
    assert ready.process.poll() is None


def test_fake_edgetpu_hang_at_create_holds_gil(
    fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName
) -> None:
    """As with the real one, `load_delegate` holds the GIL: no other Python thread runs."""
    fake_edgetpu.set("hang-at-create")
    with started(fake_edgetpu, runtime) as child:
        assert child.do("ping") == {}
        child.send("create")
        child.send("ping")
        # The first ping may be answered before `create` starts, the next one is not.
        while "hangs" not in child.stderr:
            assert child.process.poll() is None
        if not child.silent():
            assert child.receive() == {"did": "ping"}
            child.send("ping")
        assert child.silent()
        assert child.process.poll() is None


def test_fake_edgetpu_slow_invoke(fake_edgetpu: FakeEdgeTpu, ready: Probe) -> None:
    """It takes at least the given time."""
    fake_edgetpu.set("slow", ms=60)
    answer = ready.do("invoke")
    # A sleep never returns early, however busy the machine is.
    assert answer["took_ns"] >= 60_000_000
    assert np.any(answer["outputs"][0])


def test_fake_edgetpu_slow_create(fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName) -> None:
    """It takes at least the given time and succeeds."""
    fake_edgetpu.set("slow-at-create", ms=60)
    with started(fake_edgetpu, runtime) as child:
        assert child.do("create")["took_ns"] >= 60_000_000
        assert child.do("load", "invoke")["outputs"]


def test_fake_edgetpu_model_for_newer_runtime(
    fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName
) -> None:
    fake_edgetpu.set("version")
    with started(fake_edgetpu, runtime) as child:
        answer = child.do("create", "load")
    assert answer["error"] == "RuntimeError"
    assert (
        "requires runtime version (14), which is newer than this runtime version"
        in (answer["text"])
    )
    assert "(EdgeTpuDelegateForCustomOp) failed to prepare" in answer["text"]


def test_fake_edgetpu_zeros(fake_edgetpu: FakeEdgeTpu, ready: Probe) -> None:
    real = ready.do("invoke")["outputs"]
    fake_edgetpu.set("zeros")
    zeros = ready.do("invoke")["outputs"]
    assert zeros != real
    # All heatmaps are equal: the first cell is chosen for every keypoint, and sigmoid(0) is 0.5.
    assert np.all(np.array(zeros)[..., 2] == 0.5)


# ---- the control file ----


def test_fake_edgetpu_after_counts_from_set(fake_edgetpu: FakeEdgeTpu, ready: Probe) -> None:
    for _ in range(3):
        assert ready.do("invoke")["outputs"]
    fake_edgetpu.set("fail", after=2)
    assert [("error" in ready.do("invoke")) for _ in range(4)] == [False, False, True, True]
    # The same behaviour set again counts again.
    fake_edgetpu.set("fail", after=1)
    fake_edgetpu.set("fail", after=2)
    assert [("error" in ready.do("invoke")) for _ in range(3)] == [False, False, True]


def test_fake_edgetpu_after_applies_to_each_process(
    fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName
) -> None:
    fake_edgetpu.set("unplugged", after=1)
    for _ in range(2):
        with serving(fake_edgetpu, runtime) as child:
            assert child.do("invoke")["outputs"]
            assert child.death_during("invoke") == signal.SIGABRT


def test_fake_edgetpu_knows_every_behaviour(fake_edgetpu: FakeEdgeTpu) -> None:
    """`after` keeps the behaviours from taking effect: only their names are checked."""
    with started(fake_edgetpu, "litert") as child:
        for behaviour in BEHAVIOURS:
            fake_edgetpu.set(behaviour, ms=0 if behaviour.startswith("slow") else None, after=1000)
            assert "error" not in child.do("create")
            assert "unknown" not in child.stderr
        fake_edgetpu.control.write_text("asleep")
        assert child.do("create")["error"] == "ValueError"
        assert "unknown control word asleep" in child.stderr


def test_fake_edgetpu_unknown_behaviour(fake_edgetpu: FakeEdgeTpu) -> None:
    for behaviour, ms in (("asleep", None), ("slow", None), ("hang", 5)):
        with pytest.raises(ValueError, match="no such behaviour"):
            fake_edgetpu.set(behaviour, ms=ms)  # type: ignore[arg-type]  # not a Behaviour, on purpose
