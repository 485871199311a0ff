"""Average precision by object keypoint similarity (OKS), with bootstrap intervals.

pycocotools matches poses and persons. The figures are computed from its matches, as it does, so
that a thousand resamples of the images take less time than running the models.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
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

_RECALLS: Final = np.linspace(0.0, 1.0, 101)
_AT_50, _AT_75 = 0, 5


@dataclass(frozen=True, slots=True)
class Case:
    """One inference of a protocol: on the whole image or a crop, and the expected persons."""

    around: Person | None
    truths: tuple[Person, ...]


class Figures(NamedTuple):
    """Average precision and recall x 100, over OKS .50 to .95 unless the name has a threshold."""

    ap: float
    ap50: float
    ap75: float
    ar: float


@dataclass(frozen=True, slots=True)
class Matches:
    """Which poses of one model are right.

    D poses, highest score first, at T = 10 thresholds of OKS: `right` and `wrong` bool (T, D),
    neither for a pose on a person who does not count; `image_of` (D,) is the index of a pose's
    image, `truths_of` (images,) the number of persons that count. The first column is no pose.
    """

    right: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    image_of: NDArray[np.intp]
    truths_of: NDArray[np.intp]

    @property
    def figures(self) -> Figures:
        """The figures of all images."""
        return self.weighted(np.ones(len(self.truths_of), np.intp))

    def weighted(self, weights: NDArray[np.intp]) -> Figures:
        """Return the figures as if image i existed `weights[i]` times; NaN without persons."""
        truths = int(weights @ self.truths_of)
        if not truths:
            return Figures(*(float("nan"),) * 4)
        times = weights[self.image_of]
        # Copies of a pose are one step: the best precision from a pose on is never reached between
        # its copies. If two poses of one image share a score, pycocotools would alternate them;
        # their order is arbitrary there as well.
        right = np.cumsum(self.right * times, axis=1, dtype=np.float64)
        wrong = np.cumsum(self.wrong * times, axis=1, dtype=np.float64)
        recall = right / truths
        precision = right / (wrong + right + np.spacing(1))
        best_from = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # Precision is 0 at a recall that is not reached.
        ap = [
            float(np.append(best, 0.0)[np.searchsorted(reached, _RECALLS)].mean()) * 100
            for reached, best in zip(recall, best_from, strict=True)
        ]
        return Figures(
            float(np.mean(ap)), ap[_AT_50], ap[_AT_75], float(recall[:, -1].mean()) * 100
        )

    def resampled(self, resamples: int = RESAMPLES) -> NDArray[np.float64]:
        """Return the figures (resamples, 4) of images drawn with replacement.

        The draws depend on SEED and the number of images only, so rows of two models on the
        same images are paired, and so is their difference. A single image gives no rows.
        """
        count = len(self.truths_of)
        generator = np.random.default_rng(SEED)
        return np.array(
            [
                self.weighted(np.bincount(generator.integers(0, count, count), minlength=count))
                for _ in range(resamples if count > 1 else 0)
            ]
        ).reshape(-1, 4)


def interval(values: NDArray[np.float64]) -> Interval | None:
    """Return the 95% interval of resampled values; None without any."""
    if not len(values):
        return None
    # A resample without a person has none.
    low, high = np.nanpercentile(values, (2.5, 97.5)).round(3).tolist()
    return low, high


def match(
    cases: Sequence[Case],
    poses: Sequence[Poses],
    image_of_case: Sequence[int],
    max_poses: int = MAX_POSES_PER_IMAGE,
) -> Matches:
    """Compare poses with truths, case by case, by the rules of COCO's keypoint evaluation.

    `image_of_case` are indices from 0 without gaps. The `max_poses` best poses of a case count.
    """
    evaluation = evaluation_of(cases, poses, max_poses)
    # Before the poses a column that is none, so that curves begin at a recall of 0.
    none = np.zeros((len(evaluation.params.iouThrs), 1), np.bool_)
    found = [each for each in evaluation.evalImgs if each is not None]
    matched = np.hstack([none, *(each["dtMatches"] > 0 for each in found)])
    ignored = np.hstack([~none, *(each["dtIgnore"] > 0 for each in found)])
    scores = np.hstack([np.inf, *(each["dtScores"] for each in found)])
    case_of = np.repeat(
        [0, *(each["image_id"] - 1 for each in found)],
        [1, *(len(each["dtScores"]) for each in found)],
    )
    # Stable, and in the order of the cases: as pycocotools sorts.
    order = np.argsort(-scores, kind="mergesort")
    persons = [sum(person.counts for person in case.truths) for case in cases]
    return Matches(
        (matched & ~ignored)[:, order],
        (~matched & ~ignored)[:, order],
        np.array(image_of_case)[case_of[order]],
        np.bincount(image_of_case, persons).astype(np.intp),
    )


def evaluation_of(cases: Sequence[Case], poses: Sequence[Poses], max_poses: int) -> Any:
    """Return pycocotools' evaluation of poses, with the matches of each case."""
    from pycocotools.cocoeval import COCOeval

    # The names of a person's fields are those of COCO's files.
    truths = [
        [
            {**msgspec.to_builtins(person), "num_keypoints": person.labelled}
            for person in case.truths
        ]
        for case in cases
    ]
    answers = [
        [
            {
                "keypoints": np.insert(points + TO_COCO_PX, 2, 1.0, axis=1).ravel(),
                "score": score,
                # Not used: there are no limits of area.
                "area": 1.0,
                "iscrowd": 0,
            }
            for points, score in zip(found.keypoints, found.scores.tolist(), strict=True)
        ]
        for found in poses
    ]
    # pycocotools prints its progress, and stdout is for data.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_data_set(truths), _data_set(answers), "keypoints")
        parameters = evaluation.params
        parameters.maxDets = [max_poses]
        parameters.areaRng, parameters.areaRngLbl = parameters.areaRng[:1], ["all"]
        evaluation.evaluate()
    return evaluation


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
