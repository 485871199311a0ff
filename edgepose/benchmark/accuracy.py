"""Accuracy of models on annotated images, by several protocols."""

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgepose.benchmark import oks
from edgepose.benchmark.coco import AnnotatedImage, Person
from edgepose.benchmark.results import AccuracyRow
from edgepose.datatypes import CropRegion, Frame, Poses
from edgepose.errors import SourceError
from edgepose.imaging.preprocess import preprocess
from edgepose.protocols import LoadedModel
from edgepose.sources.images import read_image

CROP_FACTOR: Final = 1.25
"""Side of the square around a person, in longer sides of the annotated box."""
_CROP: Final = f"cropped to a square of {CROP_FACTOR} times the longer side of the box"


class Protocol(NamedTuple):
    """Which images are used, whether they are cropped, and which poses count."""

    name: str
    one_person: bool
    cropped: bool
    description: str


_ALL: Final = (
    Protocol("single", True, True, f"images with one person, {_CROP}; the best pose counts"),
    Protocol("whole", True, False, "images with one person, not cropped; the best pose counts"),
    Protocol("multi", False, False, "all images, not cropped; all poses count, of any score"),
    Protocol("crops", False, True, f"all images, {_CROP} of each person; the best pose counts"),
)
PROTOCOLS: Final = {protocol.name: protocol for protocol in _ALL}

_Found = tuple[AnnotatedImage, dict[str, dict[Person | None, Poses]]]
"""An image, and the poses in it: by model, then around a person or in the whole image (None)."""


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
    models: Mapping[str, LoadedModel],
    images: Sequence[AnnotatedImage],
    folder: Path,
    protocols: Sequence[Protocol],
    *,
    against: str | None,
    on_progress: Callable[[float, str], None],
) -> tuple[tuple[AccuracyRow, ...], tuple[SourceError, ...]]:
    """Run every model on the images of every protocol and compare with the annotations.

    Returns a row per protocol and model, and why images were left out: one that cannot be read or
    differs in size from its annotation is left out for all models. `against` is the model that the
    others are compared with; `on_progress` gets the share that is done, 0..1, and what is being
    done. Raises SourceError if a protocol is left without a person.
    """
    found: list[_Found] = []
    left_out: list[SourceError] = []
    for number, image in enumerate(images, 1):
        # Protocols share cases: every one of `single` is among those of `crops`.
        regions = {case.around for protocol in protocols for case in cases_of(image, protocol)}
        try:
            frame = _read(image, folder)
        except SourceError as error:
            left_out.append(error)
        else:
            poses = {
                name: {around: _poses(model, frame, around) for around in regions}
                for name, model in models.items()
            }
            found.append((image, poses))
        on_progress(number / len(images), f"{number} of {len(images)} images")
    rows: list[AccuracyRow] = []
    for protocol in protocols:
        rows += _rows(protocol, found, models, against, len(left_out))
    return tuple(rows), tuple(left_out)


def notes(against: str | None, left_out: int) -> Iterator[str]:
    """Yield how the figures were computed; `against` is the name of the reference model."""
    yield (
        f"AP and AR (pycocotools {importlib.metadata.version('pycocotools')}): average precision "
        "and recall x 100, mean over OKS .50 to .95; no pose threshold applies. In brackets: 95% "
        f"interval, bootstrap over images ({oks.RESAMPLES} resamples, seed {oks.SEED})."
    )
    if against is not None:
        yield f"To {against}: difference in AP on the same images, with its paired interval."
    if left_out:
        yield f"{left_out} images could not be used and are left out for every model."


def _read(image: AnnotatedImage, folder: Path) -> Frame:
    path = folder / image.file_name
    frame = Frame(read_image(path), 0, 0, path=str(path))
    if image.width is not None and (image.width, image.height) != frame.size_wh:
        width, height = frame.size_wh
        raise SourceError(
            f"{path}: the image is {width}x{height}, its annotations are of "
            f"{image.width}x{image.height}; it was scaled or rotated, get the original"
        )
    return frame


def _poses(model: LoadedModel, frame: Frame, around: Person | None) -> Poses:
    spec = model.pose_model.input_spec
    region = None if around is None else person_region(around, spec.size_wh)
    tensor, to_frame = preprocess(frame.image, region, spec)
    return model.pose_model.decode(model.interpreter.invoke(tensor), to_frame)


def _rows(
    protocol: Protocol,
    found: Sequence[_Found],
    models: Mapping[str, LoadedModel],
    against: str | None,
    left_out: int,
) -> list[AccuracyRow]:
    used = [(cases, poses) for image, poses in found if (cases := cases_of(image, protocol))]
    all_cases = [cases for cases, _ in used]
    persons = sum(person.counts for cases in all_cases for case in cases for person in case.truths)
    if not persons:
        reason = f" ({left_out} images could not be read)" if left_out else ""
        raise SourceError(
            f"protocol {protocol.name}: no person to find{reason}; it uses "
            f"{protocol.description.partition(';')[0]}"
        )
    max_poses = 1 if protocol.one_person or protocol.cropped else oks.MAX_POSES_PER_IMAGE
    scores = {}
    for name in models:
        found_in = [[poses[name][case.around] for case in cases] for cases, poses in used]
        evaluation = oks.Evaluation(all_cases, found_in, max_poses)
        scores[name] = evaluation.figures(), evaluation.resampled()
    rows = []
    for name, (figures, resampled) in scores.items():
        fields: dict[str, Any] = {}
        for field, figure, of_resamples in zip(figures._fields, figures, resampled.T, strict=True):
            fields[field] = round(figure, 3)
            fields[f"{field}_interval_95"] = oks.interval(of_resamples)
        if against not in (None, name):
            other, other_resampled = scores[against]
            fields["ap_difference"] = round(figures.ap - other.ap, 3)
            fields["ap_difference_interval_95"] = oks.interval((resampled - other_resampled)[:, 0])
        rows.append(
            AccuracyRow(
                about=f"{protocol.description}. {len(used)} images, {persons} persons",
                model=name,
                bytes=models[name].path.stat().st_size,
                device=models[name].device,
                protocol=protocol.name,
                images=len(used),
                persons=persons,
                left_out=left_out,
                against=against,
                **fields,
            )
        )
    return rows
