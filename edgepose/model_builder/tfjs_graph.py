"""TensorFlow.js graph models, rewritten so that TensorFlow can import and convert them.

A TensorFlow.js graph model is a JSON list of nodes close to a TensorFlow GraphDef, with the
constants in separate binary files that a weights manifest describes.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Node = dict[str, Any]
Weights = dict[str, NDArray[Any]]

FUSED_OPS = {"_FusedConv2D": "Conv2D", "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative"}
CONV_ATTRIBUTES = ("T", "data_format", "dilations", "explicit_paddings", "padding", "strides")


@dataclass(frozen=True)
class TfjsGraph:
    """A graph in plain Python: nodes as TensorFlow.js writes them, constants as arrays."""

    nodes: Sequence[Node]
    weights: Weights
    input_name: str
    input_dtype: str
    output_names: Sequence[str]


def read_graph(model: Mapping[str, Any], data: bytes) -> TfjsGraph:
    """Return a TensorFlow.js graph model, in operations that can be converted to TFLite.

    `model` is the parsed JSON, `data` the content of the manifest's binary files.
    """
    weights = read_weights(model["weightsManifest"], data)
    nodes = expand(model["modelTopology"]["node"], weights)
    (placeholder,) = (node for node in nodes if node["op"] == "Placeholder")
    if placeholder["attr"]["dtype"]["type"] == "DT_INT32":
        use_uint8_input(nodes, placeholder)
    outputs = {output["name"] for output in model["signature"]["outputs"].values()}
    return TfjsGraph(
        nodes,
        weights,
        placeholder["name"],
        placeholder["attr"]["dtype"]["type"],
        [node["name"] for node in nodes if f"{node['name']}:0" in outputs],
    )


def read_weights(manifest: Sequence[Mapping[str, Any]], data: bytes) -> Weights:
    """Return every constant of the manifest by name, half precision widened to float32."""
    weights: Weights = {}
    offset = 0
    for group in manifest:
        for entry in group["weights"]:
            stored = entry.get("quantization", entry)["dtype"]
            array: NDArray[Any] = np.ndarray(entry["shape"], stored, data, offset)
            weights[entry["name"]] = array.astype(entry["dtype"])
            offset += array.nbytes
    return weights


def expand(nodes: Sequence[Node], weights: Weights) -> list[Node]:
    """Return the nodes with those that TFLite lacks as several others.

    The last of these keeps the name, so consumers stay connected; their constants are added to
    `weights`.
    """
    expanded: list[Node] = []
    for node in nodes:
        if node["op"] in FUSED_OPS:
            expanded += _convolution_chain(node)
        elif node["op"] == "StridedSlice" and _mask(node, "new_axis_mask"):
            expanded += _slice_then_expand(node, weights)
        else:
            expanded.append(node)
    return expanded


def _convolution_chain(node: Node) -> list[Node]:
    """Return a fused convolution as convolution, bias and activation."""
    attributes = {key: node["attr"][key] for key in CONV_ATTRIBUTES if key in node["attr"]}
    source, weights, *biases = node["input"]
    chain = [{"op": FUSED_OPS[node["op"]], "input": [source, weights], "attr": attributes}]
    for encoded in node["attr"]["fused_ops"]["list"]["s"]:
        operation = base64.b64decode(encoded).decode("ascii")
        added = ("T", "data_format") if operation == "BiasAdd" else ("T",)
        previous = f"{node['name']}/{chain[-1]['op']}_{len(chain) - 1}"
        chain[-1]["name"] = previous
        inputs = [previous, *biases] if operation == "BiasAdd" else [previous]
        extra = {key: attributes[key] for key in added}
        chain.append({"op": operation, "input": inputs, "attr": extra})
    chain[-1]["name"] = node["name"]
    return chain


def _slice_then_expand(node: Node, weights: Weights) -> list[Node]:
    """Return a slice that adds axes as one that does not, then `ExpandDims`.

    TFLite has no slice that adds an axis to a tensor of open shape.
    """
    name, added = node["name"], _mask(node, "new_axis_mask")
    source, *bounds = node["input"]
    axes = range(len(weights[bounds[0]]))
    kept = [axis for axis in axes if not added >> axis & 1]
    nodes: list[Node] = []
    masks = {
        mask: sum((_mask(node, mask) >> axis & 1) << place for place, axis in enumerate(kept))
        for mask in ("begin_mask", "end_mask", "new_axis_mask")
    }
    if masks["begin_mask"] & masks["end_mask"] != (1 << len(kept)) - 1:
        inputs = [source]
        for bound in bounds:
            constant = f"{name}/{bound.split('/')[-1]}_kept"
            weights[constant] = weights[bound][kept]
            nodes.append({"name": constant, "op": "Const"})
            inputs.append(constant)
        source = f"{name}/slice"
        attributes = node["attr"] | {mask: {"i": str(bits)} for mask, bits in masks.items()}
        nodes.append({"name": source, "op": node["op"], "input": inputs, "attr": attributes})
    attributes = {"T": node["attr"]["T"], "Tdim": {"type": "DT_INT32"}}
    for axis in sorted(set(axes).difference(kept)):
        constant = f"{name}/dim_{axis}"
        weights[constant] = np.array(axis, np.int32)
        nodes.append({"name": constant, "op": "Const"})
        inputs = [source, constant]
        source = f"{name}/axis_{axis}"
        nodes.append({"name": source, "op": "ExpandDims", "input": inputs, "attr": attributes})
    nodes[-1]["name"] = name
    return nodes


def _mask(node: Node, name: str) -> int:
    return int(node["attr"][name]["i"])


def use_uint8_input(nodes: Sequence[Node], placeholder: Node) -> None:
    """Change an int32 input to uint8, in place.

    Pixels are 0..255 either way; bytes are what cameras and resizing deliver, and a quarter of the
    memory.
    """
    uint8 = {"type": "DT_UINT8"}
    placeholder["attr"]["dtype"] = uint8
    for node in nodes:
        if placeholder["name"] in node.get("input", ()):
            node["attr"]["SrcT" if node["op"] == "Cast" else "T"] = uint8
