"""TensorFlow.js graph models read as TensorFlow graphs.

A TensorFlow.js graph model is a JSON list of nodes close to a TensorFlow GraphDef, with the
constants in separate binary files that a weights manifest describes. Reading the constants and
rewriting the nodes is plain Python and NumPy; only `graph_def` needs TensorFlow.
"""

from __future__ import annotations

import base64
import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepose.errors import ConversionError

Node = dict[str, Any]
Weights = dict[str, npt.NDArray[Any]]

STORED_DTYPES: Mapping[str, str] = {
    "float32": "<f4",
    "float16": "<f2",
    "int32": "<i4",
    "uint8": "|u1",
    "bool": "|b1",
}

FUSED_OPS: Mapping[str, str] = {
    "_FusedConv2D": "Conv2D",
    "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative",
}

# Attributes that only the fused forms have: TensorFlow refuses them on the plain convolutions.
FUSED_ONLY_ATTRIBUTES = (
    "fused_ops",
    "num_args",
    "epsilon",
    "leakyrelu_alpha",
    "TArgs",
    "num_host_args",
    "host_args",
    "use_cudnn_on_gpu",
    "filter_format",
)

SLICE_MASKS = ("begin_mask", "end_mask")

ACTIVATIONS = ("Relu", "Relu6", "Elu")


@dataclass(frozen=True)
class TfjsGraph:
    """A graph in plain Python: nodes as TensorFlow.js writes them, constants as arrays."""

    nodes: tuple[Node, ...]
    weights: Weights
    input_name: str
    output_names: tuple[str, ...]

    @property
    def input_dtype(self) -> str:
        """The input's type as TensorFlow names it, such as DT_UINT8."""
        placeholder = next(node for node in self.nodes if node["name"] == self.input_name)
        return str(placeholder["attr"]["dtype"]["type"])


def read_graph(model: Mapping[str, Any], data: bytes) -> TfjsGraph:
    """Return the graph of a TensorFlow.js graph model, its fused operations expanded.

    `model` is the parsed JSON and `data` the manifest's binary files one after the other.
    Raises ConversionError when a part is missing, or the data does not fit the manifest.
    """
    if model.get("format") != "graph-model":
        raise ConversionError(
            f"expected a TensorFlow.js graph model, got format {model.get('format')!r}"
        )
    weights = read_weights(model["weightsManifest"], data)
    nodes = expand_fused(model["modelTopology"]["node"])
    inputs = [node["name"] for node in nodes if node["op"] == "Placeholder"]
    if len(inputs) != 1:
        raise ConversionError(f"expected one input in the graph, found {inputs}")
    consumed = {_producer(name) for node in nodes for name in node.get("input", ())}
    outputs = tuple(node["name"] for node in nodes if node["name"] not in consumed)
    return TfjsGraph(tuple(nodes), weights, inputs[0], outputs)


def read_weights(manifest: Sequence[Mapping[str, Any]], data: bytes) -> Weights:
    """Return every constant of the manifest by name, half precision widened to float32.

    Raises ConversionError for a type or packing that is not known, and when `data` is shorter or
    longer than the manifest says.
    """
    weights: Weights = {}
    offset = 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        name, shape, dtype = entry["name"], tuple(entry["shape"]), entry["dtype"]
        packing = entry.get("quantization", {})
        stored = packing.get("dtype", dtype)
        if stored not in STORED_DTYPES or (packing and stored != "float16"):
            raise ConversionError(f"weight {name}: cannot read {dtype} stored as {stored}")
        layout = np.dtype(STORED_DTYPES[stored])
        count = math.prod(shape)
        end = offset + count * layout.itemsize
        if end > len(data):
            raise ConversionError(
                f"weight {name}: data ends at byte {len(data)}, the manifest needs {end}"
            )
        array = np.frombuffer(data, layout, count, offset).reshape(shape)
        weights[name] = array.astype(dtype)
        offset = end
    if offset != len(data):
        raise ConversionError(f"weights end at byte {offset} of {len(data)}: wrong data file")
    return weights


def expand_fused(nodes: Iterable[Node]) -> list[Node]:
    """Return the nodes with every fused convolution as convolution, bias and activation.

    The last operation of each chain keeps the fused node's name, so consumers stay connected.
    Raises ConversionError for a fused operation that is not known.
    """
    expanded: list[Node] = []
    for node in nodes:
        if node["op"] in FUSED_OPS:
            expanded.extend(_expand_one(node))
        else:
            expanded.append(copy.deepcopy(node))
    return expanded


def _expand_one(node: Node) -> list[Node]:
    name, attributes = node["name"], copy.deepcopy(node["attr"])
    fused = [_text(item) for item in attributes["fused_ops"]["list"].get("s", ())]
    for attribute in FUSED_ONLY_ATTRIBUTES:
        attributes.pop(attribute, None)
    data_type = attributes["T"]
    arguments = list(node["input"])
    chain: list[Node] = [
        {"name": name, "op": FUSED_OPS[node["op"]], "input": arguments[:2], "attr": attributes}
    ]
    rest = arguments[2:]
    for operation in fused:
        inputs = [chain[-1]["name"]]
        if operation == "BiasAdd":
            inputs.append(rest.pop(0))
            extra = {"T": data_type, "data_format": attributes["data_format"]}
        elif operation in ACTIVATIONS:
            extra = {"T": data_type}
        else:
            raise ConversionError(f"node {name}: fused operation {operation} is not known")
        chain.append({"name": name, "op": operation, "input": inputs, "attr": extra})
    for position, part in enumerate(chain[:-1]):
        part["name"] = f"{name}/{part['op']}_{position}"
        chain[position + 1]["input"][0] = part["name"]
    return chain


def new_axes_by_expand_dims(graph: TfjsGraph) -> TfjsGraph:
    """Return the graph with slices that add axes as slices that do not, then `ExpandDims`.

    TFLite has no slice that adds an axis to a tensor of open shape. Raises ConversionError for a
    slice that also drops axes.
    """
    nodes: list[Node] = []
    weights = dict(graph.weights)
    for node in copy.deepcopy(graph.nodes):
        if node["op"] == "StridedSlice" and _mask(node, "new_axis_mask"):
            nodes.extend(_slice_then_expand(node, weights))
        else:
            nodes.append(node)
    return TfjsGraph(tuple(nodes), weights, graph.input_name, graph.output_names)


def _slice_then_expand(node: Node, weights: Weights) -> list[Node]:
    name, added = node["name"], _mask(node, "new_axis_mask")
    if _mask(node, "shrink_axis_mask") or _mask(node, "ellipsis_mask"):
        raise ConversionError(f"node {name}: a slice that adds axes and drops others")
    source, *bounds = node["input"]
    length = int(weights[bounds[0]].size)
    axes = [axis for axis in range(length) if added >> axis & 1]
    kept = [axis for axis in range(length) if axis not in axes]
    replaced: list[Node] = []
    if any(not _mask(node, mask) >> axis & 1 for mask in SLICE_MASKS for axis in kept):
        attributes = copy.deepcopy(node["attr"])
        attributes["new_axis_mask"] = {"i": "0"}
        for mask in SLICE_MASKS:
            bits = sum((_mask(node, mask) >> axis & 1) << place for place, axis in enumerate(kept))
            attributes[mask] = {"i": str(bits)}
        inputs = [source]
        for bound in bounds:
            constant = f"{name}/{bound.split('/')[-1]}_kept"
            replaced.append(_integer_constant(constant))
            weights[constant] = weights[bound][kept]
            inputs.append(constant)
        source = f"{name}/slice"
        replaced.append({"name": source, "op": node["op"], "input": inputs, "attr": attributes})
    for axis in axes:
        target = name if axis == axes[-1] else f"{name}/axis_{axis}"
        constant = f"{name}/dim_{axis}"
        weights[constant] = np.array(axis, np.int32)
        attributes = {"T": node["attr"]["T"], "Tdim": {"type": "DT_INT32"}}
        replaced.append(_integer_constant(constant))
        replaced.append(
            {"name": target, "op": "ExpandDims", "input": [source, constant], "attr": attributes}
        )
        source = target
    return replaced


def _integer_constant(name: str) -> Node:
    return {"name": name, "op": "Const", "attr": {"dtype": {"type": "DT_INT32"}}}


def _mask(node: Node, name: str) -> int:
    return int(node.get("attr", {}).get(name, {}).get("i", 0))


def use_uint8_input(graph: TfjsGraph) -> TfjsGraph:
    """Return the graph with an input of bytes where it had int32.

    Pixels are 0..255 either way; bytes are what cameras and resizing give, and a quarter of the
    memory. Raises ConversionError when the input does not go through one cast only.
    """
    nodes = copy.deepcopy(graph.nodes)
    readers = [n for n in nodes if graph.input_name in map(_producer, n.get("input", ()))]
    casts = [node for node in readers if node["op"] == "Cast"]
    shapes = [node for node in readers if node["op"] == "Shape"]
    if len(casts) != 1 or len(casts) + len(shapes) != len(readers):
        raise ConversionError(
            f"input {graph.input_name} is read by {[n['op'] for n in readers]}, expected one Cast"
        )
    placeholder = next(node for node in nodes if node["name"] == graph.input_name)
    placeholder["attr"]["dtype"] = {"type": "DT_UINT8"}
    casts[0]["attr"]["SrcT"] = {"type": "DT_UINT8"}
    for shape in shapes:
        shape["attr"]["T"] = {"type": "DT_UINT8"}
    return TfjsGraph(nodes, graph.weights, graph.input_name, graph.output_names)


def set_input_shape(graph: TfjsGraph, shape: Sequence[int]) -> TfjsGraph:
    """Return the graph with another input shape, -1 for a side that is open."""
    nodes = copy.deepcopy(graph.nodes)
    placeholder = next(node for node in nodes if node["name"] == graph.input_name)
    dimensions = [{"size": str(side)} for side in shape]
    placeholder["attr"]["shape"] = {"shape": {"dim": dimensions}}
    return TfjsGraph(nodes, graph.weights, graph.input_name, graph.output_names)


def graph_def(graph: TfjsGraph) -> Any:
    """Return the graph as a TensorFlow `GraphDef` with its constants inside."""
    import tensorflow as tf
    from google.protobuf import json_format  # type: ignore[import-untyped]

    definition = tf.compat.v1.GraphDef()
    for node in graph.nodes:
        target = definition.node.add()
        if node["op"] == "Const":
            array = graph.weights[node["name"]]
            target.name, target.op = node["name"], "Const"
            target.attr["dtype"].type = tf.as_dtype(array.dtype).as_datatype_enum
            target.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array, shape=array.shape))
        else:
            json_format.ParseDict({**node, "device": ""}, target)
    return definition


def concrete_function(graph: TfjsGraph) -> Any:
    """Return the graph as a TensorFlow concrete function of its one input."""
    import tensorflow as tf

    def run() -> None:
        tf.graph_util.import_graph_def(graph_def(graph), name="")

    wrapped = tf.compat.v1.wrap_function(run, [])
    return wrapped.prune(f"{graph.input_name}:0", [f"{name}:0" for name in graph.output_names])


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode("ascii")


def _producer(input_name: str) -> str:
    return input_name.removeprefix("^").split(":")[0]
