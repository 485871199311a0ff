"""The replay accelerator: recorded outputs in place of a model."""

from pathlib import Path

import numpy as np
import pytest

from edgepose.build import build_model
from edgepose.config.loader import load_config
from edgepose.datatypes import TensorSpec
from edgepose.errors import AcceleratorError, ConfigError, ModelFileError
from edgepose.inference.cpu import load_on_cpu
from edgepose.inference.replay import ReplayInterpreter, load_recording
from edgepose.pose_models.movenet_single import MovenetSingle
from edgepose.protocols import Interpreter
from tests.conftest import MODELS
from tools.record_outputs import OutputRecorder

INPUT = TensorSpec("in", (1, 2, 2, 3), np.dtype(np.uint8))
OUTPUT = TensorSpec("out", (1, 4), np.dtype(np.float32), 0.5, 3)
ZEROS = np.zeros(INPUT.shape, np.uint8)


class Counting:
    """An interpreter whose n-th output is n."""

    input = INPUT
    outputs = (OUTPUT,)

    def __init__(self) -> None:
        self.invoked = 0

    def invoke(self, tensor: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> list[object]:
        self.invoked += 1
        return [np.full(OUTPUT.shape, self.invoked, np.float32)]

    def close(self) -> None: ...


def recorded(path: Path, count: int) -> Path:
    recorder = OutputRecorder(Counting())  # type: ignore[arg-type]  # arrays of one type
    for _ in range(count):
        recorder.invoke(ZEROS)
    recorder.save(path)
    return path


def test_replay_accelerator_plays_recorded_outputs_in_a_loop(tmp_path: Path) -> None:
    interpreter = load_recording(recorded(tmp_path / "r.npz", 3))
    assert isinstance(interpreter, Interpreter)
    assert (interpreter.input, interpreter.outputs) == (INPUT, (OUTPUT,))
    played = [float(interpreter.invoke(ZEROS)[0][0, 0]) for _ in range(7)]
    assert played == [1, 2, 3, 1, 2, 3, 1]


def test_replay_accelerator_outputs_belong_to_the_caller(tmp_path: Path) -> None:
    interpreter = load_recording(recorded(tmp_path / "r.npz", 1))
    interpreter.invoke(ZEROS)[0][:] = 99
    assert float(interpreter.invoke(ZEROS)[0][0, 0]) == 1


def test_replay_accelerator_wrong_tensor_and_after_close(tmp_path: Path) -> None:
    interpreter = load_recording(recorded(tmp_path / "r.npz", 1))
    with pytest.raises(AcceleratorError, match="expected a tensor uint8"):
        interpreter.invoke(ZEROS.astype(np.float32))
    interpreter.close()
    interpreter.close()
    with pytest.raises(AcceleratorError, match="after close"):
        interpreter.invoke(ZEROS)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no npz", bytes(1000)])
def test_replay_accelerator_damaged_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.npz"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"r\.npz: expected model outputs"):
        load_recording(path)


def test_replay_accelerator_truncated_file(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r.npz", 3)
    data = path.read_bytes()
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        with pytest.raises(ModelFileError, match=r"r\.npz"):
            load_recording(path)


def test_replay_accelerator_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        load_recording(tmp_path / "nowhere.npz")


def test_replay_accelerator_empty_recording_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one invoke"):
        OutputRecorder(ReplayInterpreter(INPUT, (OUTPUT,), [], "r.npz")).save(tmp_path / "r.npz")


def test_replay_accelerator_of_a_real_model_is_a_model(tmp_path: Path) -> None:
    path = MODELS / "movenet-lightning-int8.tflite"
    recorder = OutputRecorder(load_on_cpu(path, threads=1))
    tensor = np.zeros(recorder.input.shape, np.uint8)
    (expected,) = recorder.invoke(tensor)
    recorder.save(tmp_path / "r.npz")
    config = load_config(
        None, {"accelerator": "replay", "inference.recording": str(tmp_path / "r.npz")}
    )
    model = build_model(config)
    assert model.device == "replay"
    assert isinstance(model.pose_model, MovenetSingle)
    (played,) = model.interpreter.invoke(tensor)
    assert np.array_equal(played, expected)


def test_replay_accelerator_without_a_recording_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"inference\.recording"):
        load_config(None, {"accelerator": "replay"})
