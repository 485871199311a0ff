"""The poses that a model finds in a sequence, kept on disk: they do not depend on the tracker."""

import hashlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import Poses
from edgepose.imaging.preprocess import preprocess
from edgepose.protocols import LoadedModel
from edgepose.skeleton import OKS_FALLOFFS
from tests.builders import SECOND_NS
from tests.quality.sequences import FPS, MadeSequence, Truth

CACHE: Final = Path.home() / ".cache" / "edgepose-tests" / "quality"
MIN_OKS: Final = 0.3
"""From here on a pose is that of a person, by COCO's similarity of the visible keypoints."""
MIN_VISIBLE: Final = 8
MIN_AREA: Final = 32**2
"""Persons with fewer visible keypoints, or smaller ones in px, are neither found nor missed."""
NO_PERSON: Final = -1
NOT_COUNTED: Final = -2
"""A pose of such a person."""


@dataclass(frozen=True, eq=False)
class DetectedFrame:
    """The poses of a frame, the person of each, and which persons are expected to be found.

    `persons` has the index of a person, NO_PERSON or NOT_COUNTED for every pose.
    """

    timestamp_ns: int
    poses: Poses
    persons: tuple[int, ...]
    expected: frozenset[int]


def detected(sequence: MadeSequence, model: LoadedModel) -> list[DetectedFrame]:
    """Return the frames of a sequence, without rendering and inference if they were kept."""
    model_hash = hashlib.sha256(model.path.read_bytes()).hexdigest()[:16]
    path = CACHE / f"{sequence.name}-{sequence.fingerprint}-{model.name}-{model_hash}.pickle"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_bytes(pickle.dumps(list(_detect(sequence, model))))
        unfinished.replace(path)
    kept: list[tuple[Poses, Truth]] = pickle.loads(path.read_bytes())
    return [
        detected_frame(index, poses.above_threshold(model.pose_threshold), truth)
        for index, (poses, truth) in enumerate(kept)
    ]


def _detect(sequence: MadeSequence, model: LoadedModel) -> Iterator[tuple[Poses, Truth]]:
    for image, truth in sequence.frames():
        tensor, to_frame = preprocess(image, None, model.pose_model.input_spec)
        yield model.pose_model.decode(model.interpreter.invoke(tensor), to_frame), truth


def detected_frame(index: int, poses: Poses, truth: Truth) -> DetectedFrame:
    """Return a frame of a sequence with its poses."""
    persons, expected = persons_of(poses, truth)
    return DetectedFrame(index * SECOND_NS // FPS, poses, tuple(persons), frozenset(expected))


def persons_of(poses: Poses, truth: Truth) -> tuple[list[int], set[int]]:
    """Return the person of each pose, and the persons who are expected to be found.

    The most similar pairs come first.
    """
    counts = (truth.visible.sum(axis=1) >= MIN_VISIBLE) & (truth.areas >= MIN_AREA)
    persons = [NO_PERSON] * len(poses)
    pairs = similarity(poses, truth)
    while pairs.size and pairs.max() >= MIN_OKS:
        pose, person = divmod(int(pairs.argmax()), pairs.shape[1])
        persons[pose] = person if counts[person] else NOT_COUNTED
        pairs[pose] = pairs[:, person] = -1
    return persons, set(np.flatnonzero(counts).tolist())


def similarity(poses: Poses, truth: Truth) -> NDArray[np.float64]:
    """Return COCO's similarity of n poses and m persons, (n, m)."""
    if not len(truth.areas):
        return np.empty((len(poses), 0))
    squared = np.square(poses.keypoints[:, np.newaxis] - truth.keypoints).sum(axis=3)
    variances = 2 * np.square(2 * np.array(OKS_FALLOFFS))
    each = np.exp(-squared / (truth.areas[:, np.newaxis] * variances)) * truth.visible
    oks: NDArray[np.float64] = each.sum(axis=2) / np.maximum(truth.visible.sum(axis=1), 1)
    return oks
