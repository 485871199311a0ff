"""TensorFlow.js graph models: constants, fused nodes, inputs, slices."""

import base64
from typing import Any

import numpy as np

from edgepose.model_builder import tfjs_graph
from edgepose.model_builder.tfjs_graph import Node

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


def test_read_weights_half_precision() -> None:
    """Half precision is widened; constants follow each other."""
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


def test_expand_fused_convolution() -> None:
    """A fused convolution becomes a chain that ends in its name."""
    chain = tfjs_graph.expand([fused_convolution("BiasAdd", "Relu6")], {})
    assert [node["op"] for node in chain] == ["Conv2D", "BiasAdd", "Relu6"]
    assert chain[-1]["name"] == "conv"
    assert chain[0]["input"] == ["image", "weights"]
    assert chain[1]["input"] == [chain[0]["name"], "bias"]
    assert chain[2]["input"] == [chain[1]["name"]]
    assert not {"fused_ops", "num_args", "epsilon"} & set(chain[0]["attr"])


def test_use_uint8_input() -> None:
    """The input and the cast that reads it take bytes."""
    placeholder: Node = {
        "name": "input",
        "op": "Placeholder",
        "attr": {"dtype": {"type": "DT_INT32"}},
    }
    cast: Node = {
        "name": "cast",
        "op": "Cast",
        "input": ["input"],
        "attr": {"SrcT": {"type": "DT_INT32"}},
    }
    tfjs_graph.use_uint8_input([placeholder, cast], placeholder)
    assert placeholder["attr"]["dtype"] == {"type": "DT_UINT8"}
    assert cast["attr"]["SrcT"] == {"type": "DT_UINT8"}


def slice_node(new_axis: int, begin: int, end: int) -> Node:
    masks = {"new_axis_mask": new_axis, "begin_mask": begin, "end_mask": end}
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


def test_expand_new_axes_only() -> None:
    """x[:, :, newaxis, newaxis] has no slice left, and the last node keeps the name."""
    weights = bounds(4)
    nodes = tfjs_graph.expand([slice_node(0b1100, 0b0011, 0b0011)], weights)
    steps = [node for node in nodes if node["op"] != "Const"]
    assert [node["op"] for node in steps] == ["ExpandDims", "ExpandDims"]
    assert [int(weights[node["input"][1]]) for node in steps] == [2, 3]
    assert steps[0]["input"][0] == "x"
    assert steps[1]["input"][0] == steps[0]["name"]
    assert steps[1]["name"] == "cut"


def test_expand_new_axes_and_slice() -> None:
    """x[:, newaxis, :3] is x[:, :3], then the axis."""
    weights = bounds(3)
    nodes = tfjs_graph.expand([slice_node(0b010, 0b101, 0b001)], weights)
    cut, expand = (node for node in nodes if node["op"] != "Const")
    assert cut["op"] == "StridedSlice"
    assert cut["attr"]["new_axis_mask"] == {"i": "0"}
    assert cut["attr"]["begin_mask"] == {"i": str(0b11)}
    assert cut["attr"]["end_mask"] == {"i": str(0b01)}
    assert weights[cut["input"][2]].tolist() == [1, 3]
    assert expand["name"] == "cut"
    assert int(weights[expand["input"][1]]) == 1
