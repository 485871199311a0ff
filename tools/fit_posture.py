"""Fit the weights of the posture model, and measure it on persons it was not fitted to.

Run `python -m tools.fit_posture DATA` in the repository. DATA/posture.json has the postures of
annotated persons of COCO, whose images and keypoints are in DATA/coco. Each person counts with the
annotated keypoints and with those that two models find, as it is, mirrored, and turned to lie.
Another part are made bodies, since few of the persons lie or bend.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import CropRegion, Image
from edgepose.events.posture import MIN_KNEE_SCORE, MIN_PROBABILITY, POSTURES
from edgepose.events.posture_features import FEATURE_NAMES, posture_features
from edgepose.imaging.crop import body_region
from edgepose.imaging.preprocess import preprocess
from edgepose.protocols import LoadedModel
from edgepose.skeleton import LEFT_KNEE, MIRRORED, RIGHT_KNEE
from tests import images
from tests.builders import load_model
from tests.kinematics import measured, random_stance, random_view

WEIGHTS_FILE: Final = Path(__file__).parents[1] / "edgepose/events/posture_weights.py"
MODELS: Final = ("movenet-thunder-int8", "movenet-lightning-int8")
LABELS: Final = {"crouching-or-bending": "bending"} | {name: name for name in POSTURES}
TURNS: Final = (-110, -90, -70, 70, 90, 110)
TURNED_WEIGHT: Final = 0.2
MADE: Final = 400
MADE_PART: Final = 0.2
REGULARIZATION: Final = 3e-3
FOLDS: Final = 10

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Keypoints (17, 3) with the posture, of a person in an image, found by `source`."""

    keypoints: Array
    posture: str
    image: str
    source: str
    legs: bool
    weight: float = 1.0


def find(model: LoadedModel, image: Image, box_xywh: Sequence[float]) -> Iterator[Array]:
    """Yield the keypoints found in the square around a box, and in the one around those."""
    x, y, width, height = box_xywh
    half = 0.625 * max(width, height)
    middle_x, middle_y = x + width / 2, y + height / 2
    region: CropRegion | None = CropRegion(
        middle_x - half, middle_y - half, middle_x + half, middle_y + half
    )
    for _ in range(2):
        tensor, to_frame = preprocess(image, region, model.pose_model.input_spec)
        poses = model.pose_model.decode(model.interpreter.invoke(tensor), to_frame)
        yield np.column_stack((poses.keypoints[0], poses.keypoint_scores[0])).astype(float)
        region = body_region(poses, (image.shape[1], image.shape[0]))


def persons(data: Path, models: Sequence[str] = MODELS) -> Iterator[Sample]:
    """Yield the persons whose posture is sure, once for each source of keypoints."""
    loaded = [load_model(name) for name in models]
    annotations = json.loads((data / "coco/person_keypoints.json").read_text())["annotations"]
    annotated = {annotation["id"]: annotation["keypoints"] for annotation in annotations}
    for person in json.loads((data / "posture.json").read_text()):
        posture = LABELS.get(person["label"])
        if posture is None or not person["sure"]:
            continue
        place = (posture, str(person["image_id"]))
        legs = person["legs_labelled"] is True
        if person["annotation_id"] in annotated:
            keypoints = np.array(annotated[person["annotation_id"]], float).reshape(17, 3)
            keypoints[:, 2] = keypoints[:, 2] > 0
            yield Sample(keypoints, *place, "annotated", legs)
        image = images.image(person["file"])
        box = person["bbox"] or (0, 0, image.shape[1], image.shape[0])
        for name, model in zip(models, loaded, strict=True):
            for number, keypoints in enumerate(find(model, image, box), 1):
                yield Sample(keypoints, *place, f"{name}, crop {number}", legs)


def varied(sample: Sample) -> Iterator[Sample]:
    """Yield what is fitted to: the sample and its mirror image, and who is upright as lying."""
    keypoints, place = sample.keypoints, (sample.image, sample.source, sample.legs)
    yield sample
    yield Sample(keypoints[list(MIRRORED)] * (-1, 1, 1), sample.posture, *place)
    if sample.posture in ("standing", "sitting"):
        for turn in TURNS:
            cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
            turned = keypoints @ np.array(((cos, sin, 0), (-sin, cos, 0), (0, 0, 1)))
            yield Sample(turned, "lying", *place, TURNED_WEIGHT)


def made_bodies(total_weight: float) -> Iterator[Sample]:
    """Yield made bodies with a total weight."""
    rng = np.random.default_rng(0)
    weight = total_weight / (MADE * len(POSTURES))
    for posture in POSTURES:
        for _ in range(MADE):
            keypoints = measured(random_view(random_stance(posture, rng), rng), rng)
            yield Sample(keypoints, posture, "", "made", legs=True, weight=weight)


def features_of(samples: Sequence[Sample]) -> Array:
    """Return the features (n, 12)."""
    rows = [
        posture_features(sample.keypoints[:, :2].tolist(), sample.keypoints[:, 2].tolist())
        for sample in samples
    ]
    return np.array(rows)


def fit(samples: Sequence[Sample]) -> Array:
    """Return the weights (4, 13) of a multinomial logistic regression; the last are the constants.

    By Newton's method. A posture weighs as the root of its share, so that rare ones count more.
    """
    x = features_of(samples)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    x = np.column_stack(((x - mean) / deviation, np.ones(len(x))))
    y = np.array([POSTURES.index(sample.posture) for sample in samples])
    weight = np.array([sample.weight for sample in samples])
    weight /= np.sqrt(np.bincount(y, weight))[y]
    weight /= weight.sum()
    target, columns = np.eye(len(POSTURES))[y], x.shape[1]
    penalty = np.tile((*[REGULARIZATION] * (columns - 1), 1e-6), len(POSTURES))
    w = np.zeros((len(POSTURES), columns))
    for _ in range(20):
        p = softmax(x @ w.T)
        gradient = ((p - target) * weight[:, np.newaxis]).T @ x + penalty.reshape(w.shape) * w
        spread = (
            np.eye(len(POSTURES)) * p[:, :, np.newaxis] - p[:, :, np.newaxis] * p[:, np.newaxis]
        )
        hessian = np.einsum("n,nab,ni,nj->aibj", weight, spread, x, x, optimize=True)
        step = np.linalg.solve(hessian.reshape(w.size, -1) + np.diag(penalty), gradient.ravel())
        w -= step.reshape(w.shape)
    w[:, :-1] /= deviation
    w[:, -1] -= w[:, :-1] @ mean
    return w


def softmax(logits: Array) -> Array:
    """Return probabilities (n, 4)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Array = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def chosen(weights: Array, samples: Sequence[Sample]) -> list[str]:
    """Return the posture of each sample, or `unclear`."""
    features = np.column_stack((features_of(samples), np.ones(len(samples))))
    return [
        POSTURES[p.argmax()]
        if p.max() >= MIN_PROBABILITY and _knee_score(sample) >= MIN_KNEE_SCORE
        else "unclear"
        for p, sample in zip(softmax(features @ weights.T), samples, strict=True)
    ]


def training_set(people: Sequence[Sample]) -> list[Sample]:
    """Return what is fitted to, for these persons."""
    visible = [sample for sample in people if _knee_score(sample) >= MIN_KNEE_SCORE]
    samples = [variant for sample in visible for variant in varied(sample)]
    return samples + list(made_bodies(MADE_PART * sum(sample.weight for sample in samples)))


def cross_validate(people: Sequence[Sample]) -> list[str]:
    """Return the postures of persons, each chosen without its image."""
    names = sorted({sample.image for sample in people})
    fold = {name: n % FOLDS for n, name in enumerate(np.random.default_rng(0).permutation(names))}
    found = [""] * len(people)
    for number in range(FOLDS):
        weights = fit(training_set([s for s in people if fold[s.image] != number]))
        own = [index for index, sample in enumerate(people) if fold[sample.image] == number]
        for index, name in zip(own, chosen(weights, [people[i] for i in own]), strict=True):
            found[index] = name
    return found


def print_table(people: Sequence[Sample], found: Sequence[str]) -> None:
    """Print the persons with visible legs: how many were chosen as what."""
    print("| keypoints | posture | " + " | ".join((*POSTURES, "unclear")) + " |")
    for source in sorted({sample.source for sample in people}):
        right = refused = total = 0
        for posture in POSTURES:
            names = [
                name
                for sample, name in zip(people, found, strict=True)
                if (sample.source, sample.posture, sample.legs) == (source, posture, True)
            ]
            counts = [names.count(name) for name in (*POSTURES, "unclear")]
            print(f"| {source} | {posture} | " + " | ".join(map(str, counts)) + " |")
            right += names.count(posture)
            refused += counts[-1]
            total += len(names)
        print(
            f"| {source} | {right / (total - refused):.1%} right, {refused / total:.1%} unclear |"
        )


def module_text(weights: Array) -> str:
    """Return the module with the weights."""
    rows = "".join(
        f"    # {name}\n    (" + ", ".join(f"{value:.2f}" for value in row) + "),\n"
        for name, row in zip(POSTURES, weights, strict=True)
    )
    return (
        '"""The weights of the posture model, written by `python -m tools.fit_posture`."""\n\n'
        "from typing import Final\n\n"
        f"WEIGHTS: Final = (\n{rows})  # fmt: skip\n"
        f'"""For each posture the weights of {len(FEATURE_NAMES)} features and a constant."""\n'
    )


def _knee_score(sample: Sample) -> float:
    return float(max(sample.keypoints[LEFT_KNEE, 2], sample.keypoints[RIGHT_KNEE, 2]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, metavar="DATA")
    people = list(persons(parser.parse_args(arguments).data))
    print_table(people, cross_validate(people))
    WEIGHTS_FILE.write_text(module_text(fit(training_set(people))))


if __name__ == "__main__":
    main()
