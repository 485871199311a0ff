"""The contract of Interpreter, for every runtime and model."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from edgepose.build import build_model
from edgepose.config import load_config
from edgepose.errors import AcceleratorError, ModelFileError, ModelShapeError
from edgepose.inference.cpu import CpuAccelerator, default_threads
from edgepose.inference.probe import probe_model
from edgepose.inference.runtime import installed_runtimes, load_runtime
from edgepose.protocols import Interpreter
from tests.builders import photograph_tensor
from tests.conftest import MODELS
from tests.edgetpu.compiled import compile_model
from tests.requirements import RUNTIMES, missing

RuntimeName = Literal["litert", "tflite-runtime"]
FILES = sorted(path.name for path in MODELS.glob("*.tflite"))
LIGHTNING = MODELS / "movenet-lightning-int8.tflite"


def accelerator(runtime: RuntimeName) -> CpuAccelerator:
    if runtime not in installed_runtimes():
        missing(f"{runtime} is not installed")
    return CpuAccelerator(runtime=runtime, threads=1)


@pytest.fixture(params=RUNTIMES)
def cpu(request: pytest.FixtureRequest) -> CpuAccelerator:
    return accelerator(request.param)


@pytest.mark.parametrize("name", FILES)
def test_interpreter_outputs_are_reproducible(cpu: CpuAccelerator, name: str) -> None:
    interpreter = cpu.load(MODELS / name)
    tensor = photograph_tensor(interpreter.input)
    first = interpreter.invoke(tensor)
    kept = [output.copy() for output in first]
    interpreter.invoke(np.zeros_like(tensor))
    second = interpreter.invoke(tensor)
    assert len(first) == len(interpreter.outputs)
    for spec, one, copy, two in zip(interpreter.outputs, first, kept, second, strict=True):
        assert one.dtype == spec.dtype
        # The outputs belong to the caller: a later invoke must not change them.
        assert np.array_equal(one, copy)
        assert np.array_equal(one, two)
        assert np.isfinite(one.astype(np.float64)).all()


@pytest.mark.skipif(len(RUNTIMES) < 2, reason="tflite-runtime ends at Python 3.11")
@pytest.mark.parametrize("name", [name for name in FILES if "movenet" in name])
def test_interpreter_runtimes_agree_on_photograph(name: str) -> None:
    found = []
    for runtime in RUNTIMES:
        interpreter = accelerator(runtime).load(MODELS / name)
        values = interpreter.invoke(photograph_tensor(interpreter.input))[0].reshape(-1)
        # y and x of nose, eyes, ears and shoulders, which the photograph shows clearly.
        found.append(values[:21].astype(np.float64).reshape(7, 3)[:, :2])
    assert np.abs(found[0] - found[1]).max() < 0.03


def test_interpreter_protocol(cpu: CpuAccelerator) -> None:
    interpreter = cpu.load(LIGHTNING)
    assert isinstance(interpreter, Interpreter)
    assert interpreter.input.shape == (1, 192, 192, 3)
    assert interpreter.input.dtype == np.uint8
    assert [output.shape for output in interpreter.outputs] == [(1, 1, 17, 3)]


def test_interpreter_dynamic_input_is_resized(cpu: CpuAccelerator) -> None:
    interpreter = cpu.load(MODELS / "movenet-multipose-fp16.tflite", (256, 192))
    assert interpreter.input.shape == (1, 192, 256, 3)
    outputs = interpreter.invoke(np.zeros((1, 192, 256, 3), np.uint8))
    assert outputs[0].shape == (1, 6, 56)


def test_interpreter_fixed_input_is_not_resized(cpu: CpuAccelerator) -> None:
    assert cpu.load(LIGHTNING, (256, 192)).input.shape == (1, 192, 192, 3)


def test_build_refuses_a_size_that_the_file_fixes() -> None:
    config = load_config(None, {"model.input_size": [256, 192]})
    with pytest.raises(ModelShapeError, match=r"fixed at 192x192, expected the 256x192.*leave"):
        build_model(config)


def test_interpreter_wrong_tensor(cpu: CpuAccelerator) -> None:
    interpreter = cpu.load(LIGHTNING)
    with pytest.raises(AcceleratorError, match="invoke failed"):
        interpreter.invoke(np.zeros((1, 8, 8, 3), np.uint8))
    assert interpreter.invoke(photograph_tensor(interpreter.input))[0].shape == (1, 1, 17, 3)


def test_interpreter_after_close(cpu: CpuAccelerator) -> None:
    interpreter = cpu.load(LIGHTNING)
    interpreter.close()
    interpreter.close()
    with pytest.raises(AcceleratorError, match="after close"):
        interpreter.invoke(np.zeros((1, 192, 192, 3), np.uint8))


def test_load_file_that_is_not_a_model(cpu: CpuAccelerator, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.tflite"
    wrong.write_bytes(b"this is no model at all" * 100)
    with pytest.raises(ModelFileError, match=r"wrong\.tflite: expected a TFLite model"):
        cpu.load(wrong)
    with pytest.raises(ModelFileError, match="cannot read"):
        cpu.load(tmp_path / "missing.tflite")


def test_probe_truncated_model(cpu: CpuAccelerator, tmp_path: Path) -> None:
    """tflite-runtime 2.14 crashes with such a file, so a child process loads it first."""
    data = LIGHTNING.read_bytes()
    for length in (0, 8, 100, len(data) // 2, len(data) - 100):
        cut = tmp_path / f"cut-{length}.tflite"
        cut.write_bytes(data[:length])
        with pytest.raises(ModelFileError, match=r"cut-\d+\.tflite"):
            probe_model(cut, cpu.runtime)


def test_load_compiled_model_on_the_cpu(cpu: CpuAccelerator, tmp_path: Path) -> None:
    compiled = tmp_path / "compiled.tflite"
    compiled.write_bytes(compile_model(LIGHTNING.read_bytes()))
    with pytest.raises(ModelFileError, match="compiled for an Edge TPU"):
        cpu.load(compiled)


def test_load_runtime_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepose.inference.runtime.installed_runtimes", lambda: ("litert",))
    with pytest.raises(AcceleratorError, match="pip install tflite-runtime"):
        load_runtime("tflite-runtime")
    monkeypatch.setattr("edgepose.inference.runtime.installed_runtimes", tuple)
    with pytest.raises(AcceleratorError, match="pip install ai-edge-litert"):
        load_runtime()


def test_interpreter_default_threads() -> None:
    """As many threads as the machine has cores, at most four."""
    assert 1 <= default_threads() <= 4
    assert CpuAccelerator(threads=3).threads == 3
    assert CpuAccelerator().threads == default_threads()


def test_load_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    CpuAccelerator().load(LIGHTNING)
    assert capfd.readouterr() == ("", "")
