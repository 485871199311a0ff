"""PoseNet as a file with random weights: its latency is that of the published file.

A float network takes the same time whatever its weights are, so the published row has a latency
here even if the published file was not downloaded. The file detects no poses: it is written for a
benchmark, measured and deleted.

Structure: MobileNetV1 (Howard et al. 2017) and PoseNet's four heads. The published file has an
image of 257x257, four outputs of 9x9 cells, thus an output stride of 32, and 94 tensors, as many as
here, so no operator but these 31 convolutions; it is 4.7 kB larger, mainly by longer names.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from edgepose.benchmark.reference_table import UNTRAINED, UNTRAINED_DIFFERENCE
from edgepose.errors import ModelFileError
from edgepose.registry.registry import SUFFIX, ModelFile
from edgepose.registry.tflite_file import schema_module, write_model

REPLACES: Final = "posenet-mobilenet-fp32-official"
"""The published file, which is measured instead if it is installed."""
SIDE_PX: Final = 257
SEED: Final = 0

CHANNELS: Final = 32
"""Output channels of the first convolution."""
BLOCKS: Final = (
    *((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512)),
    *((1, 512),) * 5,
    *((2, 1024), (1, 1024)),
)
"""Stride of the depthwise and output channels of the pointwise convolution of each block."""
_HEADS: Final = {"heatmap": 17, "offset": 34, "displacement_fwd": 32, "displacement_bwd": 32}


class _Layer(NamedTuple):
    """One convolution with a bias; `input` is the number of a tensor."""

    name: str
    input: int
    output_channels: int
    kernel_px: int
    stride: int = 1
    depthwise: bool = False
    relu6: bool = True


def write(folder: Path) -> ModelFile:
    """Write the network of the published row.

    Raises ModelFileError without ai-edge-litert, or if the file cannot be written.
    """
    path, data = folder / f"{UNTRAINED}{SUFFIX}", posenet(SIDE_PX, CHANNELS, BLOCKS)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ModelFileError(f"{folder}: cannot write a model: {error.strerror}") from error
    return ModelFile(UNTRAINED, path)


def posenet(side_px: int, channels: int, blocks: Sequence[tuple[int, int]]) -> bytes:
    """Return a PoseNet as a TFLite file, FP32; raises ModelFileError without ai-edge-litert.

    `channels` and `blocks`: see CHANNELS and BLOCKS.
    """
    graph = _Graph(side_px)
    last = graph.add(_Layer("conv", 0, channels, 3, stride=2))
    for number, (stride, outputs) in enumerate(blocks, 1):
        last = graph.add(_Layer(f"depthwise_{number}", last, channels, 3, stride, depthwise=True))
        last = graph.add(_Layer(f"pointwise_{number}", last, outputs, 1))
        channels = outputs
    heads = [
        graph.add(_Layer(name, last, outputs, 1, relu6=False)) for name, outputs in _HEADS.items()
    ]
    return graph.file(heads)


class _Graph:
    """A graph of convolutions under construction; tensor 0 is the image."""

    def __init__(self, side_px: int) -> None:
        self._schema = schema_module()
        self._random = np.random.default_rng(SEED)
        self._operators: list[Any] = []
        self._tensors: list[Any] = []
        # Buffer 0 is empty, for tensors that are no constants.
        self._buffers = [self._schema.BufferT()]
        self._add_tensor("image", (1, side_px, side_px, 3))

    def add(self, layer: _Layer) -> int:
        """Add a convolution and return the number of its output tensor."""
        schema, size = self._schema, layer.kernel_px
        _, _, input_px, channels = self._tensors[layer.input].shape
        shape = (1 if layer.depthwise else layer.output_channels, size, size, channels)
        inputs_of_output = size * size * (1 if layer.depthwise else channels)
        # Values keep their magnitude through the layers (He et al. 2015): with much smaller ones,
        # denormal numbers, with which processors are slow, would come out of the last layers.
        scale = np.sqrt(2 / inputs_of_output)
        weights = self._random.standard_normal(shape, np.float32) * np.float32(scale)
        bias = self._random.uniform(-0.1, 0.1, layer.output_channels).astype(np.float32)
        side_px = -(-input_px // layer.stride)
        operator = schema.OperatorT()
        operator.inputs = [
            layer.input,
            self._add_tensor(f"{layer.name}/weights", shape, weights),
            self._add_tensor(f"{layer.name}/bias", bias.shape, bias),
        ]
        output = self._add_tensor(layer.name, (1, side_px, side_px, layer.output_channels))
        operator.outputs = [output]
        operator.opcodeIndex = int(layer.depthwise)
        options_type = schema.BuiltinOptions
        if layer.depthwise:
            options = schema.DepthwiseConv2DOptionsT()
            options.depthMultiplier = 1
            operator.builtinOptionsType = options_type.DepthwiseConv2DOptions
        else:
            options = schema.Conv2DOptionsT()
            operator.builtinOptionsType = options_type.Conv2DOptions
        options.padding = schema.Padding.SAME
        options.strideW = options.strideH = layer.stride
        activations = schema.ActivationFunctionType
        options.fusedActivationFunction = activations.RELU6 if layer.relu6 else activations.NONE
        operator.builtinOptions = options
        self._operators.append(operator)
        return output

    def file(self, outputs: list[int]) -> bytes:
        """Return the TFLite file of the graph."""
        schema, model, graph = self._schema, self._schema.ModelT(), self._schema.SubGraphT()
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs = [0], outputs
        codes = schema.BuiltinOperator
        for code in (codes.CONV_2D, codes.DEPTHWISE_CONV_2D):
            entry = schema.OperatorCodeT()
            # Older runtimes read the code from its deprecated field.
            entry.builtinCode = entry.deprecatedBuiltinCode = code
            entry.version = 1
            model.operatorCodes = [*(model.operatorCodes or ()), entry]
        model.version = 3
        model.description = UNTRAINED_DIFFERENCE
        model.subgraphs, model.buffers = [graph], self._buffers
        return write_model(model)

    def _add_tensor(self, name: str, shape: tuple[int, ...], values: Any = None) -> int:
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape = name, list(shape)
        tensor.type = self._schema.TensorType.FLOAT32
        if values is not None:
            buffer = self._schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            tensor.buffer = len(self._buffers)
            self._buffers.append(buffer)
        self._tensors.append(tensor)
        return len(self._tensors) - 1
