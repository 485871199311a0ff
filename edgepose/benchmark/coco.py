"""COCO keypoint annotations: people in pictures, and where their keypoints are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from edgepose.errors import SourceError, SourceNotFoundError
from edgepose.skeleton import KEYPOINT_COUNT, KEYPOINT_NAMES

_NAMED: Final = 3
"""Missing files that an error names; of the others it says how many."""
_WHAT: Final = "COCO person keypoint annotations (such as person_keypoints_val2017.json)"


class _Category(msgspec.Struct):
    id: int
    name: str = ""
    keypoints: tuple[str, ...] = ()


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: int | None = None
    height: int | None = None


class _Annotation(msgspec.Struct):
    id: int
    image_id: int
    category_id: int
    area: float
    bbox: tuple[float, float, float, float]
    keypoints: tuple[float, ...] = ()
    iscrowd: int | bool = 0


class _File(msgspec.Struct):
    categories: list[_Category]
    images: list[_Image]
    annotations: list[_Annotation]


@dataclass(frozen=True, slots=True)
class Person:
    """One annotated person, or a crowd of them.

    `box_xywh` and `area` in frame px; `keypoints` are 17 (x, y, v) in one row, v 0 where a
    keypoint is not labelled.
    """

    box_xywh: tuple[float, float, float, float]
    area: float
    keypoints: tuple[float, ...]
    crowd: bool = False

    @property
    def labelled(self) -> int:
        """How many keypoints have a place."""
        return sum(v > 0 for v in self.keypoints[2::3])

    @property
    def counts(self) -> bool:
        """Whether a pose is expected here; the others are neither found nor missed."""
        return not self.crowd and self.labelled > 0


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, its size where the file says it, and everybody annotated in it."""

    file_name: str
    size_wh: tuple[int, int] | None
    persons: tuple[Person, ...]


def read_annotations(path: Path) -> tuple[Picture, ...]:
    """Read the pictures and persons of a COCO keypoint file, in the order of the pictures' ids.

    Categories without keypoints are left out. Raises SourceNotFoundError or SourceError with what
    is wrong.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise SourceNotFoundError(f"{path}: there is no such annotation file") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot read the annotations: {error.strerror}") from error
    try:
        file = msgspec.json.decode(content, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: expected {_WHAT}, got another file ({error})") from None
    return _pictures(file, path)


def check_images(pictures: tuple[Picture, ...], folder: Path) -> None:
    """Raise SourceNotFoundError naming pictures that are not in the folder."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "there is no such folder"
        raise SourceNotFoundError(f"{folder}: {what}; --images takes the folder of the pictures")
    missing = [p.file_name for p in pictures if not (folder / p.file_name).is_file()]
    if missing:
        others = len(missing) - _NAMED
        more = f" and {others} more" if others > 0 else ""
        raise SourceNotFoundError(
            f"{folder}: {len(missing)} of the {len(pictures)} annotated pictures needed are not "
            f"there: {', '.join(missing[:_NAMED])}{more}; give the folder they are in, or "
            "annotations of only those that are"
        )


def _pictures(file: _File, path: Path) -> tuple[Picture, ...]:
    with_keypoints = [category for category in file.categories if category.keypoints]
    people = {c.id for c in with_keypoints if c.keypoints == KEYPOINT_NAMES}
    if not people:
        got = (
            f"{with_keypoints[0].name!r} with {len(with_keypoints[0].keypoints)} other keypoints"
            if with_keypoints
            else "no category with keypoints"
        )
        raise SourceError(
            f"{path}: expected {_WHAT} with the 17 keypoints nose to right_ankle, got {got}"
        )
    persons: dict[int, list[Person]] = {image.id: [] for image in file.images}
    if len(persons) < len(file.images):
        raise SourceError(f"{path}: expected {_WHAT}, got two pictures with the same id")
    for annotation in file.annotations:
        if annotation.category_id in people:
            if annotation.image_id not in persons:
                raise SourceError(
                    f"{path}: annotation {annotation.id} is of picture {annotation.image_id}, "
                    "which the file does not list; it was cut down without care, use the original"
                )
            persons[annotation.image_id].append(_person(annotation, path))
    if not any(person.counts for group in persons.values() for person in group):
        raise SourceError(
            f"{path}: expected {_WHAT}, got no person with a labelled keypoint, so there is "
            "nothing to compare with"
        )
    return tuple(
        Picture(image.file_name, _size_wh(image), tuple(persons[image.id]))
        for image in sorted(file.images, key=lambda image: image.id)
    )


def _person(annotation: _Annotation, path: Path) -> Person:
    if len(annotation.keypoints) != 3 * KEYPOINT_COUNT:
        raise SourceError(
            f"{path}: annotation {annotation.id} has {len(annotation.keypoints)} keypoint numbers, "
            f"expected {3 * KEYPOINT_COUNT} (x, y, v of 17); this is no keypoint file, or a "
            "damaged one"
        )
    person = Person(
        annotation.bbox, annotation.area, annotation.keypoints, bool(annotation.iscrowd)
    )
    if person.counts and (max(annotation.bbox[2:]) <= 0 or annotation.area <= 0):
        raise SourceError(
            f"{path}: annotation {annotation.id} has a box of {annotation.bbox[2]:g} by "
            f"{annotation.bbox[3]:g} and an area of {annotation.area:g}, expected positive ones; "
            "OKS is relative to the area"
        )
    return person


def _size_wh(image: _Image) -> tuple[int, int] | None:
    if image.width is None or image.height is None:
        return None
    return image.width, image.height
