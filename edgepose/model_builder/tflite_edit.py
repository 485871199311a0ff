"""Reading and changing the convolutions of a TFLite file."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

Array = NDArray[Any]

# Scope names of the published graphs; in an INT8 file they were 2% of the bytes.
SCOPES = (
    "StatefulPartitionedCall/",
    "center_net_mobile_net_v2fpn_feature_extractor/",
    "model_1/",
    "MobilenetV1/",
)


@dataclass(frozen=True)
class Convolution:
    """One convolution of a file; `input` to `output` are tensor numbers of its only subgraph."""

    operator: int
    depthwise: bool
    stride: int
    input: int
    weights: int
    bias: int
    output: int


def operator_code(model: Any, operator: Any) -> int:
    """Return the builtin code of an operator."""
    return int(model.operatorCodes[operator.opcodeIndex].builtinCode)


def convolutions(model: Any) -> list[Convolution]:
    """Return all convolutions in the order in which they run."""
    codes = schema.BuiltinOperator
    found = []
    for index, operator in enumerate(model.subgraphs[0].operators):
        code = operator_code(model, operator)
        if code in (codes.CONV_2D, codes.DEPTHWISE_CONV_2D):
            tensors = map(int, (*operator.inputs, *operator.outputs))
            depthwise = code == codes.DEPTHWISE_CONV_2D
            stride = int(operator.builtinOptions.strideH)
            found.append(Convolution(index, depthwise, stride, *tensors))
    return found


def constant(model: Any, tensor: int) -> Array:
    """Return a float32 constant as a writable array."""
    entry = model.subgraphs[0].tensors[tensor]
    data = np.array(model.buffers[entry.buffer].data, np.uint8)
    return data.view("<f4").reshape(entry.shape)


def set_constant(model: Any, tensor: int, array: Array) -> None:
    """Replace the content of a constant; constants that shared its buffer keep theirs."""
    tensors = model.subgraphs[0].tensors
    entry = tensors[tensor]
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(array.tobytes(), np.uint8)
    if sum(other.buffer == entry.buffer for other in tensors) == 1:
        model.buffers[entry.buffer] = buffer
    else:
        entry.buffer = len(model.buffers)
        model.buffers.append(buffer)


def set_quantized(model: Any, tensor: int, codes: Array, scales: Array) -> None:
    """Replace a constant by integer codes with one scale a channel and zero points of 0."""
    set_constant(model, tensor, codes)
    quantization = model.subgraphs[0].tensors[tensor].quantization
    quantization.scale = scales.astype(np.float32)
    quantization.zeroPoint = np.zeros(len(scales), np.int64)


def shorten_names(model: Any) -> None:
    """Remove scopes from tensor names, and from inner ones the names of fused operations."""
    graph = model.subgraphs[0]
    ends = {*map(int, graph.inputs), *map(int, graph.outputs)}
    for index, tensor in enumerate(graph.tensors):
        name = tensor.name.decode("utf-8")
        for scope in SCOPES:
            name = name.replace(scope, "")
        tensor.name = (name if index in ends else name.split(";")[-1]).encode("utf-8")
