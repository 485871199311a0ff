"""OKS average precision of models on annotated pictures, with what chance alone could change.

Matching and the figures are pycocotools' own; only the resampling for the intervals is done here,
over its matches, so that a thousand resamples cost less than running the models.
"""

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepose.benchmark.coco import Person, Picture
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
"""COCO names a keypoint by the index of its pixel, frame px by the place of that pixel's middle.

On 216 annotated persons MoveNet's strong keypoints lie 0.2 to 0.5 px to the right and below in the
median without this.
"""
MAX_POSES_A_PICTURE: Final = 20
"""As in COCO's own keypoint evaluation."""

_RECALLS: Final = np.linspace(0.0, 1.0, 101)
_AT_50, _AT_75 = 0, 5
_INTERVAL_PERCENT: Final = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Protocol:
    """Which pictures are looked at, how, and what a model's answer is."""

    name: str
    one_person: bool
    cropped: bool
    description: str

    @property
    def best_pose_only(self) -> bool:
        """Whether there is one truth a look, so that the best pose is the answer."""
        return self.one_person or self.cropped


_CROP: Final = (
    f"cropped to a square of {CROP_FACTOR} times the longer side of the person's annotated box"
)
PROTOCOLS: Final = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "single",
            one_person=True,
            cropped=True,
            description=f"pictures with exactly one annotated person, {_CROP}; the best pose "
            "counts",
        ),
        Protocol(
            "whole",
            one_person=True,
            cropped=False,
            description="pictures with exactly one annotated person, the whole picture padded to "
            "the model's input; the best pose counts",
        ),
        Protocol(
            "multi",
            one_person=False,
            cropped=False,
            description="all pictures, the whole picture padded to the model's input; every pose "
            "that the model gives (model.max_poses at most) counts, whatever its score",
        ),
        Protocol(
            "crops",
            one_person=False,
            cropped=True,
            description=f"every annotated person of every picture, {_CROP}; neighbours stay "
            "visible, the best pose counts, one truth a crop",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Case:
    """One look of a protocol: at the whole picture or around one person, and who is expected."""

    around: Person | None
    truths: tuple[Person, ...]


class Figures(NamedTuple):
    """Average precision and recall, 0..1, over OKS .50 to .95 where no threshold is named."""

    ap: float
    ap50: float
    ap75: float
    ar: float


@dataclass(frozen=True, slots=True)
class Matches:
    """Which poses of one model are right, and how good that makes it.

    D poses, highest score first, at T = 10 thresholds of OKS: `right` and `wrong` bool (T, D),
    neither where a pose lies on somebody who does not count; `picture_of` (D,) is the index of the
    picture a pose is from, `truths_of` (pictures,) how many persons count in each. `figures` are
    those of pycocotools.
    """

    figures: Figures
    right: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    picture_of: NDArray[np.intp]
    truths_of: NDArray[np.intp]

    def weighted(self, weights: NDArray[np.intp]) -> Figures:
        """Return the figures as if picture i were there `weights[i]` times; NaN without persons."""
        truths = int(weights @ self.truths_of)
        if not truths:
            return Figures(*(float("nan"),) * 4)
        if not len(self.picture_of):
            return Figures(0.0, 0.0, 0.0, 0.0)
        times = weights[self.picture_of]
        # Copies of a pose are one step: the best precision from a pose on is never reached between
        # its copies. Where two poses of one picture share a score pycocotools would take turns;
        # which of them comes first is as arbitrary there.
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
        """Return the figures (resamples, 4) of pictures drawn with replacement.

        The draws follow from the seed and the number of pictures alone, so rows of two models on
        the same pictures belong together, and so does their difference. One picture alone tells
        nothing of others, and gives no rows.
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

    def interval(self, figure: int) -> tuple[float, float] | None:
        """Return the 95% interval of a figure by its index; None of fewer than two pictures."""
        return _interval(self.resampled[:, figure])

    def difference(self, other: "Score") -> tuple[float, tuple[float, float] | None]:
        """Return how much higher the AP is than another model's, and the paired 95% interval."""
        return (
            self.figures.ap - other.figures.ap,
            _interval(self.resampled[:, 0] - other.resampled[:, 0]),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """All models in one protocol, in the order they were given."""

    protocol: Protocol
    pictures: int
    persons: int
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of every protocol, and the pictures that could not be read, with the reason."""

    results: tuple[Result, ...]
    left_out: tuple[SourceError, ...]


@dataclass(slots=True)
class _Looks:
    """What one protocol has collected: its cases, and each model's poses for them."""

    protocol: Protocol
    models: int
    cases: list[Case] = field(default_factory=list)
    picture_of_case: list[int] = field(default_factory=list)
    poses: list[list[Poses]] = field(init=False)
    pictures: int = 0

    def __post_init__(self) -> None:
        self.poses = [[] for _ in range(self.models)]


def cases_of(picture: Picture, protocol: Protocol) -> tuple[Case, ...]:
    """Return the looks a protocol takes at a picture; none where it leaves the picture out."""
    counting = [person for person in picture.persons if person.counts]
    if protocol.one_person and (len(picture.persons) != 1 or not counting):
        return ()
    if protocol.cropped:
        return tuple(Case(person, (person,)) for person in counting)
    return (Case(None, picture.persons),)


def person_region(person: Person, input_size_wh: tuple[int, int]) -> CropRegion:
    """Return the region around a person, in frame px, in the shape of the model's input.

    It is the square of CROP_FACTOR times the longer side of the box, extended in one direction
    where the input is no square.
    """
    x, y, width, height = person.box_xywh
    side = CROP_FACTOR * max(width, height)
    shorter = min(input_size_wh)
    half_x = side / 2 * input_size_wh[0] / shorter
    half_y = side / 2 * input_size_wh[1] / shorter
    centre_x, centre_y = x + width / 2, y + height / 2
    return CropRegion(centre_x - half_x, centre_y - half_y, centre_x + half_x, centre_y + half_y)


def evaluate(
    models: Sequence[LoadedModel],
    pictures: Sequence[Picture],
    folder: Path,
    protocols: Sequence[Protocol],
    *,
    on_picture: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Run every model on the pictures of every protocol and compare with the annotations.

    `on_picture` is called after each picture. One that cannot be read, or is of another size than
    annotated, is left out for all models. Raises SourceError where a protocol is left without
    anybody to find.
    """
    collected = [_Looks(protocol, len(models)) for protocol in protocols]
    left_out: list[SourceError] = []
    for picture in pictures:
        try:
            frame = _read(picture, folder)
        except SourceError as error:
            left_out.append(error)
        else:
            _look(models, frame, picture, collected)
        on_picture()
    return Evaluation(tuple(_result(looks, len(left_out)) for looks in collected), tuple(left_out))


def match(
    cases: Sequence[Case],
    poses: Sequence[Poses],
    picture_of_case: Sequence[int] | None = None,
) -> Matches:
    """Compare poses with truths, case by case, by the rules of COCO's keypoint evaluation.

    `picture_of_case` are indices from 0 without gaps; without it each case is a picture of its own.
    Raises EdgeposeError where pycocotools is not installed.
    """
    coco, coco_eval = _pycocotools()
    picture_of = np.arange(len(cases)) if picture_of_case is None else np.array(picture_of_case)
    images = [{"id": index} for index in range(1, len(cases) + 1)]
    # pycocotools prints its progress, and stdout is for data.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = coco_eval(
            _data_set(coco, images, _truths(cases)),
            _data_set(coco, images, _answers(poses)),
            "keypoints",
        )
        parameters = evaluation.params
        parameters.maxDets = [MAX_POSES_A_PICTURE]
        parameters.areaRng, parameters.areaRngLbl = parameters.areaRng[:1], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    ap = evaluation.eval["precision"][:, :, 0, 0, 0].mean(axis=1)
    recall = evaluation.eval["recall"][:, 0, 0, 0]
    right, wrong, scores, case_of = _columns(evaluation.evalImgs, len(parameters.iouThrs))
    # Stable, and in the order of the cases: as pycocotools sorts.
    order = np.argsort(-scores, kind="mergesort")
    truths_of = np.zeros(int(picture_of.max()) + 1, np.intp)
    np.add.at(truths_of, picture_of, [sum(p.counts for p in case.truths) for case in cases])
    return Matches(
        Figures(float(ap.mean()), float(ap[_AT_50]), float(ap[_AT_75]), float(recall.mean())),
        right[:, order],
        wrong[:, order],
        picture_of[case_of[order]],
        truths_of,
    )


def check_installed() -> str:
    """Return the version of pycocotools; raise EdgeposeError where it is not installed."""
    _pycocotools()
    from importlib.metadata import version

    return version("pycocotools")


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


def _read(picture: Picture, folder: Path) -> Frame:
    path = folder / picture.file_name
    frame = Frame(read_image(path), 0, 0, path=str(path))
    if picture.size_wh not in (None, frame.size_wh):
        width, height = frame.size_wh
        assert picture.size_wh is not None
        raise SourceError(
            f"{path}: the picture is {width}x{height}, its annotations are of "
            f"{picture.size_wh[0]}x{picture.size_wh[1]}; it was scaled or turned, get the original"
        )
    return frame


def _look(
    models: Sequence[LoadedModel], frame: Frame, picture: Picture, collected: Sequence[_Looks]
) -> None:
    # Protocols share looks: every one of `single` is among those of `crops`.
    done: dict[tuple[int, int | None], Poses] = {}
    for looks in collected:
        cases = cases_of(picture, looks.protocol)
        for case in cases:
            for index, model in enumerate(models):
                key = (index, None if case.around is None else id(case.around))
                if key not in done:
                    done[key] = _poses(model, frame, case.around)
                best = slice(1) if looks.protocol.best_pose_only else slice(MAX_POSES_A_PICTURE)
                poses = done[key]
                looks.poses[index].append(poses.select(np.arange(len(poses))[best]))
        looks.cases += cases
        looks.picture_of_case += [looks.pictures] * len(cases)
        looks.pictures += bool(cases)


def _poses(model: LoadedModel, frame: Frame, around: Person | None) -> Poses:
    spec = model.pose_model.input_spec
    region = (
        model.pose_model.default_region(frame.size_wh)
        if around is None
        else person_region(around, spec.size_wh)
    )
    tensor, to_frame = preprocess(frame.image, region, spec)
    return model.pose_model.decode(model.interpreter.invoke(tensor), to_frame)


def _result(looks: _Looks, left_out: int) -> Result:
    protocol = looks.protocol
    persons = sum(person.counts for case in looks.cases for person in case.truths)
    if not persons:
        reason = f" ({left_out} pictures could not be read)" if left_out else ""
        raise SourceError(
            f"protocol {protocol.name}: nobody is left to find{reason}; it takes "
            f"{protocol.description.split(';', maxsplit=1)[0]}"
        )
    scores = []
    for poses in looks.poses:
        matches = match(looks.cases, poses, looks.picture_of_case)
        scores.append(Score(matches.figures, matches.resampled()))
    return Result(protocol, looks.pictures, persons, tuple(scores))


def _data_set(coco: Any, images: list[dict[str, int]], annotations: list[dict[str, Any]]) -> Any:
    data_set = coco()
    data_set.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
    data_set.createIndex()
    return data_set


def _truths(cases: Sequence[Case]) -> list[dict[str, Any]]:
    rows = [
        {
            "image_id": index,
            "category_id": 1,
            "bbox": list(person.box_xywh),
            "area": person.area,
            "keypoints": list(person.keypoints),
            "num_keypoints": person.labelled,
            "iscrowd": int(person.crowd),
        }
        for index, case in enumerate(cases, 1)
        for person in case.truths
    ]
    # From 1: pycocotools takes an id of 0 for no match.
    return [{**row, "id": number} for number, row in enumerate(rows, 1)]


def _answers(poses: Sequence[Poses]) -> list[dict[str, Any]]:
    rows = [
        {
            "image_id": index,
            "category_id": 1,
            # Only asked for with ranges of area, of which there is one without limits here.
            "area": 1.0,
            "iscrowd": 0,
            "keypoints": np.concatenate(
                (points + TO_COCO_PX, np.ones((len(points), 1))), axis=1, dtype=np.float64
            ).ravel(),
            "score": score,
        }
        for index, found in enumerate(poses, 1)
        for points, score in zip(found.keypoints, found.scores.tolist(), strict=True)
    ]
    return [{**row, "id": number} for number, row in enumerate(rows, 1)]


def _columns(
    per_case: Sequence[dict[str, Any] | None], thresholds: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64], NDArray[np.intp]]:
    """Return right and wrong (T, D), scores (D,) and case (D,) of all poses, case after case."""
    right = [np.empty((thresholds, 0), np.bool_)]
    wrong = [np.empty((thresholds, 0), np.bool_)]
    scores: list[float] = []
    case_of: list[int] = []
    for index, entry in enumerate(per_case):
        if entry is not None:
            matched, ignored = entry["dtMatches"] > 0, entry["dtIgnore"].astype(np.bool_)
            right.append(matched & ~ignored)
            wrong.append(~matched & ~ignored)
            scores += entry["dtScores"]
            case_of += [index] * len(entry["dtScores"])
    return (
        np.concatenate(right, axis=1),
        np.concatenate(wrong, axis=1),
        np.array(scores, np.float64),
        np.array(case_of, np.intp),
    )


def _interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.percentile(known, _INTERVAL_PERCENT)
    return float(low), float(high)
