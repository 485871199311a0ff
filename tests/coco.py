"""Small COCO keypoint files, and poses with a known distance to their annotations."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepose.benchmark.coco import Person
from edgepose.benchmark.oks import TO_COCO_PX, Case, Evaluation
from edgepose.datatypes import Poses
from edgepose.skeleton import KEYPOINT_NAMES, OKS_FALLOFFS
from tests.builders import poses_of

PERSON_CATEGORY = {"id": 1, "name": "person", "keypoints": list(KEYPOINT_NAMES)}


def person_at(
    x: float = 100.0,
    y: float = 100.0,
    side: float = 100.0,
    *,
    labelled: Sequence[int] = range(17),
    crowd: bool = False,
) -> Person:
    """Return a person whose keypoints lie on the diagonal of its square box; area is the box's."""
    keypoints: list[float] = []
    for index in range(17):
        step = side * index / 16
        keypoints += [x + step, y + step, 2.0] if index in labelled else [0.0, 0.0, 0.0]
    return Person((x, y, side, side), side * side, tuple(keypoints), crowd)


def case_of(*persons: Person) -> Case:
    """Return the case of a whole image with these persons."""
    return Case(None, persons)


def match(cases: Sequence[Case], poses: Sequence[Poses]) -> Evaluation:
    """Compare poses with truths; each case is an image."""
    return Evaluation([[case] for case in cases], [[found] for found in poses])


def truth_points(person: Person) -> NDArray[np.float64]:
    """Return the (17, 2) keypoints in frame px."""
    return np.array(person.keypoints).reshape(17, 3)[:, :2] - TO_COCO_PX


def found(person: Person, *, score: float = 0.9, shift_px: float = 0.0) -> Poses:
    """Return one pose on a person, moved to the right."""
    return poses_of(truth_points(person) + np.array((shift_px, 0.0)), score=score)


def joined(*poses: Poses) -> Poses:
    """Return several poses of one image as one, best first."""
    parts = sorted(poses, key=lambda part: -float(part.scores[0]))
    return Poses(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("keypoints", "keypoint_scores", "scores", "boxes_xyxy")
        )
    )


def shift_for(similarity: float, keypoint: int, area: float) -> float:
    """Return how many px a lone labelled keypoint must be off for this similarity."""
    return float(np.sqrt(-2 * np.log(similarity) * area) * 2 * OKS_FALLOFFS[keypoint])


def annotation(number: int, image_id: int, person: Person, **changes: Any) -> dict[str, Any]:
    """Return the annotation of a person."""
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": int(person.crowd),
        "bbox": list(person.box_xywh),
        "area": person.area,
        "keypoints": list(person.keypoints),
        "num_keypoints": person.labelled,
        **changes,
    }


def write_coco(
    path: Path,
    images: Sequence[tuple[str, tuple[int, int]]],
    persons: Sequence[tuple[int, Person]],
) -> Path:
    """Write annotations of images (name, size_wh), with ids from 1, and of (image id, person)."""
    content = {
        "images": [
            {"id": number, "file_name": name, "width": width, "height": height}
            for number, (name, (width, height)) in enumerate(images, 1)
        ],
        "annotations": [
            annotation(number, image_id, person)
            for number, (image_id, person) in enumerate(persons, 1)
        ],
        "categories": [PERSON_CATEGORY],
    }
    path.write_text(json.dumps(content))
    return path
