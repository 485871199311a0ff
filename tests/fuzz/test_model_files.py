"""A model file from anywhere: it may be refused, but must not take the daemon with it."""

import json
import random
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.errors import ModelError, ModelFileError
from edgepose.inference.runtime import installed_runtimes
from edgepose.registry import tflite_file as flatbuffer
from edgepose.registry.registry import check_file
from tests.conftest import MODELS
from tests.fuzz.effort import EFFORT, examples
from tests.fuzz.model_child import damaged, structure

SMALL = "posenet-mobilenet-int8"
# Each a graph of its own kind; the numbers keep this under fifteen seconds on two slow cores.
CASES = [
    (model, runtime, count)
    for runtime in installed_runtimes()
    for model, count in (
        (SMALL, 80),
        ("movenet-lightning-int8", 30),
        ("movenet-multipose-int8", 15),
    )
]


@pytest.mark.parametrize(("model", "runtime", "count"), CASES)
def test_no_damage_ends_the_process_that_loads_it(model: str, runtime: str, count: int) -> None:
    """Without the checks a third of these end tflite-runtime 2.14, and one in 750 LiteRT 2.3."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.model_child", str(MODELS / f"{model}.tflite")),
            *(runtime, "0", str(count * EFFORT)),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=MODELS.parent,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["deadly"] == []
    outcomes = result["outcomes"]
    # Both happen, or the damage was none, or all of it was beyond the first look.
    assert outcomes["refused"] >= count // 4
    assert outcomes["runs"] >= count // 20


MODEL = (MODELS / f"{SMALL}.tflite").read_bytes()
PLACES = structure(MODEL)


def test_whole_models_pass() -> None:
    for path in sorted(MODELS.glob("*.tflite")):
        check_file(path)
        data = path.read_bytes()
        assert flatbuffer.check(data, name=path.name) == flatbuffer.operators(data)


def test_models_of_others_pass(shared_data: Path) -> None:
    for path in sorted((shared_data.parent / "models").glob("*.tflite")):
        assert flatbuffer.check(path.read_bytes(), name=path.name)


@examples(200)
@given(seed=st.integers(0, 2**32))
def test_damaged_files_are_read_or_refused(seed: int) -> None:
    data = damaged(MODEL, PLACES, random.Random(seed))
    for call in (flatbuffer.check, flatbuffer.operators, _without_decoder):
        try:
            counts = call(data, name="m.tflite")
        except ModelFileError as error:
            sentence = str(error)
        else:
            sentence = f"m.tflite: {flatbuffer.summary(counts)}"
        assert sentence.startswith("m.tflite: ")
        assert sentence.isprintable()


def _without_decoder(data: bytes, *, name: str) -> Counter[str]:
    flatbuffer.without_custom_op(data, flatbuffer.POSENET_DECODER_OP, name=name)
    return Counter()


@examples(300)
@given(data=st.binary(max_size=200), root=st.integers(0, 40))
def test_any_bytes_behind_the_right_mark(data: bytes, root: int) -> None:
    model = struct.pack("<I", root) + b"TFL3" + data
    try:
        flatbuffer.check(model)
    except ModelFileError as error:
        assert str(error).startswith("the model: expected")  # noqa: PT017 - nothing else may come


def test_a_small_file_takes_no_hours() -> None:
    """A thousand names for one text of a megabyte were a gigabyte of reading."""
    text = b"x" * 1_000_000
    data = bytearray(MODEL)
    reader = flatbuffer._Reader(MODEL, "m")
    (subgraph,) = reader.subgraphs()
    start = len(data)
    data += struct.pack("<I", len(text)) + text + b"\0"
    changed = 0
    for slot in reader.table_vector(subgraph, 0):
        field = reader.field(reader.indirect(slot), 3)
        assert field is not None
        struct.pack_into("<I", data, field, start - field)
        changed += 1
    assert changed > 50
    began_s = time.process_time()
    with pytest.raises(ModelFileError, match="many references lead to the same bytes"):
        flatbuffer.check(bytes(data))
    assert time.process_time() - began_s < 20


def tensor_fields(number: int) -> tuple[int, int]:
    """Return where the small model keeps the scale and the zero point of a tensor."""
    reader = flatbuffer._Reader(MODEL, "m")
    slot = reader.table_vector(reader.subgraphs()[0], 0)[number]
    field = reader.field(reader.indirect(slot), 4)
    assert field is not None
    quantization = reader.indirect(field)
    scale, zero_point = (reader.field(quantization, n) for n in (2, 3))
    assert scale is not None
    assert zero_point is not None
    return reader._vector(scale, 4)[0], reader._vector(zero_point, 8)[0]


def operator_inputs(name: str) -> int:
    """Return where the small model keeps the inputs of its first operator of a name."""
    reader = flatbuffer._Reader(MODEL, "m")
    codes = reader.operator_codes()
    for slot in reader.table_vector(reader.subgraphs()[0], 3):
        if reader.operator(slot, codes).name == name:
            field = reader.field(reader.indirect(slot), 1)
            assert field is not None
            return reader._vector(field, 4)[0]
    pytest.fail(f"there is no {name}")


def stride(name: str) -> int:
    """Return where the small model keeps the stride of its first operator of a name."""
    reader = flatbuffer._Reader(MODEL, "m")
    codes = reader.operator_codes()
    for slot in reader.table_vector(reader.subgraphs()[0], 3):
        if reader.operator(slot, codes).name == name:
            field = reader.field(reader.indirect(slot), 4)
            assert field is not None
            stride_w = reader.field(reader.indirect(field), 1)
            assert stride_w is not None
            return stride_w
    pytest.fail(f"there is no {name}")


FLAWS = {
    "a scale too small": (tensor_fields(0)[0], struct.pack("<f", 1e-40), "quantized with scale"),
    "a scale that is no number": (
        tensor_fields(0)[0],
        struct.pack("<f", float("nan")),
        "quantized with scale",
    ),
    "a zero point out of range": (
        tensor_fields(0)[1],
        struct.pack("<q", 1 << 40),
        "quantized with zero point",
    ),
    "an input that is not there": (
        operator_inputs("CONV_2D"),
        struct.pack("<i", -1),
        "reads tensor -1",
    ),
    "an input that comes later": (
        operator_inputs("CONV_2D"),
        struct.pack("<i", 10**6),
        "reads tensor 1000000",
    ),
    "a stride of nothing": (stride("CONV_2D"), bytes(4), "a stride or size below 1"),
    "a negative stride": (stride("DEPTHWISE_CONV_2D"), b"\xff" * 4, "a stride or size below 1"),
}


def flawed(name: str) -> bytes:
    at, value, _ = FLAWS[name]
    return MODEL[:at] + value + MODEL[at + len(value) :]


@pytest.mark.parametrize("flaw", FLAWS)
def test_what_a_runtime_would_die_of_is_named(flaw: str) -> None:
    with pytest.raises(ModelFileError, match=FLAWS[flaw][2]):
        flatbuffer.check(flawed(flaw), name="m.tflite")


LOAD = """
import sys
from pathlib import Path
from edgepose.inference.cpu import CpuAccelerator
from edgepose.errors import ModelFileError
for path in map(Path, sys.argv[1:]):
    try:
        CpuAccelerator(threads=1).load(path)
    except ModelFileError as error:
        print(error)
"""


def test_the_accelerator_looks_before_it_loads(tmp_path: Path) -> None:
    """A scale of 1e-40 was a segmentation fault in LiteRT 2.3, and the end of the daemon."""
    paths = [tmp_path / f"{number}.tflite" for number in range(len(FLAWS))]
    for path, flaw in zip(paths, FLAWS, strict=True):
        path.write_bytes(flawed(flaw))
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        cwd=MODELS.parent,
    )
    assert done.returncode == 0, done.stderr[:300]
    sentences = done.stdout.splitlines()
    assert len(sentences) == len(FLAWS)
    for path, sentence, (_, _, words) in zip(paths, sentences, FLAWS.values(), strict=True):
        assert sentence.startswith(f"{path}: ")
        assert words in sentence


def test_names_in_a_file_do_not_reach_the_terminal() -> None:
    """An operator's name is whatever the file says, and errors name the operator."""
    forged = b"\x1b[2J\x1b[31mROOT"
    data = bytearray(MODEL)
    reader = flatbuffer._Reader(MODEL, "m")
    data += bytes(-len(data) % 4)
    vtable = len(data)
    # A new operator code at the end of the file: a custom operator and its name.
    data += struct.pack("<HHHHHH", 12, 16, 4, 8, 0, 12)
    at = len(data)
    data += struct.pack("<iIIi", at - vtable, 32, 0, 32)
    text = len(data)
    data += struct.pack("<I", len(forged)) + forged + b"\0"
    struct.pack_into("<I", data, at + 8, text - at - 8)
    slot = reader.table_vector(reader.root, 1)[0]
    struct.pack_into("<I", data, slot, at - slot)
    for call in (flatbuffer.check, flatbuffer.operators):
        with pytest.raises(ModelFileError, match="control characters") as caught:
            call(bytes(data))
        assert str(caught.value).isprintable()
    honest = bytes(data).replace(forged, b"PosenetOp".ljust(len(forged), b"_"))
    assert any(name.startswith("PosenetOp") for name in flatbuffer.operators(honest))


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    with path.open("wb") as file:
        file.write(MODEL)
        file.truncate(1 << 33)
    with pytest.raises(ModelError, match="at most 256 MiB"):
        check_file(path)


def test_the_smallest_files() -> None:
    for length in range(64):
        with pytest.raises(ModelFileError):
            flatbuffer.check(MODEL[:length])
