"""Running the first layers of a graph in strips of rows, whose values stay in the cache.

In Thunder's first block a feature map has 3.7 MB, more than the L2 cache of most processors. One
strip after the other goes through all layers up to the first INT8 tensor; the values are the same.
"""

import copy
from itertools import pairwise
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepose.errors import ConversionError
from edgepose.model_builder.graph_editor import GraphEditor

CODES = schema.BuiltinOperator
CONVOLUTIONS = {CODES.CONV_2D, CODES.DEPTHWISE_CONV_2D}


def cut_into_strips(editor: GraphEditor, count: int) -> None:
    """Replace the layers before the first INT8 tensor by `count` strips and a concatenation.

    Raises ConversionError if they are not convolutions in a row.
    """
    operators = editor.graph.operators
    codes = [editor.code_of(operator) for operator in operators]
    first = codes.index(CODES.CONV_2D)
    end = codes.index(CODES.QUANTIZE, first)
    if not CONVOLUTIONS.issuperset(codes[first:end]):
        raise ConversionError("expected nothing but convolutions before the first INT8 tensor")
    layers, after = operators[first : end + 1], operators[end + 1 :]
    output = int(layers[-1].outputs[0])
    del operators[first:]
    rows = editor.shape_of(output)[1]
    edges = [rows * part // count for part in range(count + 1)]
    strips = [_strip(editor, layers, top, bottom) for top, bottom in pairwise(edges)]
    options = schema.ConcatenationOptionsT()
    options.axis = 1
    editor.add(CODES.CONCATENATION, strips, output, options)
    operators.extend(after)


def _strip(editor: GraphEditor, layers: list[Any], top: int, bottom: int) -> int:
    """Append the layers for output rows from `top` to before `bottom`, and return the output."""
    plan = []
    for layer in reversed(layers):
        source = int(layer.inputs[0])
        height = editor.shape_of(source)[1]
        rows = bottom - top
        before, after, stride, kernel = _padding(editor, layer)
        top, bottom = top * stride - before, (bottom - 1) * stride - before + kernel
        padding = [[max(0, -top), max(0, bottom - height)], [before, after]]
        top, bottom = max(0, top), min(bottom, height)
        plan.append((layer, rows, padding))
    source = int(layers[0].inputs[0])
    _, _, width, channels = editor.shape_of(source)
    shape = [1, bottom - top, width, channels]
    part = editor.add(
        CODES.SLICE,
        [source, editor.integers([0, top, 0, 0]), editor.integers(shape)],
        editor.tensor(shape, like=source),
        schema.SliceOptionsT(),
    )
    for layer, rows, padding in reversed(plan):
        if np.any(padding):
            # XNNPACK makes it a part of the convolution.
            sides = [[0, 0], *padding, [0, 0]]
            shape = (np.array(editor.shape_of(part)) + np.sum(sides, axis=1)).tolist()
            output = editor.tensor(shape, like=part)
            part = editor.add(
                CODES.PAD, [part, editor.integers(sides)], output, schema.PadOptionsT()
            )
        target = int(layer.outputs[0])
        _, _, *rest = editor.shape_of(target)
        output = editor.tensor([1, rows, *rest], like=target)
        if editor.code_of(layer) == CODES.QUANTIZE:
            copied = copy.deepcopy(layer)
            copied.inputs = np.array([part], np.int32)
            copied.outputs = np.array([output], np.int32)
            editor.graph.operators.append(copied)
            part = output
        else:
            part = editor.convolution(layer, part, output)
    return part


def _padding(editor: GraphEditor, layer: Any) -> tuple[int, int, int, int]:
    """Return padding before and after each axis of a square map, stride and kernel side."""
    if editor.code_of(layer) == CODES.QUANTIZE:
        return 0, 0, 1, 1
    kernel = editor.shape_of(int(layer.inputs[1]))[1]
    stride = int(layer.builtinOptions.strideH)
    side = editor.shape_of(int(layer.inputs[0]))[1]
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2, stride, kernel
