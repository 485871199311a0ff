"""Average precision by object keypoint similarity (OKS), with bootstrap intervals.

pycocotools matches poses and computes the figures. Only the resampling for the intervals is done
here, on its matches, so that a thousand resamples take less time than running the models.
"""

import contextlib
import importlib.metadata
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepose.benchmark.coco import Person
from edgepose.benchmark.results import Interval
from edgepose.datatypes import Poses
from edgepose.errors import EdgeposeError

RESAMPLES: Final = 1000
SEED: Final = 0
TO_COCO_PX: Final = -0.5
"""COCO gives a keypoint as the index of its pixel, frame px as the centre of that pixel.

Without this, on 216 annotated persons, MoveNet's strong keypoints are 0.2 to 0.5 px to the right
and below in the median.
"""
MAX_POSES_PER_IMAGE: Final = 20
"""As in COCO's own keypoint evaluation."""

_RECALLS: Final = np.linspace(0.0, 1.0, 101)
_AT_50, _AT_75 = 0, 5
_INTERVAL_PERCENT: Final = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Case:
    """One inference of a protocol: on the whole image or a crop, and the expected persons."""

    around: Person | None
    truths: tuple[Person, ...]


class Figures(NamedTuple):
    """Average precision and recall, 0..1, over OKS .50 to .95 unless the name has a threshold."""

    ap: float
    ap50: float
    ap75: float
    ar: float


@dataclass(frozen=True, slots=True)
class Matches:
    """Which poses of one model are right.

    D poses, highest score first, at T = 10 thresholds of OKS: `right` and `wrong` bool (T, D),
    neither for a pose on a person who does not count; `image_of` (D,) is the index of a pose's
    image, `truths_of` (images,) the number of persons that count. `figures` are pycocotools'.
    """

    figures: Figures
    right: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    image_of: NDArray[np.intp]
    truths_of: NDArray[np.intp]

    def weighted(self, weights: NDArray[np.intp]) -> Figures:
        """Return the figures as if image i existed `weights[i]` times; NaN without persons."""
        truths = int(weights @ self.truths_of)
        if not truths:
            return Figures(*(float("nan"),) * 4)
        if not len(self.image_of):
            return Figures(0.0, 0.0, 0.0, 0.0)
        times = weights[self.image_of]
        # Copies of a pose are one step: the best precision from a pose on is never reached between
        # its copies. If two poses of one image share a score, pycocotools would alternate them;
        # their order is arbitrary there as well.
        right = np.cumsum(self.right * times, axis=1, dtype=np.float64)
        wrong = np.cumsum(self.wrong * times, axis=1, dtype=np.float64)
        recall = right / truths
        precision = right / (wrong + right + np.spacing(1))
        best_from = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        ap = np.empty(len(recall))
        for index, (reached, best) in enumerate(zip(recall, best_from, strict=True)):
            first = np.searchsorted(reached, _RECALLS, side="left")
            ap[index] = best[first[first < len(best)]].sum() / len(_RECALLS)
        return Figures(
            float(ap.mean()), float(ap[_AT_50]), float(ap[_AT_75]), float(recall[:, -1].mean())
        )

    def resampled(self, resamples: int = RESAMPLES, seed: int = SEED) -> NDArray[np.float64]:
        """Return the figures (resamples, 4) of images drawn with replacement.

        The draws depend on the seed and the number of images only, so rows of two models on the
        same images are paired, and so is their difference. A single image gives no rows.
        """
        count = len(self.truths_of)
        if count < 2:
            return np.empty((0, 4))
        generator = np.random.default_rng(seed)
        return np.array(
            [
                self.weighted(np.bincount(generator.integers(0, count, count), minlength=count))
                for _ in range(resamples)
            ]
        )


@dataclass(frozen=True, slots=True)
class Score:
    """One model in one protocol: its figures, and those of every resample (resamples, 4)."""

    figures: Figures
    resampled: NDArray[np.float64]

    def interval(self, figure: int) -> Interval | None:
        """Return the 95% interval of a figure by its index; None of fewer than two images."""
        return _interval(self.resampled[:, figure])

    def difference(self, other: "Score") -> tuple[float, Interval | None]:
        """Return the AP less that of another model, and the paired 95% interval."""
        return (
            self.figures.ap - other.figures.ap,
            _interval(self.resampled[:, 0] - other.resampled[:, 0]),
        )


def match(
    cases: Sequence[Case],
    poses: Sequence[Poses],
    image_of_case: Sequence[int] | None = None,
) -> Matches:
    """Compare poses with truths, case by case, by the rules of COCO's keypoint evaluation.

    `image_of_case` are indices from 0 without gaps; without it each case is an image of its own.
    Raises EdgeposeError if pycocotools is not installed.
    """
    coco, coco_eval = _pycocotools()
    image_of = np.arange(len(cases)) if image_of_case is None else np.array(image_of_case)
    # pycocotools prints its progress, and stdout is for data.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = coco_eval(
            _data_set(coco, len(cases), _truths(cases)),
            _data_set(coco, len(cases), _answers(poses)),
            "keypoints",
        )
        parameters = evaluation.params
        parameters.maxDets = [MAX_POSES_PER_IMAGE]
        parameters.areaRng, parameters.areaRngLbl = parameters.areaRng[:1], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    ap = evaluation.eval["precision"][:, :, 0, 0, 0].mean(axis=1)
    recall = evaluation.eval["recall"][:, 0, 0, 0]
    figures = Figures(float(ap.mean()), float(ap[_AT_50]), float(ap[_AT_75]), float(recall.mean()))
    none = np.empty((len(parameters.iouThrs), 0), np.bool_)
    found = [(index, each) for index, each in enumerate(evaluation.evalImgs) if each is not None]
    matched = np.concatenate([none, *(each["dtMatches"] > 0 for _, each in found)], axis=1)
    ignored = np.concatenate([none, *(each["dtIgnore"] > 0 for _, each in found)], axis=1)
    scores = np.array([score for _, each in found for score in each["dtScores"]], np.float64)
    case_of = np.array([index for index, each in found for _ in each["dtScores"]], np.intp)
    # Stable, and in the order of the cases: as pycocotools sorts.
    order = np.argsort(-scores, kind="mergesort")
    truths_of = np.zeros(int(image_of.max()) + 1, np.intp)
    np.add.at(truths_of, image_of, [sum(p.counts for p in case.truths) for case in cases])
    return Matches(
        figures,
        (matched & ~ignored)[:, order],
        (~matched & ~ignored)[:, order],
        image_of[case_of[order]],
        truths_of,
    )


def check_installed() -> str:
    """Return the version of pycocotools; raises EdgeposeError if it is not installed."""
    _pycocotools()
    return importlib.metadata.version("pycocotools")


def description() -> str:
    """Return how the figures are computed."""
    return (
        f"AP and AR (pycocotools {check_installed()}): average precision and recall x 100, mean "
        "over OKS .50 to .95; no pose threshold applies. In brackets: 95% interval, bootstrap over "
        f"images ({RESAMPLES} resamples, seed {SEED})."
    )


def _pycocotools() -> tuple[Any, Any]:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise EdgeposeError(
            f"accuracy on COCO needs pycocotools, which cannot be imported ({error}); install it "
            "with `pip install 'edgepose[coco]'`"
        ) from None
    return COCO, COCOeval


def _data_set(coco: Any, images: int, annotations: list[dict[str, Any]]) -> Any:
    data_set = coco()
    # From 1: pycocotools takes an id of 0 for no match.
    data_set.dataset = {
        "images": [{"id": number} for number in range(1, images + 1)],
        "annotations": [{**each, "id": number} for number, each in enumerate(annotations, 1)],
        "categories": [{"id": 1}],
    }
    data_set.createIndex()
    return data_set


def _truths(cases: Sequence[Case]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": number,
            "category_id": 1,
            "bbox": list(person.box_xywh),
            "area": person.area,
            "keypoints": list(person.keypoints),
            "num_keypoints": person.labelled,
            "iscrowd": int(person.crowd),
        }
        for number, case in enumerate(cases, 1)
        for person in case.truths
    ]


def _answers(poses: Sequence[Poses]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": number,
            "category_id": 1,
            # Only used with ranges of area, of which there is one without limits here.
            "area": 1.0,
            "iscrowd": 0,
            "keypoints": np.concatenate(
                (points + TO_COCO_PX, np.ones((len(points), 1))), axis=1, dtype=np.float64
            ).ravel(),
            "score": score,
        }
        for number, found in enumerate(poses, 1)
        for points, score in zip(found.keypoints, found.scores.tolist(), strict=True)
    ]


def _interval(values: NDArray[np.float64]) -> Interval | None:
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.percentile(known, _INTERVAL_PERCENT)
    return float(low), float(high)
