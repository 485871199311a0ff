"""A fake Edge TPU compiler: a CPU model becomes one custom operator and the remaining operators.

`compile_model` replaces the compiler, so that no test needs a file that may not be distributed.
`heads_model` returns the part of the CPU model that computes the custom operator of a compiled
file, of this compiler or the real one.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepose.model_builder.tflite_edit import convolutions
from edgepose.registry.tflite_file import EDGETPU_OP, read_model, write_model


def operators(data: bytes) -> Counter[str]:
    """Return how many operators of each name a model has."""
    model = read_model(data)
    builtin = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    names = [
        builtin[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if code.customCode is None
        else code.customCode.decode()
        for code in model.operatorCodes
    ]
    return Counter(
        names[operator.opcodeIndex] for graph in model.subgraphs for operator in graph.operators
    )


def compile_model(data: bytes) -> bytes:
    """Return a CPU model with its convolutions, and all that leads to them, as one custom operator.

    The real compiler maps a graph from its start until the first operator that the TPU lacks; for
    MoveNet that is the ARG_MAX behind a head, and convolutions behind it stay too. Raises
    ValueError for a model without fixed shapes, which the real one rejects too, or without
    convolutions.
    """
    model = read_model(data)
    graph = model.subgraphs[0]
    if any(-1 in (t.shapeSignature if t.shapeSignature is not None else ()) for t in graph.tensors):
        raise ValueError("a model for the Edge TPU has fixed shapes, this one has dynamic ones")
    behind = _behind(graph, {i for i, op in enumerate(graph.operators) if _is_arg_max(model, op)})
    found = {convolution.operator for convolution in convolutions(model)} - behind
    if not found:
        raise ValueError("expected a model with convolutions, got none")
    wanted = {int(i) for index in found for i in graph.operators[index].outputs}
    mapped = _leading_to(graph, wanted, ())
    made = {int(i) for index in mapped for i in graph.operators[index].outputs}
    tail = [op for index, op in enumerate(graph.operators) if index not in mapped]
    needed = {int(i) for op in tail for i in op.inputs} | {int(i) for i in graph.outputs}
    inputs = [int(i) for i in graph.inputs]

    code = schema.OperatorCodeT()
    code.deprecatedBuiltinCode = code.builtinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = EDGETPU_OP.encode()
    code.version = 1
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes)
    operator.inputs = np.array(inputs, np.int32)
    operator.outputs = np.array(sorted(made & needed), np.int32)
    operator.customOptions = np.frombuffer(b"made for edgepose's tests", np.uint8)
    model.operatorCodes.append(code)
    graph.operators = [operator, *tail]
    _sweep(model)
    return write_model(model)


def heads_model(cpu: bytes, compiled: bytes) -> bytes:
    """Return the part of a CPU model that computes a compiled model's custom operator.

    Its inputs and outputs are the operator's, in that order. Tensors are the same if name, shape,
    type and quantization are. Raises ValueError if the two files are not the same network.
    """
    model, other = read_model(cpu), read_model(compiled)
    graph, other_graph = model.subgraphs[0], other.subgraphs[0]
    mapped = [
        operator
        for operator in other_graph.operators
        if other.operatorCodes[operator.opcodeIndex].customCode == EDGETPU_OP.encode()
    ]
    if len(mapped) != 1:
        raise ValueError(f"expected one {EDGETPU_OP} in a compiled model, got {len(mapped)}")
    numbers: dict[Any, list[int]] = {}
    for index, tensor in enumerate(graph.tensors):
        numbers.setdefault(_identity(tensor), []).append(index)

    def same(index: int) -> int:
        identity = _identity(other_graph.tensors[index])
        found = numbers.get(identity, [])
        if len(found) != 1:
            raise ValueError(
                f"expected one tensor {identity} in the CPU model, got {len(found)}; is it the "
                "same network?"
            )
        return found[0]

    inputs = [same(int(i)) for i in mapped[0].inputs]
    outputs = [same(int(i)) for i in mapped[0].outputs]
    kept = _leading_to(graph, outputs, inputs)
    graph.operators = [op for index, op in enumerate(graph.operators) if index in kept]
    graph.inputs, graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    _sweep(model)
    return write_model(model)


def _is_arg_max(model: Any, operator: Any) -> bool:
    code = model.operatorCodes[operator.opcodeIndex]
    return bool(max(code.builtinCode, code.deprecatedBuiltinCode) == schema.BuiltinOperator.ARG_MAX)


def _behind(graph: Any, operators: Collection[int]) -> set[int]:
    """Return the operators that need an output of some operators."""
    made = {int(i) for index in operators for i in graph.operators[index].outputs}
    found = set()
    for index, operator in enumerate(graph.operators):
        if not made.isdisjoint(int(i) for i in operator.inputs):
            found.add(index)
            made |= {int(i) for i in operator.outputs}
    return found


def _identity(tensor: Any) -> tuple[Any, ...]:
    quantization = tensor.quantization
    scales = [] if quantization is None or quantization.scale is None else quantization.scale
    zeros = [] if quantization is None or quantization.zeroPoint is None else quantization.zeroPoint
    return (
        tensor.name.decode(),
        tuple(int(extent) for extent in tensor.shape),
        int(tensor.type),
        tuple(float(scale) for scale in scales),
        tuple(int(zero) for zero in zeros),
    )


def _leading_to(graph: Any, outputs: Iterable[int], inputs: Collection[int]) -> set[int]:
    """Return the operators that `outputs` need, going back no further than `inputs`."""
    needed = set(outputs) - set(inputs)
    found = set()
    # Operators are stored in an order in which they can run, so one pass backwards is enough.
    for index in reversed(range(len(graph.operators))):
        operator = graph.operators[index]
        if needed.isdisjoint(int(i) for i in operator.outputs):
            continue
        found.add(index)
        needed |= {int(i) for i in operator.inputs} - set(inputs)
    return found


def _sweep(model: Any) -> None:
    """Drop the tensors, buffers and operator codes that no operator needs any more."""
    (graph,) = model.subgraphs
    model.signatureDefs = model.metadata = model.metadataBuffer = None
    used = {int(i) for i in (*graph.inputs, *graph.outputs)}
    for operator in graph.operators:
        used |= {int(i) for i in (*operator.inputs, *operator.outputs) if i >= 0}
    tensors = _renumber(used)
    graph.tensors = [graph.tensors[i] for i in sorted(used)]
    graph.inputs, graph.outputs = _mapped(graph.inputs, tensors), _mapped(graph.outputs, tensors)
    codes_used = {int(operator.opcodeIndex) for operator in graph.operators}
    codes = _renumber(codes_used)
    model.operatorCodes = [model.operatorCodes[i] for i in sorted(codes_used)]
    for operator in graph.operators:
        operator.inputs = _mapped(operator.inputs, tensors)
        operator.outputs = _mapped(operator.outputs, tensors)
        operator.opcodeIndex = codes(int(operator.opcodeIndex))
    # Buffer 0 is the empty one by convention.
    buffers_used = {0} | {int(tensor.buffer) for tensor in graph.tensors}
    buffers = _renumber(buffers_used)
    model.buffers = [model.buffers[i] for i in sorted(buffers_used)]
    for tensor in graph.tensors:
        tensor.buffer = buffers(int(tensor.buffer))


def _renumber(used: set[int]) -> Callable[[int], int]:
    numbers = {old: new for new, old in enumerate(sorted(used))}
    return lambda old: numbers[old] if old >= 0 else old


def _mapped(indices: Iterable[int], numbers: Callable[[int], int]) -> Any:
    return np.array([numbers(int(i)) for i in indices], np.int32)
