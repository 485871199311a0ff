"""Conversion of the published graphs to float TFLite files, with TensorFlow."""

from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format  # type: ignore[import-untyped]
from tensorflow.lite.python import util

from edgepose.inference.runtime import redirect_native_stderr
from edgepose.model_builder.tfjs_graph import TfjsGraph
from edgepose.model_builder.tflite_edit import shorten_names
from edgepose.registry.tflite_file import read_model, write_model

# The side of an input that the graph leaves open; the converter writes 1.
DEFAULT_OPEN_SIDE = 256


def convert(graph: TfjsGraph, *, half_precision: bool) -> bytes:
    """Return the graph as a float TFLite file, its weights stored as float16 or float32."""
    with redirect_native_stderr():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete_function(graph)])
        if half_precision:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        model = read_model(converter.convert())
    (subgraph,) = model.subgraphs
    image = subgraph.tensors[subgraph.inputs[0]]
    if image.shapeSignature is not None:
        sides = np.array(image.shapeSignature)
        image.shape = np.where(sides < 0, DEFAULT_OPEN_SIDE, sides).astype(np.int32)
    shorten_names(model)
    return write_model(model)


def concrete_function(graph: TfjsGraph) -> Any:
    """Return the graph as a TensorFlow function of its one input."""
    definition = tf.compat.v1.GraphDef()
    for node in graph.nodes:
        target = definition.node.add()
        if node["op"] == "Const":
            array = graph.weights[node["name"]]
            target.name, target.op = node["name"], "Const"
            target.attr["dtype"].type = tf.as_dtype(array.dtype).as_datatype_enum
            target.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array, shape=array.shape))
        else:
            json_format.ParseDict(node, target)
    wrapped = tf.compat.v1.wrap_function(
        lambda: tf.graph_util.import_graph_def(definition, name=""), []
    )
    return wrapped.prune(f"{graph.input_name}:0", [f"{name}:0" for name in graph.output_names])


def with_uint8_input(data: bytes) -> bytes:
    """Return an INT8 file with a float input as one that takes bytes of the same meaning."""
    return write_model(read_model(util.modify_model_io_type(data, inference_input_type=tf.uint8)))
