"""Read and edit TFLite files with the schema of ai-edge-litert.

The schema follows offsets unchecked: a damaged file raises here, but may crash a runtime, so a file
without a known hash is tried in a child process first (`inference/probe.py`).
"""

from typing import Any, Final

from edgepose.errors import ModelFileError

IDENTIFIER: Final = b"TFL3"
"""Bytes 4 to 8 of every TFLite file."""
EDGETPU_OP: Final = "edgetpu-custom-op"
"""The operator into which the Edge TPU compiler packs those that the TPU runs."""
POSENET_DECODER_OP: Final = "PosenetDecoderOp"
"""The custom operator at the end of Coral's `*_quant_decoder` files; stock runtimes lack it."""


def is_compiled(data: bytes) -> bool:
    """Whether a file was compiled for the Edge TPU; without parsing it."""
    return EDGETPU_OP.encode() in data


def without_custom_op(data: bytes, op_name: str, *, name: str = "the model") -> bytes:
    """Return a file without a custom operator: its inputs become outputs of the graph.

    A file without that operator is returned unchanged. `name` is the file in errors. Raises
    ModelFileError if the operator occurs more than once, another one reads its outputs, or the file
    is damaged.
    """
    if op_name.encode() not in data:
        return data
    try:
        model = read_model(data)
        return write_model(model) if _remove(model, op_name.encode()) else data
    except ModelFileError as error:
        raise ModelFileError(f"{name}: {error}") from None
    except Exception as error:  # noqa: BLE001 - a wrong offset raises anything
        raise ModelFileError(
            f"{name}: expected a whole TFLite file, got one that is damaged or truncated "
            f"({type(error).__name__}); download it again"
        ) from None


def schema_module() -> Any:
    """Return the module with the schema of TFLite files; raises ModelFileError without it."""
    try:
        # Imported on demand: most models are loaded without being parsed.
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise ModelFileError(
            "reading or writing a TFLite file needs the package ai-edge-litert, which is not "
            "installed"
        ) from None
    return schema_py_generated


def read_model(data: bytes) -> Any:
    """Return a file as a `ModelT` object, with all constants inside the flatbuffer.

    Newer writers put constants behind the flatbuffer, which tflite-runtime 2.14 cannot read.
    """
    import numpy as np

    schema = schema_module()
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
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _remove(model: Any, op_name: bytes) -> bool:
    """Remove a custom operator from a `ModelT` object; return False if it has none."""
    names = [code.customCode for code in model.operatorCodes]
    found = [
        (graph, operator)
        for graph in model.subgraphs
        for operator in graph.operators
        if names[operator.opcodeIndex] == op_name
    ]
    if not found:
        return False
    if len(found) > 1:
        raise ModelFileError(f"expected {op_name.decode()} once, got it {len(found)} times")
    graph, removed = found[0]
    graph.operators.remove(removed)
    made = set(removed.outputs)
    if any(made & set(operator.inputs) for operator in graph.operators):
        raise ModelFileError(
            f"expected {op_name.decode()} at the end, got it before another operator"
        )
    # The inputs take the place of the first output of the operator.
    outputs: list[int] = []
    for output in graph.outputs:
        replacement = removed.inputs if output in made else [output]
        outputs += [tensor for tensor in replacement if tensor >= 0 and tensor not in outputs]
    graph.outputs = outputs
    del model.operatorCodes[removed.opcodeIndex]
    for other in model.subgraphs:
        for operator in other.operators:
            operator.opcodeIndex -= operator.opcodeIndex > removed.opcodeIndex
    # Signatures name outputs that are gone.
    model.signatureDefs = None
    return True
