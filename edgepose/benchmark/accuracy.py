"""OKS average precision of models on annotated images, with bootstrap intervals.

pycocotools matches poses and computes the figures. Only the resampling for the intervals is done
here, on its matches, so that a thousand resamples take less time than running the models.
"""

import contextlib
import importlib.metadata
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepose.benchmark.coco import AnnotatedImage, Person
from edgepose.benchmark.results import AccuracyRow, Interval
from edgepose.datatypes import CropRegion, Frame, Poses
from edgepose.errors import EdgeposeError, SourceError
from edgepose.imaging.preprocess import preprocess
from edgepose.protocols import LoadedModel
from edgepose.sources.images import read_image

CROP_FACTOR: Final = 1.25
"""Side of the square around a person, in longer sides of the annotated box."""
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
_CROP: Final = (
    f"cropped to a square of {CROP_FACTOR} times the longer side of the person's annotated box"
)


@dataclass(frozen=True, slots=True)
class Protocol:
    """Which images are used, whether they are cropped, and which poses count."""

    name: str
    one_person: bool
    cropped: bool
    description: str

    @property
    def max_poses(self) -> int:
        """Number of poses of a case that count; the best one if one person is expected."""
        return 1 if self.one_person or self.cropped else MAX_POSES_PER_IMAGE


PROTOCOLS: Final = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "single", True, True, f"images with one annotated person, {_CROP}; the best pose counts"
        ),
        Protocol(
            "whole",
            True,
            False,
            "images with one annotated person, padded to the model's input; the best pose counts",
        ),
        Protocol(
            "multi",
            False,
            False,
            "all images, padded to the model's input; all poses count (model.max_poses at most), "
            "regardless of their scores",
        ),
        Protocol(
            "crops",
            False,
            True,
            f"every annotated person of every image, {_CROP}; other persons stay visible, the best "
            "pose counts",
        ),
    )
}


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


@dataclass(slots=True)
class _Collected:
    """The cases of one protocol, and the poses that each model found in them."""

    protocol: Protocol
    poses: list[list[Poses]]
    cases: list[Case] = field(default_factory=list)
    image_of_case: list[int] = field(default_factory=list)
    images: int = 0


def cases_of(image: AnnotatedImage, protocol: Protocol) -> tuple[Case, ...]:
    """Return the cases of an image; none if the protocol does not use it."""
    counting = [person for person in image.persons if person.counts]
    if protocol.one_person and (len(image.persons) != 1 or not counting):
        return ()
    if protocol.cropped:
        return tuple(Case(person, (person,)) for person in counting)
    return (Case(None, image.persons),)


def person_region(person: Person, input_size_wh: tuple[int, int]) -> CropRegion:
    """Return the region around a person, in frame px, in the shape of the model's input.

    It is the square of CROP_FACTOR times the longer side of the box, extended in one direction if
    the input is no square.
    """
    x, y, width, height = person.box_xywh
    half = CROP_FACTOR * max(width, height) / 2 / min(input_size_wh)
    half_x, half_y = half * input_size_wh[0], half * input_size_wh[1]
    centre_x, centre_y = x + width / 2, y + height / 2
    return CropRegion(centre_x - half_x, centre_y - half_y, centre_x + half_x, centre_y + half_y)


def evaluate(
    models: Sequence[LoadedModel],
    labels: Sequence[str],
    images: Sequence[AnnotatedImage],
    folder: Path,
    protocols: Sequence[Protocol],
    *,
    against: int | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> tuple[tuple[AccuracyRow, ...], tuple[SourceError, ...]]:
    """Run every model on the images of every protocol and compare with the annotations.

    Returns a row per protocol and model (named by `labels`), and why images were left out: one that
    cannot be read or differs in size from its annotation is left out for all models. `against` is
    the index of the model that the others are compared with; `on_image` is called after each image.
    Raises SourceError if a protocol is left without a person.
    """
    collected = [_Collected(protocol, [[] for _ in models]) for protocol in protocols]
    left_out: list[SourceError] = []
    for image in images:
        try:
            frame = _read(image, folder)
        except SourceError as error:
            left_out.append(error)
        else:
            _run(models, frame, image, collected)
        on_image()
    rows = tuple(
        row for each in collected for row in _rows(each, models, labels, against, len(left_out))
    )
    return rows, tuple(left_out)


def notes(against: str | None, left_out: int) -> Iterator[str]:
    """Yield how the figures were computed; `against` is the name of the reference model."""
    yield (
        f"AP and AR (pycocotools {check_installed()}): average precision and recall x 100, mean "
        "over OKS .50 to .95. No pose threshold applies."
    )
    yield f"In brackets: 95% interval, bootstrap over images ({RESAMPLES} resamples, seed {SEED})."
    if against is not None:
        yield f"To {against}: difference in AP on the same images, with its paired interval."
    if left_out:
        yield f"{left_out} images could not be used and are left out for every model."


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


def _read(image: AnnotatedImage, folder: Path) -> Frame:
    path = folder / image.file_name
    frame = Frame(read_image(path), 0, 0, path=str(path))
    if image.size_wh is not None and image.size_wh != frame.size_wh:
        width, height = frame.size_wh
        raise SourceError(
            f"{path}: the image is {width}x{height}, its annotations are of "
            f"{image.size_wh[0]}x{image.size_wh[1]}; it was scaled or rotated, get the original"
        )
    return frame


def _run(
    models: Sequence[LoadedModel],
    frame: Frame,
    image: AnnotatedImage,
    collected: Sequence[_Collected],
) -> None:
    # Protocols share cases: every one of `single` is among those of `crops`.
    done: dict[tuple[int, int | None], Poses] = {}
    for each in collected:
        cases = cases_of(image, each.protocol)
        for case in cases:
            for index, model in enumerate(models):
                key = (index, None if case.around is None else id(case.around))
                if key not in done:
                    done[key] = _poses(model, frame, case.around)
                poses = done[key]
                kept = np.arange(min(len(poses), each.protocol.max_poses))
                each.poses[index].append(poses.select(kept))
        each.cases += cases
        each.image_of_case += [each.images] * len(cases)
        each.images += bool(cases)


def _poses(model: LoadedModel, frame: Frame, around: Person | None) -> Poses:
    spec = model.pose_model.input_spec
    region = (
        model.pose_model.default_region(frame.size_wh)
        if around is None
        else person_region(around, spec.size_wh)
    )
    tensor, to_frame = preprocess(frame.image, region, spec)
    return model.pose_model.decode(model.interpreter.invoke(tensor), to_frame)


def _rows(
    collected: _Collected,
    models: Sequence[LoadedModel],
    labels: Sequence[str],
    against: int | None,
    left_out: int,
) -> list[AccuracyRow]:
    protocol = collected.protocol
    persons = sum(person.counts for case in collected.cases for person in case.truths)
    if not persons:
        reason = f" ({left_out} images could not be read)" if left_out else ""
        raise SourceError(
            f"protocol {protocol.name}: no person to find{reason}; it uses "
            f"{protocol.description.partition(';')[0]}"
        )
    scores = []
    for poses in collected.poses:
        matches = match(collected.cases, poses, collected.image_of_case)
        scores.append(Score(matches.figures, matches.resampled()))
    rows = []
    for index, (model, label, score) in enumerate(zip(models, labels, scores, strict=True)):
        figures: dict[str, Any] = {}
        for place, name in enumerate(Figures._fields):
            figures[name] = _percent(score.figures[place])
            figures[f"{name}_interval_95"] = _percents(score.interval(place))
        if against is not None and index != against:
            difference, interval = score.difference(scores[against])
            figures["ap_difference"] = _percent(difference)
            figures["ap_difference_interval_95"] = _percents(interval)
        rows.append(
            AccuracyRow(
                about=f"{protocol.description}. {collected.images} images, {persons} persons",
                model=label,
                bytes=model.path.stat().st_size,
                device=model.device,
                protocol=protocol.name,
                images=collected.images,
                persons=persons,
                left_out=left_out,
                against=None if against is None else labels[against],
                **figures,
            )
        )
    return rows


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


def _percent(share: float) -> float:
    return round(share * 100, 3)


def _percents(ends: Interval | None) -> Interval | None:
    return None if ends is None else (_percent(ends[0]), _percent(ends[1]))
