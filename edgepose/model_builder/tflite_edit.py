"""TFLite files as objects: reading, changing and writing their convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Long scope names come with the published graphs; in an INT8 file they were 2% of the bytes.
SCOPES = (
    "StatefulPartitionedCall/",
    "center_net_mobile_net_v2fpn_feature_extractor/",
    "model_1/",
    "MobilenetV1/",
)


@dataclass(frozen=True)
class Convolution:
    """One convolution of a file; the fields are tensor numbers of its only subgraph."""

    operator: int
    depthwise: bool
    pointwise: bool
    activation: int
    stride: int
    input: int
    weights: int
    bias: int
    output: int


def _schema() -> Any:
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def operator_code(model: Any, operator: Any) -> int:
    """Return the builtin code of an operator."""
    return int(model.operatorCodes[operator.opcodeIndex].builtinCode)


def convolutions(model: Any) -> list[Convolution]:
    """Return all convolutions in the order in which they run."""
    codes = _schema().BuiltinOperator
    graph = model.subgraphs[0]
    found = []
    for index, operator in enumerate(graph.operators):
        code = operator_code(model, operator)
        if code not in (codes.CONV_2D, codes.DEPTHWISE_CONV_2D):
            continue
        options = operator.builtinOptions
        shape = [int(side) for side in graph.tensors[operator.inputs[1]].shape]
        found.append(
            Convolution(
                operator=index,
                depthwise=code == codes.DEPTHWISE_CONV_2D,
                pointwise=code == codes.CONV_2D and shape[1:3] == [1, 1],
                activation=int(options.fusedActivationFunction),
                stride=int(options.strideH),
                input=int(operator.inputs[0]),
                weights=int(operator.inputs[1]),
                bias=int(operator.inputs[2]),
                output=int(operator.outputs[0]),
            )
        )
    return found


def constant(model: Any, tensor: int, dtype: str = "<f4") -> Array:
    """Return a constant tensor as a writable array."""
    entry = model.subgraphs[0].tensors[tensor]
    data = np.asarray(model.buffers[entry.buffer].data, np.uint8).tobytes()
    return np.frombuffer(data, dtype).reshape([int(side) for side in entry.shape]).copy()


def set_constant(model: Any, tensor: int, array: Array) -> None:
    """Replace the content of a constant tensor, in a buffer of its own."""
    entry = model.subgraphs[0].tensors[tensor]
    buffer = _schema().BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    sharers = [other for other in model.subgraphs[0].tensors if other.buffer == entry.buffer]
    if len(sharers) == 1:
        model.buffers[entry.buffer] = buffer
    else:
        entry.buffer = len(model.buffers)
        model.buffers.append(buffer)


def set_scales(model: Any, tensor: int, scales: Sequence[float] | Array) -> None:
    """Replace a constant's scales per channel, its zero points being 0."""
    quantization = model.subgraphs[0].tensors[tensor].quantization
    quantization.scale = np.asarray(scales, np.float32)
    quantization.zeroPoint = np.zeros(len(quantization.scale), np.int64)


def shorten_names(model: Any) -> None:
    """Shorten tensor names and drop what only the converter wrote for itself."""
    graph = model.subgraphs[0]
    ends = {*(int(i) for i in graph.inputs), *(int(i) for i in graph.outputs)}
    for index, tensor in enumerate(graph.tensors):
        name = tensor.name.decode("utf-8")
        for scope in SCOPES:
            name = name.replace(scope, "")
        tensor.name = (name if index in ends else name.split(";")[-1]).encode("utf-8")
