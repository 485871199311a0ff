"""COCO keypoint annotations: images, persons and keypoints."""

from collections.abc import Container, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from edgepose.errors import SourceError, SourceNotFoundError
from edgepose.skeleton import KEYPOINT_COUNT, KEYPOINT_NAMES
from edgepose.sources._base import check_file


class _Category(msgspec.Struct):
    id: int
    keypoints: tuple[str, ...] = ()


class _File(msgspec.Struct):
    categories: list[_Category]
    images: list["AnnotatedImage"]
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


class AnnotatedImage(msgspec.Struct, frozen=True):
    """One image, its size if the file has it, and all persons annotated in it."""

    id: int
    file_name: str
    width: int | None = None
    height: int | None = None
    persons: tuple[Person, ...] = ()


def read_annotations(path: Path) -> tuple[AnnotatedImage, ...]:
    """Read the images and persons of a COCO keypoint file, in the order of the images' ids.

    Categories without keypoints are left out. Raises SourceNotFoundError or SourceError with the
    reason.
    """
    expected = "COCO person keypoint annotations (such as person_keypoints_val2017.json)"
    check_file(path, expected)
    try:
        return _images(msgspec.json.decode(path.read_bytes(), type=_File))
    except ValueError as error:
        raise SourceError(f"{path}: expected {expected}: {error}") from None


def check_images(images: Sequence[AnnotatedImage], folder: Path) -> None:
    """Raise SourceNotFoundError naming an image that is not in the folder."""
    if not folder.is_dir():
        raise SourceNotFoundError(f"{folder}: no such folder; --images takes that of the images")
    missing = [i.file_name for i in images if not (folder / i.file_name).is_file()]
    if missing:
        raise SourceNotFoundError(
            f"{folder}: {len(missing)} of the {len(images)} annotated images are missing, such as "
            f"{missing[0]}; pass the folder that has them, or annotations of the images that are "
            "there"
        )


def _images(file: _File) -> tuple[AnnotatedImage, ...]:
    """Return the images; raises ValueError with what is wrong."""
    people = {each.id for each in file.categories if each.keypoints == KEYPOINT_NAMES}
    if not people:
        raise ValueError("no category has the 17 keypoints nose to right_ankle")
    persons: dict[int, list[Person]] = {image.id: [] for image in file.images}
    if len(persons) < len(file.images):
        raise ValueError("two images have the same id")
    for person in file.annotations:
        if person.category_id in people:
            _check(person, persons)
            persons[person.image_id].append(person)
    if not any(person.counts for group in persons.values() for person in group):
        raise ValueError("it has no person with a labelled keypoint")
    images = sorted(file.images, key=lambda image: image.id)
    return tuple(replace(image, persons=tuple(persons[image.id])) for image in images)


def _check(person: Person, images: Container[int]) -> None:
    """Raise ValueError for an annotation that cannot be evaluated."""
    if person.image_id not in images:
        raise ValueError(
            f"annotation {person.id} is of image {person.image_id}, which the file does not list"
        )
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
