"""Accuracy of models on annotated images, by several protocols."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgepose.benchmark import oks
from edgepose.benchmark.coco import AnnotatedImage, Person
from edgepose.benchmark.results import AccuracyRow, Interval
from edgepose.datatypes import CropRegion, Frame, Poses
from edgepose.errors import SourceError
from edgepose.imaging.preprocess import preprocess
from edgepose.protocols import LoadedModel
from edgepose.sources.images import read_image

CROP_FACTOR: Final = 1.25
"""Side of the square around a person, in longer sides of the annotated box."""
_CROP: Final = f"cropped to a square of {CROP_FACTOR} times the longer side of the box"


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
        return 1 if self.one_person or self.cropped else oks.MAX_POSES_PER_IMAGE


_ALL: Final = (
    Protocol("single", True, True, f"images with one person, {_CROP}; the best pose counts"),
    Protocol("whole", True, False, "images with one person, not cropped; the best pose counts"),
    Protocol("multi", False, False, "all images, not cropped; all poses count, of any score"),
    Protocol("crops", False, True, f"all images, {_CROP} of each person; the best pose counts"),
)
PROTOCOLS: Final = {protocol.name: protocol for protocol in _ALL}


@dataclass(slots=True)
class _Collected:
    """The cases of one protocol, and the poses that each model found in them."""

    protocol: Protocol
    poses: list[list[Poses]]
    cases: list[oks.Case] = field(default_factory=list)
    image_of_case: list[int] = field(default_factory=list)
    images: int = 0


def cases_of(image: AnnotatedImage, protocol: Protocol) -> tuple[oks.Case, ...]:
    """Return the cases of an image; none if the protocol does not use it."""
    counting = [person for person in image.persons if person.counts]
    if protocol.one_person and (len(image.persons) != 1 or not counting):
        return ()
    if protocol.cropped:
        return tuple(oks.Case(person, (person,)) for person in counting)
    return (oks.Case(None, image.persons),)


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
    on_progress: Callable[[float, str], None] = lambda _share, _text: None,
) -> tuple[tuple[AccuracyRow, ...], tuple[SourceError, ...]]:
    """Run every model on the images of every protocol and compare with the annotations.

    Returns a row per protocol and model (named by `labels`), and why images were left out: one that
    cannot be read or differs in size from its annotation is left out for all models. `against` is
    the index of the model that the others are compared with; `on_progress` gets the share that is
    done, 0..1, and what is being done. Raises SourceError if a protocol is left without a person.
    """
    collected = [_Collected(protocol, [[] for _ in models]) for protocol in protocols]
    left_out: list[SourceError] = []
    for number, image in enumerate(images, 1):
        try:
            frame = _read(image, folder)
        except SourceError as error:
            left_out.append(error)
        else:
            _run(models, frame, image, collected)
        on_progress(number / len(images), f"{number} of {len(images)} images")
    rows = tuple(
        row for each in collected for row in _rows(each, models, labels, against, len(left_out))
    )
    return rows, tuple(left_out)


def notes(against: str | None, left_out: int) -> Iterator[str]:
    """Yield how the figures were computed; `against` is the name of the reference model."""
    yield oks.description()
    if against is not None:
        yield f"To {against}: difference in AP on the same images, with its paired interval."
    if left_out:
        yield f"{left_out} images could not be used and are left out for every model."


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
        matches = oks.match(collected.cases, poses, collected.image_of_case)
        scores.append(oks.Score(matches.figures, matches.resampled()))
    rows = []
    for index, (model, label, score) in enumerate(zip(models, labels, scores, strict=True)):
        figures: dict[str, Any] = {}
        for place, name in enumerate(oks.Figures._fields):
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


def _percent(share: float) -> float:
    return round(share * 100, 3)


def _percents(ends: Interval | None) -> Interval | None:
    return None if ends is None else (_percent(ends[0]), _percent(ends[1]))
