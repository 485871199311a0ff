"""The contract of Interpreter, for every runtime and model."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from edgepose.build import build_model
from edgepose.config.loader import load_config
from edgepose.errors import AcceleratorError, ModelFileError, ModelShapeError
from edgepose.inference.auto_threads import load_with_threads
from edgepose.inference.cpu import default_threads, load_on_cpu
from edgepose.inference.probe import probe_model
from edgepose.inference.runtime import installed_runtimes, load_runtime
from edgepose.inference.thread_cache import ThreadCache
from edgepose.protocols import Interpreter
from tests.builders import photograph_tensor
from tests.conftest import MODELS
from tests.edgetpu.compiled import compile_model
from tests.requirements import RUNTIMES, missing

RuntimeName = Literal["litert", "tflite-runtime"]
FILES = sorted(path.name for path in MODELS.glob("*.tflite"))
LIGHTNING = MODELS / "movenet-lightning-int8.tflite"


def installed(runtime: RuntimeName) -> RuntimeName:
    if runtime not in installed_runtimes():
        missing(f"{runtime} is not installed")
    return runtime


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> RuntimeName:
    return installed(request.param)


@pytest.mark.parametrize("name", FILES)
def test_interpreter_outputs_are_reproducible(runtime: RuntimeName, name: str) -> None:
    interpreter = load_on_cpu(MODELS / name, runtime=runtime)
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
        interpreter = load_on_cpu(MODELS / name, runtime=installed(runtime), threads=1)
        values = interpreter.invoke(photograph_tensor(interpreter.input))[0].reshape(-1)
        # y and x of nose, eyes, ears and shoulders, which the photograph shows clearly.
        found.append(values[:21].astype(np.float64).reshape(7, 3)[:, :2])
    assert np.abs(found[0] - found[1]).max() < 0.03


def test_interpreter_protocol(runtime: RuntimeName) -> None:
    interpreter = load_on_cpu(LIGHTNING, runtime=runtime)
    assert isinstance(interpreter, Interpreter)
    assert interpreter.input.shape == (1, 192, 192, 3)
    assert interpreter.input.dtype == np.uint8
    assert [output.shape for output in interpreter.outputs] == [(1, 1, 17, 3)]


def test_interpreter_with_measured_threads(runtime: RuntimeName, tmp_path: Path) -> None:
    """It is an interpreter like any other."""
    interpreter, threads = load_with_threads(
        LIGHTNING,
        name="movenet-lightning-int8",
        digest=None,
        threads="auto",
        runtime=runtime,
        input_size_wh=None,
        cache=ThreadCache(tmp_path),
    )
    assert isinstance(interpreter, Interpreter)
    alone = load_on_cpu(LIGHTNING, runtime=runtime, threads=threads().count)
    assert (interpreter.input, interpreter.outputs) == (alone.input, alone.outputs)
    tensor = photograph_tensor(interpreter.input)
    for one, two in zip(interpreter.invoke(tensor), alone.invoke(tensor), strict=True):
        assert np.array_equal(one, two)
    interpreter.close()
    interpreter.close()
    with pytest.raises(AcceleratorError, match="after close"):
        interpreter.invoke(tensor)


def test_interpreter_dynamic_input_is_resized(runtime: RuntimeName) -> None:
    interpreter = load_on_cpu(
        MODELS / "movenet-multipose-fp16.tflite", runtime=runtime, input_size_wh=(256, 192)
    )
    assert interpreter.input.shape == (1, 192, 256, 3)
    outputs = interpreter.invoke(np.zeros((1, 192, 256, 3), np.uint8))
    assert outputs[0].shape == (1, 6, 56)


def test_interpreter_fixed_input_is_not_resized(runtime: RuntimeName) -> None:
    interpreter = load_on_cpu(LIGHTNING, runtime=runtime, input_size_wh=(256, 192))
    assert interpreter.input.shape == (1, 192, 192, 3)


def test_build_refuses_a_size_that_the_file_fixes() -> None:
    config = load_config(None, {"model.input_size": [256, 192]})
    with pytest.raises(ModelShapeError, match=r"fixed at 192x192, expected the 256x192.*leave"):
        build_model(config)


def test_build_refuses_another_kind_than_configured() -> None:
    config = load_config(None, {"model.kind": "posenet"})
    with pytest.raises(ModelShapeError, match=r"is a movenet_single, expected the posenet of"):
        build_model(config)


def test_interpreter_wrong_tensor(runtime: RuntimeName) -> None:
    interpreter = load_on_cpu(LIGHTNING, runtime=runtime)
    with pytest.raises(AcceleratorError, match="invoke failed"):
        interpreter.invoke(np.zeros((1, 8, 8, 3), np.uint8))
    assert interpreter.invoke(photograph_tensor(interpreter.input))[0].shape == (1, 1, 17, 3)


def test_interpreter_after_close(runtime: RuntimeName) -> None:
    interpreter = load_on_cpu(LIGHTNING, runtime=runtime)
    interpreter.close()
    interpreter.close()
    with pytest.raises(AcceleratorError, match="after close"):
        interpreter.invoke(np.zeros((1, 192, 192, 3), np.uint8))


def test_load_file_that_is_not_a_model(runtime: RuntimeName, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.tflite"
    wrong.write_bytes(b"this is no model at all" * 100)
    with pytest.raises(ModelFileError, match=r"wrong\.tflite: expected a TFLite model"):
        load_on_cpu(wrong, runtime=runtime)
    with pytest.raises(ModelFileError, match="cannot read"):
        load_on_cpu(tmp_path / "missing.tflite", runtime=runtime)


def test_probe_truncated_model(runtime: RuntimeName, tmp_path: Path) -> None:
    """tflite-runtime 2.14 crashes with such a file, so a child process loads it first."""
    data = LIGHTNING.read_bytes()
    for length in (0, 8, 100, len(data) // 2, len(data) - 100):
        cut = tmp_path / f"cut-{length}.tflite"
        cut.write_bytes(data[:length])
        with pytest.raises(ModelFileError, match=r"cut-\d+\.tflite"):
            probe_model(cut, runtime)


def test_load_compiled_model_on_the_cpu(runtime: RuntimeName, tmp_path: Path) -> None:
    compiled = tmp_path / "compiled.tflite"
    compiled.write_bytes(compile_model(LIGHTNING.read_bytes()))
    with pytest.raises(ModelFileError, match="compiled for an Edge TPU"):
        load_on_cpu(compiled, runtime=runtime)


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


def test_load_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    load_on_cpu(LIGHTNING)
    assert capfd.readouterr() == ("", "")
