"""Whether a pose is found where people are, and nowhere else: COCO images, and clips.

For the default configuration, and for single-pose models by rule and threshold; five minutes.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import CropRegion, Frame, Image, Poses
from edgepose.detection.crop_state import MIN_AGREEMENT
from edgepose.imaging.crop import MIN_CROP_SCORE, body_region
from edgepose.imaging.preprocess import preprocess
from edgepose.protocols import LoadedModel
from edgepose.sources.images import list_images, read_image
from edgepose.tracking.similarity import keypoint_similarity
from tests.builders import load_model, pipeline_of
from tests.conftest import HAS_SHARED, SHARED
from tests.quality.ghosts import CLIPS, DATA, Part, run_clip

OFFICIAL: Final = SHARED / "models" / "movenet_single_pose_lightning_ptq.tflite"
"""The official INT8 Lightning, of which the file for the Edge TPU was compiled."""
SINGLE: Final = (
    "movenet-lightning-int8",
    "movenet-lightning-fp16",
    "movenet-thunder-int8",
    "movenet-thunder-fp16",
    str(OFFICIAL),
)
MULTIPLE: Final = ("movenet-multipose-int8", "posenet-mobilenet-int8")
THRESHOLDS: Final = (0.20, 0.22, 0.25, 0.28, 0.30, 0.32, 0.35, 0.40, 0.50)
ALLOWED: Final = (0, 1, 2, 4)


@dataclass(frozen=True, eq=False)
class Found:
    """The pose in the whole frame, and that in the crop around it; the same one without a crop."""

    whole: Poses
    crop: Poses

    def same_place(self) -> bool:
        """Return whether both are at the same place."""
        if self.crop is self.whole:
            return True
        return keypoint_similarity(self.crop, self.whole, MIN_CROP_SCORE).item() >= MIN_AGREEMENT


def mean_of_visible(scores: NDArray[np.float32]) -> float:
    """Return the score of tfjs-models, which reports a pose from 0.25 on."""
    visible = scores[scores > MIN_CROP_SCORE]
    return float(visible.mean()) if len(visible) else 0.0


TFJS: Final = "tfjs: mean of those above 0.2, whole frame"
OURS: Final = "root mean square, crop, same place"
RULES: Final[Mapping[str, Callable[[Found], float]]] = {
    TFJS: lambda found: mean_of_visible(found.whole.keypoint_scores),
    "mean, whole frame": lambda found: float(found.whole.keypoint_scores.mean()),
    "mean, crop": lambda found: float(found.crop.keypoint_scores.mean()),
    "root mean square, crop": lambda found: found.crop.scores.item(),
    OURS: lambda found: found.crop.scores.item() if found.same_place() else 0.0,
}


def table() -> str:
    """Return four tables, as Markdown."""
    if not HAS_SHARED:
        raise SystemExit("the clips and images are not beside this checkout")
    single = [load_model(name) for name in SINGLE]
    parts = (
        _defaults([*single, *map(load_model, MULTIPLE)]),
        _rules(single),
        _curves(single),
        _clips([model for model in single if "fp16" not in model.name]),
    )
    return "\n".join("".join(part) for part in parts)


@cache
def photographs(*, people: bool) -> Sequence[Image]:
    """Return the images with or without people."""
    coco = DATA / "coco"
    folders = (coco / "images",) if people else (coco / "negatives", DATA / "negatives")
    return [read_image(path) for folder in folders for path in list_images(folder)]


def images_with_pose(model: LoadedModel, *, people: bool) -> int:
    """Return in how many images the default configuration finds a pose."""
    frames = (Frame(image, 1, 0, still=True) for image in photographs(people=people))
    return sum(len(pipeline_of(model).process(frame).tracked) > 0 for frame in frames)


@cache
def _found(model: LoadedModel, *, people: bool) -> Sequence[Found]:
    return [_find(model, image) for image in photographs(people=people)]


def _find(model: LoadedModel, image: Image) -> Found:
    height, width, _ = image.shape
    whole = _detect(model, image, None)
    region = body_region(whole, (width, height))
    return Found(whole, whole if region is None else _detect(model, image, region))


def _detect(model: LoadedModel, image: Image, region: CropRegion | None) -> Poses:
    tensor, to_frame = preprocess(image, region, model.pose_model.input_spec)
    return model.pose_model.decode(model.interpreter.invoke(tensor), to_frame)


def _scores(model: LoadedModel, rule: str, *, people: bool) -> list[float]:
    return [RULES[rule](found) for found in _found(model, people=people)]


def count_above(people: Sequence[float], empty: Sequence[float], allowed: int) -> int:
    """Return how many images with people score above all but `allowed` of those without."""
    limit = sorted(empty, reverse=True)[allowed]
    return sum(score > limit for score in people)


def _defaults(models: Sequence[LoadedModel]) -> Iterator[str]:
    empty, people = (len(photographs(people=people)) for people in (False, True))
    yield f"| model | default threshold | of {empty} without people | of {people} with people |\n"
    yield "|---|---:|---:|---:|\n"
    for model in models:
        sys.stderr.write(f"images, {model.name}\n")
        counts = [str(images_with_pose(model, people=people)) for people in (False, True)]
        yield f"| {_name(model)} | {model.pose_threshold:.2f} | {' | '.join(counts)} |\n"


def _rules(models: Sequence[LoadedModel]) -> Iterator[str]:
    heads = " | ".join(f"at most {allowed}" for allowed in ALLOWED)
    yield f"| model | score of a pose | {heads} |\n|---|---|{'---:|' * len(ALLOWED)}\n"
    for model in models:
        for rule in RULES:
            people, empty = (_scores(model, rule, people=people) for people in (True, False))
            counts = " | ".join(str(count_above(people, empty, allowed)) for allowed in ALLOWED)
            yield f"| {_name(model)} | {rule} | {counts} |\n"


def _curves(models: Sequence[LoadedModel]) -> Iterator[str]:
    heads = " | ".join(f"{threshold:.2f}" for threshold in THRESHOLDS)
    yield f"| model | score | {heads} |\n|---|---|{'---:|' * len(THRESHOLDS)}\n"
    for model in models:
        for rule, title in ((TFJS, "tfjs"), (OURS, "edgepose")):
            people, empty = (_scores(model, rule, people=people) for people in (True, False))
            pairs = (
                f"{sum(score >= threshold for score in people)}, "
                f"{sum(score >= threshold for score in empty)}"
                for threshold in THRESHOLDS
            )
            yield f"| {_name(model)} | {title} | {' | '.join(pairs)} |\n"


def _clips(models: Sequence[LoadedModel]) -> Iterator[str]:
    yield "| clip | model | without people | presence ON | with people |\n"
    yield "|---|---|---:|---:|---:|\n"
    for name in CLIPS:
        for model in models:
            sys.stderr.write(f"{name}, {model.name}\n")
            clip = run_clip(model, name)
            present = str(clip.empty.present) if not clip.occupied.frames else ""
            cells = (_share(clip.empty), present, _share(clip.occupied))
            yield f"| {Path(name).name} | {_name(model)} | {' | '.join(cells)} |\n"


def _share(part: Part) -> str:
    return f"{part.found} of {part.frames}" if part.frames else ""


def _name(model: LoadedModel) -> str:
    return "official Lightning INT8" if model.path == OFFICIAL else f"`{model.name}`"
