"""The images that sequences are made of: groups, cut-out persons, and places without a person."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepose.benchmark.coco import read_annotations
from edgepose.benchmark.oks import TO_COCO_PX
from edgepose.datatypes import Frame, Image
from edgepose.protocols import LoadedModel
from tests import images
from tests.builders import load_model, pipeline_of
from tests.conftest import HAS_SHARED, SHARED

OWN: Final = ("astronaut", "camera.jpg", "grace_hopper.jpg")
COCO: Final = SHARED / "data" / "coco"
ANNOTATIONS: Final = COCO / "person_keypoints_official.json"
MAX_GROUP_HEIGHT: Final = 300
MIN_CUTOUT_HEIGHT: Final = 120
MIN_CUTOUT_KEYPOINTS: Final = 13


@dataclass(frozen=True, eq=False)
class Photograph:
    """An image uint8 (H, W, 3 or 4), keypoints (n, 17, 3) with x, y in px and v, areas (n,)."""

    image: Image
    keypoints: NDArray[np.float64]
    areas: NDArray[np.float64]


@dataclass(frozen=True)
class Photographs:
    """Images by their use."""

    groups: tuple[Photograph, ...]
    cutouts: tuple[Photograph, ...]
    empty: tuple[Photograph, ...]


def photographs() -> Photographs:
    """Return the annotated images beside a developer's checkout, or else those of the tests."""
    return coco_photographs() if HAS_SHARED else own_photographs()


def own_photographs() -> Photographs:
    """Return three persons, alone and side by side, as the most accurate MultiPose sees them."""
    model = load_model("movenet-multipose-fp16")
    persons = (_found(images.image(name), model) for name in OWN)
    opaque = [replace(person, image=with_alpha(person.image)) for person in persons]
    empty = [_photograph(images.image(name), ()) for name in images.EMPTY]
    group = _found(images.image(images.THREE_PEOPLE), model)
    return Photographs((group,), tuple(opaque), tuple(empty))


def _found(pixels: Image, model: LoadedModel) -> Photograph:
    """Return an image with the poses that a model finds as its persons."""
    poses = pipeline_of(model).process(Frame(pixels, 1, 0, still=True)).tracked.poses
    labels = np.where(poses.keypoint_scores >= model.keypoint_threshold, 2.0, 0.0)
    keypoints = np.concatenate((poses.keypoints, labels[:, :, np.newaxis]), axis=2)
    width_height = poses.boxes_xyxy[:, 2:] - poses.boxes_xyxy[:, :2]
    return Photograph(pixels, keypoints.astype(float), width_height.prod(axis=1).astype(float))


def with_alpha(image: Image) -> Image:
    """Return an image with an opaque fourth channel."""
    return np.concatenate((image, np.full((*image.shape[:2], 1), 255, np.uint8)), axis=2)


def coco_photographs() -> Photographs:
    """Return images of COCO with annotated persons, and some without."""
    polygons = _polygons(ANNOTATIONS)
    groups, cutouts = [], []
    for annotated in read_annotations(ANNOTATIONS):
        pixels = images.image(f"coco/images/{annotated.file_name}")
        clear = [p for p in annotated.persons if p.labelled >= 10 and p.box_xywh[3] >= 100]
        tallest = max(person.box_xywh[3] for person in annotated.persons)
        if 2 <= len(clear) <= 8 and tallest <= MAX_GROUP_HEIGHT:
            groups.append(_photograph(pixels, annotated.persons))
        for person in annotated.persons:
            tall = person.box_xywh[3] >= MIN_CUTOUT_HEIGHT
            if tall and person.labelled >= MIN_CUTOUT_KEYPOINTS and polygons.get(person.id):
                cutout = _cut_out(pixels, person, polygons[person.id])
                if _covers(cutout):
                    cutouts.append(cutout)
    return Photographs(tuple(groups), tuple(cutouts), tuple(_empty()))


def annotated_photographs() -> tuple[Sequence[Photograph], Sequence[Photograph]]:
    """Return all images of persons, each with every annotated one, and images without a person."""
    if not HAS_SHARED:
        own = own_photographs()
        return own.groups, own.empty
    persons = [
        _photograph(images.image(f"coco/images/{annotated.file_name}"), annotated.persons)
        for annotated in read_annotations(COCO / "person_keypoints.json")
    ]
    return persons, _empty()


def _empty() -> list[Photograph]:
    paths = sorted((COCO / "negatives").glob("*.jpg"))
    return [_photograph(images.image(f"coco/negatives/{path.name}"), ()) for path in paths]


def _photograph(pixels: Image, persons: Any) -> Photograph:
    keypoints = np.array([person.keypoints for person in persons], float).reshape(-1, 17, 3)
    keypoints[:, :, :2] -= TO_COCO_PX
    return Photograph(pixels, keypoints, np.array([person.area for person in persons], float))


def _polygons(path: Path) -> dict[int, Any]:
    """Return the outlines of the persons by their ids; crowds have none."""
    annotations = json.loads(path.read_text())["annotations"]
    return {a["id"]: a["segmentation"] for a in annotations if isinstance(a["segmentation"], list)}


def _cut_out(pixels: Image, person: Any, polygons: Any) -> Photograph:
    mask = np.zeros(pixels.shape[:2], np.uint8)
    outlines = [np.array(polygon).reshape(-1, 2).round().astype(np.int32) for polygon in polygons]
    cv2.fillPoly(mask, outlines, (255.0,))
    mask = cv2.GaussianBlur(mask, (5, 5), 0).astype(np.uint8)
    x, y, width, height = (round(value) for value in person.box_xywh)
    part = np.s_[max(y - 3, 0) : y + height + 3, max(x - 3, 0) : x + width + 3]
    whole = _photograph(pixels, (person,))
    whole.keypoints[:, :, :2] -= (max(x - 3, 0), max(y - 3, 0))
    return Photograph(
        np.concatenate((pixels[part], mask[part][:, :, np.newaxis]), axis=2),
        whole.keypoints,
        whole.areas,
    )


def _covers(cutout: Photograph) -> bool:
    """Whether the outline has nearly all labelled keypoints; some are only of a visible part."""
    (keypoints,) = cutout.keypoints
    x, y, _ = np.floor(keypoints[keypoints[:, 2] > 0]).astype(int).T
    height, width = cutout.image.shape[:2]
    alpha = cutout.image[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1), 3]
    return bool(np.mean(alpha > 127) > 0.75)
