"""The untrained PoseNet has the structure of the published file, and of one that is installed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepose.benchmark import untrained
from edgepose.errors import ModelFileError
from edgepose.inference.cpu import load_on_cpu
from edgepose.inference.runtime import installed_runtimes
from edgepose.registry.registry import default_registry
from edgepose.registry.tflite_file import read_model, schema_module
from tests.conftest import MODELS

BLOCKS_075 = ((1, 48), (2, 96), (1, 96), (2, 192), (1, 192), (2, 384), *((1, 384),) * 7)
"""Strides and channels of the installed PoseNet, MobileNetV1 0.75 with an output stride of 16."""


def operators(data: bytes) -> list[tuple[Any, ...]]:
    """Return operator, options, shapes and types of inputs and output, of each operator."""
    model = read_model(data)
    (graph,) = model.subgraphs
    return [
        (
            model.operatorCodes[operator.opcodeIndex].builtinCode,
            {k: v for k, v in vars(operator.builtinOptions).items() if k != "quantizedBiasType"},
            [
                (tuple(graph.tensors[tensor].shape), graph.tensors[tensor].type)
                for tensor in (*operator.inputs, *operator.outputs)
            ],
        )
        for operator in graph.operators
    ]


@pytest.fixture(scope="module")
def network() -> bytes:
    return untrained.posenet(untrained.SIDE_PX, untrained.CHANNELS, untrained.BLOCKS)


def test_untrained_same_operators_as_installed_file() -> None:
    """Built with the layers of the installed PoseNet, it has that file's operators in its order."""
    installed = operators((MODELS / "posenet-mobilenet-fp32.tflite").read_bytes())
    built = operators(untrained.posenet(385, 24, BLOCKS_075))
    assert built[:-4] == installed[:-4]
    # The order of the four heads differs by file.
    assert sorted(map(str, built[-4:])) == sorted(map(str, installed[-4:]))


def test_untrained_tensors_of_published_file(network: bytes) -> None:
    """Input, outputs, number of tensors and size are those of the published file."""
    (graph,) = read_model(network).subgraphs
    shapes = [tuple(tensor.shape) for tensor in graph.tensors]
    assert [shapes[index] for index in graph.inputs] == [(1, 257, 257, 3)]
    assert [shapes[index] for index in graph.outputs] == [
        (1, 9, 9, channels) for channels in (17, 34, 32, 32)
    ]
    assert len(graph.operators) == 31
    assert len(graph.tensors) == 94
    published = default_registry().entry(untrained.REPLACES).bytes
    assert published is not None
    # The rest is names; a few bytes differ by version of the schema.
    assert abs(published - len(network)) < 0.001 * published
    assert round(len(network) / 1e6, 1) == 13.3


def test_untrained_weights_are_those_of_mobilenet(network: bytes) -> None:
    codes = schema_module().BuiltinOperator
    kinds = [kind for kind, _, _ in operators(network)]
    assert kinds[:3] == [codes.CONV_2D, codes.DEPTHWISE_CONV_2D, codes.CONV_2D]
    assert kinds.count(codes.DEPTHWISE_CONV_2D) == 13
    weights = [np.prod(tensors[1][0]) for _, _, tensors in operators(network)]
    # MobileNetV1 1.0 without its classifier has 3.2 million (Howard et al. 2017), the heads 118k.
    assert sum(weights) == 3_185_088 + 117_760


def test_untrained_same_bytes_again(network: bytes) -> None:
    """Two benchmarks measure the same file: its hash is one of the facts that are compared."""
    again = untrained.posenet(untrained.SIDE_PX, untrained.CHANNELS, untrained.BLOCKS)
    assert again == network


@pytest.mark.parametrize("runtime", installed_runtimes())
def test_untrained_outputs_are_ordinary_numbers(runtime: Any, tmp_path: Path) -> None:
    """Neither denormal numbers nor infinite ones, with which processors are slow."""
    interpreter = load_on_cpu(untrained.write(tmp_path).path, runtime=runtime, threads=1)
    image = np.random.default_rng(0).uniform(-1, 1, interpreter.input.shape).astype(np.float32)
    for output in interpreter.invoke(image):
        assert 0.01 < np.abs(output).mean() < 100
        assert np.abs(output[output != 0]).min() > np.finfo(np.float32).tiny


def test_untrained_write_fails_without_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot write a model: No such file or directory"):
        untrained.write(tmp_path / "none")
