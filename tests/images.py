"""Real images for the tests: those in tests/data, and more beside a developer's checkout."""

from functools import cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from edgepose.datatypes import Frame, Image
from edgepose.sources.synthetic import read_photograph
from tests.conftest import SHARED

DATA: Final = Path(__file__).parent / "data"
EMPTY: Final = ("chelsea.jpg", "coffee.jpg", "rocket.jpg")
"""Images without a person."""
THREE_PEOPLE: Final = "three people"
"""The name of an image of three people side by side, made of those in tests/data."""


@cache
def image(name: str) -> Image:
    """Return an image, uint8 (H, W, 3) RGB: of tests/data, `astronaut`, THREE_PEOPLE, or shared."""
    if name == "astronaut":
        return read_photograph()
    if name == THREE_PEOPLE:
        people = (read_photograph(), image("camera.jpg"), image("grace_hopper.jpg"))
        return np.hstack([_with_height(person, 400) for person in people])
    path = DATA / name if (DATA / name).exists() else SHARED / "data" / name
    pixels = cv2.imread(str(path))
    assert pixels is not None, path
    return np.ascontiguousarray(pixels[:, :, ::-1]).astype(np.uint8)


def frame(name: str) -> Frame:
    """Return an image as a still frame."""
    return Frame(image(name), 1, 0, still=True)


def existing(*names: str) -> tuple[str, ...]:
    """Return those names that are images beside the checkout, for a parametrized test."""
    return tuple(name for name in names if (SHARED / "data" / name).exists())


def existing_models(*names: str) -> tuple[str, ...]:
    """Return those names that are model files beside the checkout, for a parametrized test."""
    return tuple(name for name in names if (SHARED / "models" / name).exists())


def _with_height(pixels: Image, height: int) -> Image:
    width = round(pixels.shape[1] * height / pixels.shape[0])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
