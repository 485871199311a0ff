"""The published networks as float TFLite files: the same numbers, another container."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepose.model_builder import npm_package as registry_package
from edgepose.model_builder import tfjs_graph
from edgepose.model_builder.tfjs_graph import TfjsGraph
from edgepose.model_builder.tflite_edit import shorten_names
from edgepose.registry.tflite_file import read_model, write_model

# The side that an open input has before a program resizes it.
DEFAULT_OPEN_SIDE = 256


def read_published(archive: Path, source: str) -> TfjsGraph:
    """Return one of the package's graphs, with a byte input where it takes raw pixels."""
    model, data = registry_package.read_model(archive, source)
    graph = tfjs_graph.read_graph(model, data)
    if graph.input_dtype == "DT_INT32":
        graph = tfjs_graph.use_uint8_input(graph)
    return graph


def open_sides(graph: TfjsGraph) -> TfjsGraph:
    """Return the graph with an input of any height and width."""
    graph = tfjs_graph.new_axes_by_expand_dims(graph)
    return tfjs_graph.set_input_shape(graph, (1, -1, -1, 3))


def convert(graph: TfjsGraph, half_precision: bool) -> bytes:
    """Return the graph as a float TFLite file, its weights stored as float16 or float32.

    Raises ConversionError through the graph; the converter's own messages are not printed.
    """
    import tensorflow as tf

    with _quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [tfjs_graph.concrete_function(graph)]
        )
        if half_precision:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        model = read_model(converter.convert())
    _set_default_side(model)
    shorten_names(model)
    return write_model(model)


def _set_default_side(model: Any) -> None:
    graph = model.subgraphs[0]
    entry = graph.tensors[graph.inputs[0]]
    if entry.shapeSignature is not None and any(side < 0 for side in entry.shapeSignature):
        # The converter writes 1 for an open side; a file should run without being resized.
        entry.shape = np.array(
            [s if s > 0 else DEFAULT_OPEN_SIDE for s in entry.shapeSignature], np.int32
        )


def published_outputs(
    graph: TfjsGraph, picture: npt.NDArray[Any]
) -> Mapping[str, npt.NDArray[Any]]:
    """Return what TensorFlow computes from the published graph in float32, by output name."""
    import tensorflow as tf

    with _quiet():
        function = tfjs_graph.concrete_function(graph)
        outputs = function(tf.constant(picture[None]))
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    return {
        name: np.asarray(value) for name, value in zip(graph.output_names, outputs, strict=True)
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what TensorFlow's C++ and Python parts write to standard error away from the user."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        logger.setLevel(level)
