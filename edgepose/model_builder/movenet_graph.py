"""The graph of a single-pose MoveNet with less work and the same outputs, bit for bit.

The published graph computes two of its four heads everywhere on the feature map: the way from the
body's centre to each keypoint, of which it reads one place, and the offset of each keypoint, of
which it reads 17. Here the 3x3 surroundings of those places are gathered first. Squared distances
are computed for each axis, then added, and each keypoint's values are contiguous for its argmax.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepose.errors import ConversionError
from edgepose.model_builder import tflite_edit
from edgepose.model_builder.graph_editor import INTEGER, GraphEditor
from edgepose.model_builder.row_strips import cut_into_strips
from edgepose.registry.tflite_file import read_model, write_model
from edgepose.skeleton import KEYPOINT_NAMES

KEYPOINTS = len(KEYPOINT_NAMES)
REGRESSION, OFFSET = "kpt_regress_0/", "kpt_offset_0/"
CODES = schema.BuiltinOperator


def with_less_work(data: bytes, strips: int) -> bytes:
    """Return an INT8 file, whose heads are in float, with a simpler graph.

    `strips` is the number of parts in which the first block runs. Raises ConversionError if the
    graph is not built as the published ones are.
    """
    editor = GraphEditor(read_model(data))
    _scale_by_one_factor(editor)
    if strips > 1:
        cut_into_strips(editor, strips)
    _Decoder(editor).replace()
    editor.remove_unused()
    return write_model(editor.model)


def _scale_by_one_factor(editor: GraphEditor) -> None:
    """Scale the input by a scalar; three equal factors, one a channel, took 14 times as long."""
    cast, unpack, scaling = editor.graph.operators[:3]
    codes = [editor.code_of(operator) for operator in (cast, unpack, scaling)]
    factors = tflite_edit.constant(editor.model, int(scaling.inputs[1]))
    if codes != [CODES.CAST, CODES.UNPACK, CODES.MUL] or np.ptp(factors) != 0:
        raise ConversionError("expected an input that is cast, unpacked and scaled by one factor")
    factor = editor.constant(factors.reshape(-1)[0].reshape(()))
    scaling.inputs = np.array([cast.outputs[0], factor], np.int32)


class _Decoder:
    """Appends the part of the graph from the feature map to the keypoints.

    A place is an index into the map of `side` x `side`, row by row.
    """

    def __init__(self, editor: GraphEditor) -> None:
        self.editor = editor
        self.heads = {name: self._layers_of(name) for name in (REGRESSION, OFFSET)}
        features = int(self.heads[REGRESSION][0].inputs[0])
        _, self.side, _, self.channels = editor.shape_of(features)
        side = self.side + 2
        border = editor.integers([[0, 0], [1, 1], [1, 1], [0, 0]])
        output = editor.tensor([1, side, side, self.channels])
        padded = editor.add(CODES.PAD, [features, border], output, schema.PadOptionsT())
        self.rows = editor.reshape(padded, side * side, self.channels)

    def replace(self) -> None:
        """Append the new part, which takes the place of the old one."""
        editor, side = self.editor, self.side
        center = self._first(CODES.ARG_MAX, [1, 1])
        heatmap = self._first(CODES.LOGISTIC, [1, side, side, KEYPOINTS])
        nearest, scale = self._operand(CODES.ADD, 1), self._operand(CODES.MUL, 2)
        by_place = editor.reshape(heatmap, side * side, KEYPOINTS)
        by_keypoint = self._transpose(by_place, KEYPOINTS, side * side)

        position, around = self._surroundings(center)
        ways = editor.reshape(self._head(REGRESSION, around), KEYPOINTS, 2)
        expected = self._binary(CODES.ADD, ways, position)
        best = self._best_places(by_keypoint, expected, nearest)
        position, around = self._surroundings(editor.reshape(best, KEYPOINTS, 1))
        offsets = self._own_offsets(self._head(OFFSET, around))
        factors = editor.reshape(scale, 1, 2)
        keypoints = self._binary(CODES.MUL, self._binary(CODES.ADD, position, offsets), factors)
        firsts = editor.integers(np.arange(KEYPOINTS) * side * side)
        values = editor.reshape(by_keypoint, KEYPOINTS * side * side)
        scores = self._gather(values, self._binary(CODES.ADD, best, firsts))
        joined = self._join(keypoints, editor.reshape(scores, KEYPOINTS, 1))
        editor.reshape(joined, 1, 1, KEYPOINTS, 3)
        editor.replace_output()

    def _layers_of(self, head: str) -> list[Any]:
        """Return the three convolutions of a head, depthwise first."""
        graph = self.editor.graph
        found = [
            graph.operators[layer.operator]
            for layer in tflite_edit.convolutions(self.editor.model)
            if graph.tensors[layer.output].name.decode("utf-8").startswith(head)
        ]
        if len(found) != 3:
            raise ConversionError(f"expected three convolutions in {head}, got {len(found)}")
        return found

    def _first(self, code: int, shape: list[int]) -> int:
        """Return the first output of this kind of operator that has this shape."""
        for operator in self.editor.graph.operators:
            output = int(operator.outputs[0])
            if self.editor.code_of(operator) == code and self.editor.shape_of(output) == shape:
                return output
        raise ConversionError(f"expected an operator {code} with an output of shape {shape}")

    def _operand(self, code: int, size: int) -> int:
        """Return the last constant of this many floats that this kind of operator reads."""
        model, graph = self.editor.model, self.editor.graph
        for operator in reversed(graph.operators):
            if self.editor.code_of(operator) == code:
                operand = int(operator.inputs[1])
                data = model.buffers[graph.tensors[operand].buffer].data
                if data is not None and len(data) == 4 * size:
                    return operand
        raise ConversionError(f"expected an operator {code} with {size} constants")

    def _surroundings(self, places: int) -> tuple[int, int]:
        """Append (y, x) of places (n, 1) as floats (n, 2), and features (n, 3, 3, channels)."""
        editor = self.editor
        count, _ = editor.shape_of(places)
        side = editor.integers(self.side)
        y = self._binary(CODES.FLOOR_DIV, places, side)
        x = self._binary(CODES.SUB, places, self._binary(CODES.MUL, y, side))
        options = schema.CastOptionsT()
        options.inDataType, options.outDataType = INTEGER, schema.TensorType.FLOAT32
        position = editor.add(CODES.CAST, [self._join(y, x)], editor.tensor([count, 2]), options)
        # A padded row is two places longer.
        shift = self._binary(CODES.MUL, y, editor.integers(2))
        corner = self._binary(CODES.ADD, places, shift)
        steps = np.arange(3)[:, None] * (self.side + 2) + np.arange(3)
        nine = self._binary(CODES.ADD, corner, editor.integers(steps.reshape(1, 9)))
        around = self._gather(self.rows, nine)
        return position, editor.reshape(around, count, 3, 3, self.channels)

    def _head(self, name: str, value: int) -> int:
        editor = self.editor
        count = editor.shape_of(value)[0]
        for operator in self.heads[name]:
            channels = editor.shape_of(int(operator.outputs[0]))[3]
            value = editor.convolution(operator, value, editor.tensor([count, 1, 1, channels]))
        return value

    def _best_places(self, heatmap: int, expected: int, nearest: int) -> int:
        """Append the place of each keypoint's largest score over distance plus `nearest`."""
        editor, side = self.editor, self.side
        columns = self._transpose(expected, 2, KEYPOINTS)
        axis = editor.constant(np.arange(side, dtype=np.float32)[None])
        parts = []
        for row, shape in enumerate(((side, 1), (1, side))):
            line = self._gather(columns, editor.integers([row]))
            line = editor.reshape(line, KEYPOINTS, 1)
            squares = self._binary(CODES.SQUARED_DIFFERENCE, line, axis)
            parts.append(editor.reshape(squares, KEYPOINTS, *shape))
        squares = self._binary(CODES.ADD, *parts)
        distances = editor.add(CODES.SQRT, [squares], editor.tensor([KEYPOINTS, side, side]))
        divisors = self._binary(CODES.ADD, distances, nearest)
        maps = editor.reshape(heatmap, KEYPOINTS, side, side)
        weighted = editor.reshape(self._binary(CODES.DIV, maps, divisors), KEYPOINTS, side * side)
        options = schema.ArgMaxOptionsT()
        options.outputType = INTEGER
        output = editor.tensor([KEYPOINTS], INTEGER)
        return editor.add(CODES.ARG_MAX, [weighted, editor.integers(1)], output, options)

    def _own_offsets(self, offsets: int) -> int:
        """Append each keypoint's own pair (n, 2) of the offsets of all keypoints at its place."""
        flat = self.editor.reshape(offsets, KEYPOINTS * KEYPOINTS * 2)
        first = np.arange(KEYPOINTS)[:, None] * (KEYPOINTS + 1) * 2
        return self._gather(flat, self.editor.integers(first + np.arange(2)))

    def _transpose(self, value: int, rows: int, columns: int) -> int:
        order, output = self.editor.integers([1, 0]), self.editor.tensor([rows, columns])
        return self.editor.add(CODES.TRANSPOSE, [value, order], output, schema.TransposeOptionsT())

    def _gather(self, values: int, indices: int) -> int:
        shape = self.editor.shape_of(indices) + self.editor.shape_of(values)[1:]
        options = schema.GatherOptionsT()
        return self.editor.add(CODES.GATHER, [values, indices], self.editor.tensor(shape), options)

    def _join(self, left: int, right: int) -> int:
        """Append two tensors of the same rows side by side."""
        rows, columns = self.editor.shape_of(left)
        shape = [rows, columns + self.editor.shape_of(right)[1]]
        options = schema.ConcatenationOptionsT()
        options.axis = 1
        output = self.editor.tensor(shape, like=left)
        return self.editor.add(CODES.CONCATENATION, [left, right], output, options)

    def _binary(self, code: int, left: int, right: int) -> int:
        """Append an operator with two operands, of which one may be broadcast."""
        kinds = {
            CODES.ADD: schema.AddOptionsT,
            CODES.SUB: schema.SubOptionsT,
            CODES.MUL: schema.MulOptionsT,
            CODES.DIV: schema.DivOptionsT,
            CODES.FLOOR_DIV: schema.FloorDivOptionsT,
            CODES.SQUARED_DIFFERENCE: schema.SquaredDifferenceOptionsT,
        }
        shapes = self.editor.shape_of(left), self.editor.shape_of(right)
        output = self.editor.tensor(np.broadcast_shapes(*map(tuple, shapes)), like=left)
        return self.editor.add(code, [left, right], output, kinds[code]())
