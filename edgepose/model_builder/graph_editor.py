"""Adding operators to the graph of a TFLite file, and removing what nothing reads."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepose.model_builder import tflite_edit
from edgepose.model_builder.tflite_edit import Array

FLOAT, INTEGER = schema.TensorType.FLOAT32, schema.TensorType.INT32


class GraphEditor:
    """Appends operators to the only graph of a `ModelT` object; tensors are known by number."""

    def __init__(self, model: Any) -> None:
        self.model = model
        (self.graph,) = model.subgraphs

    def code_of(self, operator: Any) -> int:
        """Return the builtin code of an operator."""
        return tflite_edit.operator_code(self.model, operator)

    def shape_of(self, tensor: int) -> list[int]:
        """Return the shape of a tensor; a scalar has none."""
        shape = self.graph.tensors[tensor].shape
        return [] if shape is None else [int(side) for side in shape]

    def constant(self, array: Array) -> int:
        """Add a constant of float32 or int32."""
        tensor = self.tensor(array.shape, FLOAT if array.dtype == np.float32 else INTEGER)
        self.graph.tensors[tensor].buffer = len(self.model.buffers)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return tensor

    def integers(self, values: Any) -> int:
        """Add a constant of int32 from a number or nested sequences."""
        return self.constant(np.array(values, np.int32))

    def tensor(self, shape: Sequence[int], kind: int = FLOAT, like: int | None = None) -> int:
        """Add a tensor; with `like`, type and quantization are those of that tensor."""
        tensor = schema.TensorT()
        tensor.shape = np.array(shape, np.int32)
        tensor.type, tensor.name, tensor.buffer = kind, b"", 0
        if like is not None:
            tensor.type = self.graph.tensors[like].type
            tensor.quantization = copy.deepcopy(self.graph.tensors[like].quantization)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def add(self, code: int, inputs: Sequence[int], output: int, options: Any = None) -> int:
        """Append an operator that writes a tensor, and return that tensor.

        `options` are the operator's in the schema.
        """
        operator = schema.OperatorT()
        # INT8 came with the second version of the operators that are used here.
        quantized = self.graph.tensors[output].type == schema.TensorType.INT8
        operator.opcodeIndex = self._code_index(code, 2 if quantized else 1)
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([output], np.int32)
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self.graph.operators.append(operator)
        return output

    def convolution(self, operator: Any, source: int, output: int) -> int:
        """Append a copy of a convolution that reads another tensor, without padding."""
        copied = copy.deepcopy(operator)
        copied.inputs = np.array([source, *operator.inputs[1:]], np.int32)
        copied.outputs = np.array([output], np.int32)
        copied.builtinOptions.padding = schema.Padding.VALID
        self.graph.operators.append(copied)
        return output

    def reshape(self, tensor: int, *shape: int) -> int:
        """Append a reshape."""
        options = schema.ReshapeOptionsT()
        options.newShape = list(shape)
        output = self.tensor(shape, like=tensor)
        return self.add(
            schema.BuiltinOperator.RESHAPE, [tensor, self.integers(shape)], output, options
        )

    def replace_output(self) -> None:
        """Let the last operator write the graph's only output, instead of the one that did."""
        (output,) = map(int, self.graph.outputs)
        *others, last = self.graph.operators
        last.outputs = np.array([output], np.int32)
        kept = [other for other in others if output not in map(int, other.outputs)]
        self.graph.operators = [*kept, last]

    def remove_unused(self) -> None:
        """Remove operators, tensors, constants and operator codes that nothing reads."""
        model, graph = self.model, self.graph
        needed = set(map(int, graph.outputs))
        operators = []
        for operator in reversed(graph.operators):
            if needed.intersection(map(int, operator.outputs)):
                operators.append(operator)
                needed.update(map(int, (*operator.inputs, *operator.outputs)))
        graph.operators = operators[::-1]
        used = sorted(needed.union(map(int, graph.inputs)) - {-1})
        tensors = {-1: -1} | {old: new for new, old in enumerate(used)}
        graph.tensors = [graph.tensors[tensor] for tensor in used]
        for holder in (graph, *graph.operators):
            for side in ("inputs", "outputs"):
                numbers = [tensors[int(tensor)] for tensor in getattr(holder, side)]
                setattr(holder, side, np.array(numbers, np.int32))
        for signature in model.signatureDefs or ():
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = tensors[entry.tensorIndex]
        readers = [*graph.tensors, *(model.metadata or ())]
        kept = sorted({0, *(reader.buffer for reader in readers)})
        buffers = {old: new for new, old in enumerate(kept)}
        model.buffers = [model.buffers[buffer] for buffer in kept]
        for reader in readers:
            reader.buffer = buffers[reader.buffer]
        kept = sorted({operator.opcodeIndex for operator in graph.operators})
        codes = {old: new for new, old in enumerate(kept)}
        model.operatorCodes = [model.operatorCodes[code] for code in kept]
        for operator in graph.operators:
            operator.opcodeIndex = codes[operator.opcodeIndex]

    def _code_index(self, code: int, version: int) -> int:
        for index, known in enumerate(self.model.operatorCodes):
            if (known.builtinCode, known.version) == (code, version):
                return index
        entry = schema.OperatorCodeT()
        # Old runtimes read the deprecated field, a signed byte.
        entry.deprecatedBuiltinCode, entry.builtinCode = min(code, 127), code
        entry.version = version
        self.model.operatorCodes.append(entry)
        return len(self.model.operatorCodes) - 1
