"""Damaged model files: they are refused with a message and do not crash the daemon."""

import random
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.config.schema import Config
from edgepose.errors import ModelError, ModelFileError, ModelHashError
from edgepose.inference import probe
from edgepose.inference.probe import probe_model
from edgepose.inference.runtime import RuntimeName, installed_runtimes
from edgepose.registry.registry import ModelFile, check_file, default_registry
from edgepose.registry.tflite_file import read_model, without_custom_op
from tests.conftest import MODELS
from tests.fuzz.effort import EFFORT, examples

SMALL = MODELS / "posenet-mobilenet-int8.tflite"
MODEL = SMALL.read_bytes()
# Damage to weights only changes results.
_LONG_BYTES = 64


def structure(model: bytes) -> list[int]:
    """Return the positions of all bytes but those of long constants."""
    keep = np.ones(len(model), bool)
    for buffer in read_model(model).buffers:
        content = b"" if buffer.data is None else bytes(buffer.data)
        if len(content) > _LONG_BYTES:
            start = model.find(content)
            keep[start + 16 : start + len(content)] = False
    positions: list[int] = np.flatnonzero(keep).tolist()
    return positions


PLACES = structure(MODEL)


def damaged(chance: random.Random) -> bytes:
    """Return the model with a bit, a byte, a number or a few of them changed, or truncated."""
    data = bytearray(MODEL)
    at = chance.choice(PLACES)
    word = min(at & ~3, len(data) - 4)
    match chance.randrange(7):
        case 0:
            data[at] ^= 1 << chance.randrange(8)
        case 1:
            data[at] = chance.randrange(256)
        case 2:
            odd = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, len(data), len(data) - word)
            struct.pack_into("<I", data, word, chance.choice((*odd, chance.randrange(1 << 32))))
        case 3:
            struct.pack_into("<i", data, word, chance.randrange(-3, 300))
        case 4:
            start, length = chance.choice(PLACES) & ~3, 4 * chance.randrange(1, 9)
            data[word : word + length] = data[start : start + length]
        case 5:
            del data[chance.choice((chance.randrange(len(data)), len(data) - 1, len(data) - 100)) :]
        case _:
            for _ in range(chance.randrange(2, 9)):
                data[chance.choice(PLACES)] = chance.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("runtime", installed_runtimes())
def test_probe_damaged_models(tmp_path: Path, runtime: RuntimeName) -> None:
    """A third of these crash tflite-runtime 2.14, in a child process."""
    path = tmp_path / "damaged.tflite"
    refused = 0
    for seed in range(12 * EFFORT):
        path.write_bytes(damaged(random.Random(seed)))
        try:
            probe_model(path, runtime)
        except ModelFileError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 - nothing else may come
            assert str(error).isprintable()  # noqa: PT017
    assert refused > 0


@pytest.mark.parametrize("runtime", installed_runtimes())
def test_probe_valid_model_is_probed_once(
    tmp_path: Path, runtime: RuntimeName, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "copy.tflite"
    path.write_bytes(MODEL)
    probe_model(path, runtime)
    # An unchanged file is not tried again.
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.0)
    probe_model(path, runtime)
    path.write_bytes(MODEL + b"x")
    with pytest.raises(ModelFileError, match="did not run"):
        probe_model(path, runtime)


def test_probe_crash_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(probe, "main_command", lambda _module: [sys.executable, "-c", crash])
    path = tmp_path / "m.tflite"
    path.write_bytes(MODEL)
    with pytest.raises(ModelFileError, match=r"m\.tflite: .*was ended by SIGSEGV"):
        probe_model(path)


def test_probe_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        probe_model(tmp_path / "nowhere.tflite")


def test_load_named_model_with_flipped_bit(tmp_path: Path) -> None:
    from edgepose.build import check_model

    file = default_registry().resolve("posenet-mobilenet-int8")
    check_model(file, Config())
    data = bytearray(MODEL)
    data[len(data) // 2] ^= 1
    path = tmp_path / file.path.name
    path.write_bytes(data)
    with pytest.raises(ModelHashError, match="sha256"):
        check_model(ModelFile(file.name, path, file.entry), Config())


def test_read_model_bundled_models() -> None:
    for path in sorted(MODELS.glob("*.tflite")):
        check_file(path)
        assert read_model(path.read_bytes()).subgraphs


def test_read_model_other_models(shared_data: Path) -> None:
    for path in sorted((shared_data.parent / "models").glob("*.tflite")):
        assert read_model(path.read_bytes()).subgraphs


@examples(100)
@given(seed=st.integers(0, 2**32))
def test_without_custom_op_damaged_files(seed: int) -> None:
    data = damaged(random.Random(seed))
    try:
        # Any text that is in the file, so that the file is parsed.
        without_custom_op(data, "min_runtime_version", name="m.tflite")
    except ModelFileError as error:
        assert str(error).startswith("m.tflite: ")  # noqa: PT017 - nothing else may come
        assert str(error).isprintable()  # noqa: PT017


@examples(300)
@given(data=st.binary(max_size=200), root=st.integers(0, 40))
def test_without_custom_op_any_bytes(data: bytes, root: int) -> None:
    model = struct.pack("<I", root) + b"TFL3" + data
    try:
        without_custom_op(model, "TFL3")
    except ModelFileError as error:
        assert str(error).startswith("the model: ")  # noqa: PT017 - nothing else may come


def test_check_file_too_large(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    with path.open("wb") as file:
        file.write(MODEL)
        file.truncate(1 << 33)
    with pytest.raises(ModelError, match="at most 256 MiB"):
        check_file(path)


def test_check_file_smallest_files(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    for length in range(64):
        path.write_bytes(MODEL[:length])
        with pytest.raises(ModelFileError):
            check_file(path)
