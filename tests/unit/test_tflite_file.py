"""Reading and editing TFLite files."""

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepose.errors import ModelFileError
from edgepose.registry.tflite_file import is_compiled, without_custom_op
from tests.conftest import MODELS, SHARED
from tests.edgetpu.compiled import compile_model, operators
from tests.images import existing_models

flatbuffers = pytest.importorskip("flatbuffers", reason="comes with ai-edge-litert only")
schema = pytest.importorskip(
    "ai_edge_litert.schema_py_generated", reason="these tests write models with it"
)

CUSTOM = 32


def tflite(
    *steps: tuple[str | int, list[int], list[int]],
    outputs: list[int],
    signature: bool = False,
    weights: bytes = b"weights",
) -> bytes:
    """Return a TFLite file whose steps are (operator, its inputs, its outputs)."""
    model = schema.ModelT()
    model.version = 3
    graph = schema.SubGraphT()
    names = list(dict.fromkeys(step[0] for step in steps))
    model.operatorCodes = []
    for name in names:
        code = schema.OperatorCodeT()
        code.builtinCode = CUSTOM if isinstance(name, str) else name
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.customCode = name if isinstance(name, str) else None
        model.operatorCodes.append(code)
    graph.operators = []
    for name, inputs, made in steps:
        operator = schema.OperatorT()
        operator.opcodeIndex = names.index(name)
        operator.inputs, operator.outputs = inputs, made
        graph.operators.append(operator)
    graph.tensors = []
    for number in range(8):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = f"t{number}", [1, 2], number % 2
        graph.tensors.append(tensor)
    graph.inputs, graph.outputs = [0], outputs
    model.subgraphs = [graph]
    filled = schema.BufferT()
    filled.data = list(weights)
    model.buffers = [schema.BufferT(), filled]
    if signature:
        entry = schema.SignatureDefT()
        entry.signatureKey = "serving_default"
        output = schema.TensorMapT()
        output.name, output.tensorIndex = "poses", outputs[0]
        entry.outputs = [output]
        model.signatureDefs = [entry]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def read(data: bytes) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def steps_of(data: bytes) -> list[tuple[int, list[int], list[int]]]:
    return [
        (step.opcodeIndex, list(step.inputs), list(step.outputs))
        for step in read(data).subgraphs[0].operators
    ]


DECODER = tflite(
    (3, [0], [1]), (4, [1], [2]), ("Decoder", [2, 1], [3, 4, 5]), outputs=[3, 4, 5], signature=True
)


def test_without_custom_op_makes_its_inputs_outputs() -> None:
    edited = without_custom_op(DECODER, "Decoder")
    assert steps_of(edited) == steps_of(DECODER)[:2]
    assert list(read(edited).subgraphs[0].outputs) == [2, 1]
    assert operators(edited) == {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1}
    assert b"Decoder" not in edited
    assert not read(edited).signatureDefs
    assert bytes(read(edited).buffers[1].data) == b"weights"


@given(place=st.integers(0, 3), size=st.integers(0, 9))
@settings(max_examples=20)
def test_without_custom_op_at_any_place_in_the_list(place: int, size: int) -> None:
    steps: list[tuple[str | int, list[int], list[int]]] = [
        (3, [0], [1]), (4, [1], [2]), (0, [2, 1], [3]),
    ]  # fmt: skip
    steps.insert(place, ("Tail", [3, -1], [6]))
    data = tflite(*steps, outputs=[1, 6], weights=bytes(size))
    edited = without_custom_op(data, "Tail")
    codes = [code.builtinCode for code in read(edited).operatorCodes]
    assert [(codes[code], *rest) for code, *rest in steps_of(edited)] == [
        (code, inputs, outputs) for code, inputs, outputs in steps if code != "Tail"
    ]
    assert list(read(edited).subgraphs[0].outputs) == [1, 3]


def test_without_custom_op_returns_other_files_unchanged() -> None:
    assert without_custom_op(DECODER, "Other") is DECODER
    edited = without_custom_op(DECODER, "Decoder")
    assert without_custom_op(edited, "Decoder") == edited


def test_without_custom_op_before_another_operator_or_twice() -> None:
    data = tflite(("Head", [0], [1]), (3, [1], [2]), outputs=[2])
    with pytest.raises(
        ModelFileError, match=r"^m\.tflite: expected Head at the end, got it before another"
    ):
        without_custom_op(data, "Head", name="m.tflite")
    twice = tflite(("Head", [0], [1]), ("Head", [0], [2]), outputs=[1, 2])
    with pytest.raises(ModelFileError, match="got it 2 times"):
        without_custom_op(twice, "Head")


def test_without_custom_op_truncated_file() -> None:
    for length in range(8, len(DECODER)):
        try:
            edited = without_custom_op(DECODER[:length], "Decoder", name="m.tflite")
        except ModelFileError as error:
            assert str(error).startswith("m.tflite: expected a")  # noqa: PT017
        else:
            assert b"Decoder" not in edited


def test_without_custom_op_moves_constants_into_the_flatbuffer() -> None:
    """ai-edge-quantizer writes them behind it, and tflite-runtime 2.14 cannot read them."""
    model = read(DECODER)
    model.buffers[1].data = None
    model.buffers[1].offset, model.buffers[1].size = 1 << 14, 100
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    data = bytes(builder.Output()).ljust(1 << 14, b"\0") + bytes(range(100))
    edited = read(without_custom_op(data, "Decoder"))
    assert bytes(edited.buffers[1].data) == bytes(range(100))
    assert edited.buffers[1].offset == 0


@given(position=st.integers(0, len(DECODER) - 4), value=st.integers(0, 2**32 - 1))
@settings(max_examples=300)
def test_damaged_file_raises_model_file_error_only(position: int, value: int) -> None:
    damaged = bytearray(DECODER)
    struct.pack_into("<I", damaged, position, value)
    with contextlib.suppress(ModelFileError):
        without_custom_op(bytes(damaged), "Decoder")


def test_without_custom_op_returns_working_model() -> None:
    """A decoder put behind our PoseNet, as Coral's files have one, and taken off again."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter
    original = (MODELS / "posenet-mobilenet-int8.tflite").read_bytes()
    model = read(original)
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = CUSTOM
    code.customCode = "PosenetDecoderOp"
    model.operatorCodes.append(code)
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = "poses", [1, 10, 17, 2], 0
    graph.tensors.append(tensor)
    decoder = schema.OperatorT()
    decoder.opcodeIndex = len(model.operatorCodes) - 1
    decoder.inputs, decoder.outputs = list(graph.outputs), [len(graph.tensors) - 1]
    graph.operators.append(decoder)
    graph.outputs = decoder.outputs
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    edited = without_custom_op(bytes(builder.Output()), "PosenetDecoderOp")
    shapes = []
    for data in (original, edited):
        loaded = interpreter(model_content=data)
        loaded.allocate_tensors()
        loaded.invoke()
        shapes.append([output["shape"].tolist() for output in loaded.get_output_details()])
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == 4


@pytest.mark.parametrize(
    "name", existing_models("posenet_mobilenet_v1_075_353_481_quant_decoder.tflite")
)
def test_without_custom_op_coral_decoder_files_run(name: str) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter
    edited = without_custom_op((SHARED / "models" / name).read_bytes(), "PosenetDecoderOp")
    loaded = interpreter(model_content=edited)
    loaded.allocate_tensors()
    loaded.invoke()
    shapes = [output["shape"].tolist() for output in loaded.get_output_details()]
    assert shapes == [[1, 23, 31, channels] for channels in (17, 34, 64)]


def test_is_compiled() -> None:
    ours = compile_model((MODELS / "movenet-lightning-int8.tflite").read_bytes())
    files = [ours, *(path.read_bytes() for path in (SHARED / "models").glob("*edgetpu.tflite"))]
    for data in files:
        assert is_compiled(data)
        assert operators(data)["edgetpu-custom-op"] == 1
