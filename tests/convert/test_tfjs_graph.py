"""Reading TensorFlow.js graph models: constants, fused nodes, inputs, slices."""

import base64
from typing import Any

import numpy as np
import pytest

from edgepose.errors import ConversionError
from edgepose.model_builder import tfjs_graph
from edgepose.model_builder.tfjs_graph import Node, TfjsGraph

FLOAT: dict[str, Any] = {"type": "DT_FLOAT"}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def manifest(*entries: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"paths": ["weights.bin"], "weights": list(entries)}]


def fused_convolution(*operations: str) -> Node:
    return {
        "name": "conv",
        "op": "_FusedConv2D",
        "input": ["image", "weights", "bias"],
        "attr": {
            "T": FLOAT,
            "data_format": {"s": encoded("NHWC")},
            "fused_ops": {"list": {"s": [encoded(operation) for operation in operations]}},
            "num_args": {"i": "1"},
            "epsilon": {"f": 0},
        },
    }


def graph(*nodes: Node, weights: dict[str, Any] | None = None) -> TfjsGraph:
    return TfjsGraph(nodes, weights or {}, "input", ("output",))


def test_tfjs_weights_half_precision() -> None:
    first, second = np.array([0.5, -2.0], "<f2"), np.array([[7, 8, 9]], "<i4")
    weights = tfjs_graph.read_weights(
        manifest(
            {"name": "a", "shape": [2], "dtype": "float32", "quantization": {"dtype": "float16"}},
            {"name": "b", "shape": [1, 3], "dtype": "int32"},
        ),
        first.tobytes() + second.tobytes(),
    )
    assert weights["a"].dtype == np.float32
    assert weights["a"].tolist() == [0.5, -2.0]
    assert weights["b"].tolist() == [[7, 8, 9]]


@pytest.mark.parametrize(("size", "text"), [(7, "data ends at byte 7"), (9, "byte 8 of 9")])
def test_tfjs_weights_wrong_length(size: int, text: str) -> None:
    entry = {"name": "a", "shape": [2], "dtype": "float32"}
    with pytest.raises(ConversionError, match=text):
        tfjs_graph.read_weights(manifest(entry), bytes(size))


def test_tfjs_weights_unknown_quantization() -> None:
    entry = {"name": "a", "shape": [2], "dtype": "float32", "quantization": {"dtype": "uint8"}}
    with pytest.raises(ConversionError, match="stored as uint8"):
        tfjs_graph.read_weights(manifest(entry), bytes(2))


def test_tfjs_graph_fused_convolution_becomes_chain() -> None:
    """The last node keeps the name of the fused one."""
    chain = tfjs_graph.expand_fused([fused_convolution("BiasAdd", "Relu6")])
    assert [node["op"] for node in chain] == ["Conv2D", "BiasAdd", "Relu6"]
    assert chain[-1]["name"] == "conv"
    assert chain[0]["input"] == ["image", "weights"]
    assert chain[1]["input"] == [chain[0]["name"], "bias"]
    assert chain[2]["input"] == [chain[1]["name"]]
    assert not {"fused_ops", "num_args", "epsilon"} & set(chain[0]["attr"])


def test_tfjs_graph_unknown_fused_operation() -> None:
    with pytest.raises(ConversionError, match="Prelu"):
        tfjs_graph.expand_fused([fused_convolution("BiasAdd", "Prelu")])


def test_tfjs_graph_other_files() -> None:
    with pytest.raises(ConversionError, match="layers-model"):
        tfjs_graph.read_graph({"format": "layers-model"}, b"")


def input_nodes() -> tuple[Node, Node]:
    return (
        {"name": "input", "op": "Placeholder", "attr": {"dtype": {"type": "DT_INT32"}}},
        {"name": "cast", "op": "Cast", "input": ["input"], "attr": {"SrcT": {"type": "DT_INT32"}}},
    )


def test_use_uint8_input_leaves_original_graph_unchanged() -> None:
    original = graph(*input_nodes())
    changed = tfjs_graph.use_uint8_input(original)
    assert changed.input_dtype == "DT_UINT8"
    assert changed.nodes[1]["attr"]["SrcT"] == {"type": "DT_UINT8"}
    assert original.input_dtype == "DT_INT32"


def test_use_uint8_input_without_cast() -> None:
    add: Node = {"name": "add", "op": "AddV2", "input": ["input", "input"], "attr": {}}
    with pytest.raises(ConversionError, match="AddV2"):
        tfjs_graph.use_uint8_input(graph(*input_nodes(), add))


def slice_node(new_axis: int, begin: int, end: int, shrink: int = 0) -> Node:
    masks = {
        "new_axis_mask": new_axis,
        "begin_mask": begin,
        "end_mask": end,
        "shrink_axis_mask": shrink,
        "ellipsis_mask": 0,
    }
    attributes: dict[str, Any] = {name: {"i": str(value)} for name, value in masks.items()}
    return {
        "name": "cut",
        "op": "StridedSlice",
        "input": ["x", "cut/stack", "cut/stack_1", "cut/stack_2"],
        "attr": {"T": FLOAT, **attributes},
    }


def bounds(length: int) -> dict[str, Any]:
    return {
        "cut/stack": np.zeros(length, np.int32),
        "cut/stack_1": np.arange(1, length + 1, dtype=np.int32),
        "cut/stack_2": np.ones(length, np.int32),
    }


def test_tfjs_graph_slice_with_new_axes_becomes_expand_dims() -> None:
    """x[:, :, newaxis, newaxis] has no slice left, and the last node keeps the name."""
    changed = tfjs_graph.new_axes_by_expand_dims(
        graph(slice_node(0b1100, 0b0011, 0b0011), weights=bounds(4))
    )
    steps = [node for node in changed.nodes if node["op"] != "Const"]
    assert [node["op"] for node in steps] == ["ExpandDims", "ExpandDims"]
    assert [int(changed.weights[node["input"][1]]) for node in steps] == [2, 3]
    assert steps[0]["input"][0] == "x"
    assert steps[1]["input"][0] == steps[0]["name"]
    assert steps[1]["name"] == "cut"


def test_tfjs_graph_slice_with_range_and_new_axis() -> None:
    """x[:, newaxis, :3] is x[:, :3], then the axis."""
    changed = tfjs_graph.new_axes_by_expand_dims(
        graph(slice_node(0b010, 0b101, 0b001), weights=bounds(3))
    )
    cut, expand = (node for node in changed.nodes if node["op"] != "Const")
    assert cut["op"] == "StridedSlice"
    assert cut["attr"]["new_axis_mask"] == {"i": "0"}
    assert cut["attr"]["begin_mask"] == {"i": str(0b11)}
    assert cut["attr"]["end_mask"] == {"i": str(0b01)}
    assert changed.weights[cut["input"][2]].tolist() == [1, 3]
    assert expand["name"] == "cut"
    assert int(changed.weights[expand["input"][1]]) == 1


def test_tfjs_graph_slice_that_drops_axes() -> None:
    with pytest.raises(ConversionError, match="drops"):
        tfjs_graph.new_axes_by_expand_dims(
            graph(slice_node(0b01, 0b10, 0b10, shrink=0b10), weights=bounds(2))
        )
