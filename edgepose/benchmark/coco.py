"""COCO keypoint annotations: persons in images, and where their keypoints are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from edgepose.errors import SourceError, SourceNotFoundError
from edgepose.skeleton import KEYPOINT_COUNT, KEYPOINT_NAMES

_NAMED: Final = 3
"""Number of missing files that an error names."""
_EXPECTED: Final = "expected COCO person keypoint annotations"


class _Category(msgspec.Struct):
    id: int
    name: str = ""
    keypoints: tuple[str, ...] = ()


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: int | None = None
    height: int | None = None


class _File(msgspec.Struct):
    categories: list[_Category]
    images: list[_Image]
    annotations: list["Person"]


class Person(msgspec.Struct, frozen=True, rename={"box_xywh": "bbox", "crowd": "iscrowd"}):
    """One annotated person, or a crowd.

    `box_xywh` and `area` in frame px; `keypoints` are 17 (x, y, v) in one row, v 0 for a keypoint
    that is not labelled.
    """

    box_xywh: tuple[float, float, float, float]
    area: float
    keypoints: tuple[float, ...] = ()
    crowd: bool | int = False
    id: int = 0
    image_id: int = 0
    category_id: int = 0

    @property
    def labelled(self) -> int:
        """Number of labelled keypoints."""
        return sum(v > 0 for v in self.keypoints[2::3])

    @property
    def counts(self) -> bool:
        """Whether a pose is expected; others are neither found nor missed."""
        return not self.crowd and self.labelled > 0


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image, its size if the file has it, and all persons annotated in it."""

    file_name: str
    size_wh: tuple[int, int] | None
    persons: tuple[Person, ...]


def read_annotations(path: Path) -> tuple[AnnotatedImage, ...]:
    """Read the images and persons of a COCO keypoint file, in the order of the images' ids.

    Categories without keypoints are left out. Raises SourceNotFoundError or SourceError with the
    reason.
    """
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        return _images(file)
    except FileNotFoundError:
        raise SourceNotFoundError(f"{path}: no such annotation file") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot read the annotations: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise SourceError(
            f"{path}: {_EXPECTED} (such as person_keypoints_val2017.json): {error}"
        ) from None


def check_images(images: Sequence[AnnotatedImage], folder: Path) -> None:
    """Raise SourceNotFoundError naming images that are not in the folder."""
    if not folder.is_dir():
        raise SourceNotFoundError(f"{folder}: no such folder; --images takes that of the images")
    missing = [i.file_name for i in images if not (folder / i.file_name).is_file()]
    if missing:
        others = len(missing) - _NAMED
        more = f" and {others} more" if others > 0 else ""
        raise SourceNotFoundError(
            f"{folder}: {len(missing)} of the {len(images)} annotated images are missing: "
            f"{', '.join(missing[:_NAMED])}{more}; pass the folder that has them, or annotations "
            "of the images that are there"
        )


def _images(file: _File) -> tuple[AnnotatedImage, ...]:
    """Return the images; raises ValueError with what is wrong."""
    with_keypoints = [category for category in file.categories if category.keypoints]
    people = {c.id for c in with_keypoints if c.keypoints == KEYPOINT_NAMES}
    if not people:
        names = [f"{c.name!r} with {len(c.keypoints)} keypoints" for c in with_keypoints]
        raise ValueError(
            "no category has the 17 keypoints nose to right_ankle, got "
            f"{', '.join(names) or 'no category with keypoints'}"
        )
    persons: dict[int, list[Person]] = {image.id: [] for image in file.images}
    if len(persons) < len(file.images):
        raise ValueError("two images have the same id")
    for annotation in file.annotations:
        if annotation.category_id in people:
            if annotation.image_id not in persons:
                raise ValueError(
                    f"annotation {annotation.id} is of image {annotation.image_id}, which the file "
                    "does not list"
                )
            _check(annotation)
            persons[annotation.image_id].append(annotation)
    if not any(person.counts for group in persons.values() for person in group):
        raise ValueError("it has no person with a labelled keypoint")
    return tuple(
        AnnotatedImage(
            image.file_name,
            None if image.width is None or image.height is None else (image.width, image.height),
            tuple(persons[image.id]),
        )
        for image in sorted(file.images, key=lambda image: image.id)
    )


def _check(person: Person) -> None:
    """Raise ValueError for an annotation that cannot be evaluated."""
    if len(person.keypoints) != 3 * KEYPOINT_COUNT:
        raise ValueError(
            f"annotation {person.id} has {len(person.keypoints)} keypoint numbers, expected "
            f"{3 * KEYPOINT_COUNT} (x, y, v of 17)"
        )
    width, height = person.box_xywh[2:]
    if person.counts and (max(width, height) <= 0 or person.area <= 0):
        raise ValueError(
            f"annotation {person.id} has a box of {width:g} by {height:g} and an area of "
            f"{person.area:g}, OKS needs positive ones"
        )
