"""The operators of a TFLite file, and the removal of a custom operator at its end.

Coral's PoseNet files end in a decoder that stock runtimes do not have. Files are parsed with the
schema in ai-edge-litert, which follows offsets unchecked: a damaged file raises here, but may crash
a runtime, so files without a known hash are tried in a child process first.
"""

from collections import Counter
from functools import cache
from typing import Any, Final

from edgepose.errors import ModelFileError

EDGETPU_OP: Final = "edgetpu-custom-op"
"""The operator into which the Edge TPU compiler packs those that the TPU runs."""
POSENET_DECODER_OP: Final = "PosenetDecoderOp"
"""The custom operator at the end of Coral's `*_quant_decoder` files."""

_IDENTIFIER: Final = b"TFL3"
_MAX_ENTRIES: Final = 100_000
"""More operators than any model has: a damaged length must not cost minutes."""


def is_compiled(data: bytes) -> bool:
    """Whether a file was compiled for the Edge TPU; without parsing it."""
    return EDGETPU_OP.encode() in data


def operators(data: bytes, *, name: str = "the model") -> Counter[str]:
    """Return how many operators of each name a file has.

    Custom operators have the name that the file gives them. `name` is the file in errors. Raises
    ModelFileError for a file that cannot be read.
    """
    try:
        return Counter(_operator_names(data))
    except ModelFileError as error:
        raise ModelFileError(f"{name}: {error}") from None
    except Exception as error:  # noqa: BLE001 - a wrong offset raises anything
        raise _damaged(name, error) from None


def summary(counts: Counter[str]) -> str:
    """Return counted operators as text, the most frequent first."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "no operators"


def without_custom_op(data: bytes, op_name: str, *, name: str = "the model") -> bytes:
    """Return a file without a custom operator: its inputs become outputs of the graph.

    A file without that operator is returned unchanged. Raises ModelFileError if the operator occurs
    more than once or another one reads its outputs, or the file cannot be read.
    """
    if op_name.encode() not in data:
        return data
    count = operators(data, name=name)[op_name]
    if not count:
        return data
    if count > 1:
        raise ModelFileError(f"{name}: expected {op_name} once, got it {count} times")
    try:
        model = read_model(data)
        _remove(model, op_name)
        return write_model(model)
    except ModelFileError as error:
        raise ModelFileError(f"{name}: {error}") from None
    except Exception as error:  # noqa: BLE001 - as above
        raise _damaged(name, error) from None


def read_model(data: bytes) -> Any:
    """Return a file as a `ModelT` object, with all constants inside the flatbuffer.

    Newer writers put constants behind the flatbuffer, which tflite-runtime 2.14 cannot read.
    """
    # Late, as the schema: most models are loaded without being parsed.
    import numpy as np

    schema = _schema()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(data, np.uint8, int(buffer.size), int(buffer.offset))
        buffer.offset = buffer.size = 0
    return model


def write_model(model: Any) -> bytes:
    """Return the bytes of a `ModelT` object."""
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise ModelFileError(
            "parsing a TFLite file needs the package ai-edge-litert, which is not installed"
        ) from None
    return schema_py_generated


def _operator_names(data: bytes) -> list[str]:
    if data[4:8] != _IDENTIFIER:
        raise ModelFileError(
            f"expected a TFLite file, got bytes {data[:8].hex(' ')!r}; fetch it again"
        )
    model = _schema().Model.GetRootAs(data, 0)
    codes = [_code_name(model.OperatorCodes(i)) for i in _range(model.OperatorCodesLength())]
    names = []
    for number in _range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        names += [codes[graph.Operators(i).OpcodeIndex()] for i in _range(graph.OperatorsLength())]
    return names


def _range(length: int) -> range:
    if length > _MAX_ENTRIES:
        raise ModelFileError(f"expected at most {_MAX_ENTRIES} entries, got {length}: damaged")
    return range(length)


def _code_name(code: Any) -> str:
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = _builtin_names().get(number, f"builtin {number}")
    if name == "CUSTOM" and code.CustomCode() is not None:
        name = code.CustomCode().decode("utf-8")
    if not name.isprintable():
        raise ModelFileError("the name of an operator has control characters: damaged")
    return name


@cache
def _builtin_names() -> dict[int, str]:
    return {
        number: name
        for name, number in vars(_schema().BuiltinOperator).items()
        if isinstance(number, int)
    }


def _remove(model: Any, op_name: str) -> None:
    code = next(
        index
        for index, entry in enumerate(model.operatorCodes)
        if entry.customCode in (op_name, op_name.encode())
    )
    del model.operatorCodes[code]
    for graph in model.subgraphs:
        kept = []
        for operator in graph.operators:
            if operator.opcodeIndex != code:
                kept.append(operator)
                continue
            made = set(map(int, operator.outputs))
            readers = [other for other in graph.operators if made & set(map(int, other.inputs))]
            if readers:
                raise ModelFileError(
                    f"expected {op_name} at the end, got it before another operator"
                )
            graph.outputs = _replaced(graph.outputs, made, operator.inputs)
        for operator in kept:
            operator.opcodeIndex -= operator.opcodeIndex > code
        graph.operators = kept
    # They name outputs that are gone.
    model.signatureDefs = None


def _replaced(outputs: Any, gone: set[int], replacement: Any) -> list[int]:
    """Return a graph's outputs with those that are gone replaced by others, in their place."""
    result: list[int] = []
    for output in map(int, outputs):
        if output not in gone:
            result.append(output)
            continue
        result += [int(tensor) for tensor in replacement if tensor >= 0 and tensor not in result]
    return result


def _damaged(name: str, error: Exception) -> ModelFileError:
    return ModelFileError(
        f"{name}: expected a whole TFLite file, got one that is damaged or truncated "
        f"({type(error).__name__}); fetch it again"
    )
