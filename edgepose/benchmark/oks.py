"""Average precision by object keypoint similarity (OKS), with bootstrap intervals.

pycocotools matches poses and persons once and computes the figures, also of each resample: of 1000
resamples this takes 1 s with 70 images and 18 s with 2346, as many as COCO val2017 has (x86-64).
"""

import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgepose.benchmark.coco import Person
from edgepose.benchmark.results import Interval
from edgepose.datatypes import Poses

RESAMPLES: Final = 1000
SEED: Final = 0
TO_COCO_PX: Final = -0.5
"""COCO gives a keypoint as the index of its pixel, frame px as the centre of that pixel.

Without this, on 216 annotated persons, MoveNet's strong keypoints are 0.2 to 0.5 px to the right
and below in the median.
"""
MAX_POSES_PER_IMAGE: Final = 20
"""As in COCO's keypoint evaluation."""

_AT_50, _AT_75 = 0, 5


class Case(NamedTuple):
    """One inference of a protocol: on the whole image or a crop, and the expected persons."""

    around: Person | None
    truths: tuple[Person, ...]


class Figures(NamedTuple):
    """Average precision and recall x 100, over OKS .50 to .95 unless the name has a threshold."""

    ap: float
    ap50: float
    ap75: float
    ar: float


class Evaluation:
    """The poses of one model compared with the truths, by the rules of COCO's keypoint evaluation.

    `cases` and `poses` are lists for each image; the `max_poses` best poses of a case count.
    """

    def __init__(
        self,
        cases: Sequence[Sequence[Case]],
        poses: Sequence[Sequence[Poses]],
        max_poses: int = MAX_POSES_PER_IMAGE,
    ) -> None:
        from pycocotools.cocoeval import COCOeval

        # The names of a person's fields are those of COCO's files.
        truths = [
            [
                {**msgspec.to_builtins(person), "num_keypoints": person.labelled}
                for person in case.truths
            ]
            for of_image in cases
            for case in of_image
        ]
        answers = [_answers(found) for of_image in poses for found in of_image]
        # pycocotools prints its progress, and stdout is for data.
        with contextlib.redirect_stdout(io.StringIO()):
            self._coco = COCOeval(_data_set(truths), _data_set(answers), "keypoints")
            parameters = self._coco.params
            parameters.maxDets = [max_poses]
            parameters.areaRng, parameters.areaRngLbl = parameters.areaRng[:1], ["all"]
            self._coco.evaluate()
        of_case = iter(self._coco.evalImgs)
        self._results = [[next(of_case) for _ in of_image] for of_image in cases]

    def figures(self, images: Iterable[int] | None = None) -> Figures:
        """Return the figures of images by index, of all by default; NaN without a person."""
        chosen = range(len(self._results)) if images is None else images
        self._coco.evalImgs = [result for image in chosen for result in self._results[image]]
        # It has one result for each id; the ids themselves do not matter.
        self._coco.params.imgIds = [1] * len(self._coco.evalImgs)
        with contextlib.redirect_stdout(io.StringIO()):
            self._coco.accumulate()
        recall = self._coco.eval["recall"][:, 0, 0, 0]
        ap = self._coco.eval["precision"][:, :, 0, 0, 0].mean(axis=1)
        figures = 100 * np.array((ap.mean(), ap[_AT_50], ap[_AT_75], recall.mean()))
        return Figures(*np.where(figures < 0, np.nan, figures).tolist())

    def resampled(self, resamples: int = RESAMPLES) -> NDArray[np.float64]:
        """Return the figures (resamples, 4) of images drawn with replacement.

        The draws depend on SEED and the number of images only, so rows of two models on the same
        images are paired, and so is their difference. A single image gives no rows.
        """
        count = len(self._results)
        generator = np.random.default_rng(SEED)
        draws = resamples if count > 1 else 0
        figures = [self.figures(generator.integers(0, count, count)) for _ in range(draws)]
        return np.array(figures).reshape(-1, 4)


def interval(values: NDArray[np.float64]) -> Interval | None:
    """Return the 95% interval of resampled values; None without any."""
    if not len(values):
        return None
    # A resample without a person has none.
    low, high = np.nanpercentile(values, (2.5, 97.5)).round(3).tolist()
    return low, high


def _answers(poses: Poses) -> list[dict[str, Any]]:
    """Return poses as annotations; without limits of area its value does not matter."""
    return [
        {
            "keypoints": np.insert(points + TO_COCO_PX, 2, 1.0, axis=1).ravel(),
            "score": score,
            "area": 1.0,
            "iscrowd": 0,
        }
        for points, score in zip(poses.keypoints, poses.scores.tolist(), strict=True)
    ]


def _data_set(annotations_of: Sequence[Sequence[dict[str, Any]]]) -> Any:
    """Return pycocotools' data set of the annotations of each case."""
    from pycocotools.coco import COCO

    # Ids from 1: pycocotools takes an id of 0 for no match.
    annotations = [
        {**each, "image_id": number, "category_id": 1}
        for number, of_case in enumerate(annotations_of, 1)
        for each in of_case
    ]
    data_set = COCO()
    data_set.dataset = {
        "images": [{"id": number} for number, _ in enumerate(annotations_of, 1)],
        "annotations": [{**each, "id": number} for number, each in enumerate(annotations, 1)],
        "categories": [{"id": 1}],
    }
    data_set.createIndex()
    return data_set
