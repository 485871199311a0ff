"""Whether persons are found in images that are turned, and nobody in empty ones."""

from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np

from edgepose.datatypes import Frame, Image, Poses
from edgepose.detection.crop_state import CropState
from edgepose.pipeline import Pipeline
from tests.builders import load_model, pipeline_of
from tests.quality.detections import MIN_OKS, similarity
from tests.quality.photographs import Photograph, annotated_photographs
from tests.quality.plain_crop import PlainCrop
from tests.quality.sequences import Truth

MODELS: Final = ("movenet-lightning-int8", "movenet-thunder-int8")
ROTATIONS: Final = {0: None, 90: cv2.ROTATE_90_CLOCKWISE, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
HEAD: Final = (
    "| model | angles | upright | turned by 90 | turned by 270 | empty images |\n"
    "|---|---|---:|---:|---:|---:|\n"
)


def table() -> str:
    """Return the images with a pose that is a person's, and the empty ones with a pose."""
    return HEAD + "".join(line for name in MODELS for line in _lines(name))


def _lines(name: str) -> Iterator[str]:
    pipeline = pipeline_of(load_model(name))
    images, empty = annotated_photographs()
    for angles in ("upright", "all"):
        every = angles == "all"
        found = (
            f"{sum(_is_right(pipeline, image, turn, every=every) for image in images)}"
            for turn in ROTATIONS
        )
        ghosts = sum(len(_find(pipeline, image.image, every=every)) > 0 for image in empty)
        cells = " | ".join(f"{count} of {len(images)}" for count in found)
        yield f"| `{name}` | {angles} | {cells} | {ghosts} of {len(empty)} |\n"


def _is_right(pipeline: Pipeline, photograph: Photograph, turn: int, *, every: bool) -> bool:
    rotation = ROTATIONS[turn]
    image = photograph.image
    turned = image if rotation is None else cv2.rotate(image, rotation).astype(np.uint8)
    poses = _find(pipeline, turned, every=every)
    places = photograph.keypoints[:, :, :2]
    height, width = image.shape[:2]
    if turn == 90:
        places = np.stack((height - places[..., 1], places[..., 0]), axis=-1)
    elif turn == 270:
        places = np.stack((places[..., 1], width - places[..., 0]), axis=-1)
    truth = Truth(places, photograph.keypoints[:, :, 2] > 0, photograph.areas)
    return bool(similarity(poses, truth).max(initial=0.0) >= MIN_OKS)


def _find(pipeline: Pipeline, image: Image, *, every: bool) -> Poses:
    """Return the pose found in a still image, at every angle or only upright."""
    if every:
        return pipeline.detect(Frame(image, 0, 0, still=True), CropState()).poses
    plain, frame = PlainCrop(), Frame(image, 0, 0)
    poses = pipeline.detect(frame, plain).poses
    return poses if plain.decided else pipeline.detect(frame, plain).poses
