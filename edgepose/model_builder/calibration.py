"""Calibration images: made from photos that are part of the scikit-image package.

No other data is needed, and every computer makes the same images. They are not realistic; they only
have to move every activation through the range that real images reach, which is verified by the
accuracy in models/README.md.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage

from edgepose.datatypes import Image

# Public domain (NASA), the others CC0, according to scikit-image's data README.
PERSON = "astronaut.png"
BACKGROUNDS = ("chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
SEED = 20240607


def calibration_images(count: int, side: int) -> list[Image]:
    """Return `count` RGB images (side, side, 3), the same ones at every call."""
    person = _photo(PERSON)
    backgrounds = [_photo(name) for name in BACKGROUNDS]
    random = np.random.default_rng(SEED)
    return [_scene(person, backgrounds, side, random) for _ in range(count)]


def _photo(name: str) -> Image:
    decoded: Any = cv2.imread(str(Path(skimage.__file__).parent / "data" / name))
    return np.ascontiguousarray(decoded[:, :, ::-1], np.uint8)


def _scene(
    person: Image, backgrounds: list[Image], side: int, random: np.random.Generator
) -> Image:
    """Return a person near or far, on black or on a photo, in any light."""
    canvas: Any = np.zeros((side, side, 3), np.uint8)
    if random.random() < 0.5:
        behind = backgrounds[random.integers(len(backgrounds))]
        canvas = _warp(behind, side, random.uniform(0.6, 1.5), random.uniform(-20, 20), (0, 0))
    for _ in range(1 + int(random.random() < 0.25)):
        zoom = float(np.exp(random.uniform(np.log(0.35), np.log(1.8))))
        shift = random.uniform(-0.25, 0.25, 2)
        angle = random.normal(0, 12)
        mask = _warp(np.full_like(person, 255), side, zoom, angle, shift) > 127
        canvas = np.where(mask, _warp(person, side, zoom, angle, shift), canvas)
    if random.random() < 0.5:
        canvas = canvas[:, ::-1]
    if random.random() < 0.2:
        top, left = (random.uniform(0, 0.7, 2) * side).astype(int)
        height, width = (random.uniform(0.1, 0.3, 2) * side).astype(int)
        canvas = canvas.copy()
        canvas[top : top + height, left : left + width] = random.integers(0, 256, 3)
    if random.random() < 0.2:
        canvas = np.repeat(canvas.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    if random.random() < 0.2:
        canvas = cv2.GaussianBlur(np.ascontiguousarray(canvas), (0, 0), random.uniform(0.5, 2.0))
    light = (canvas / 255.0) ** random.uniform(0.6, 1.6) * random.uniform(0.6, 1.3)
    light = light * random.uniform(0.85, 1.15, 3) + random.normal(0, 0.02, canvas.shape)
    return np.asarray(np.clip(np.round(light * 255), 0, 255), np.uint8)


def _warp(image: Image, side: int, zoom: float, degrees: float, shift: Any) -> Any:
    """Return the image's square centre at `zoom` times the canvas, rotated and shifted."""
    source: Any = image
    if side / min(image.shape[:2]) * zoom < 0.5:
        source = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    height, width = source.shape[:2]
    scale = side / min(height, width) * zoom
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    matrix[0, 2] += side * (0.5 + shift[0]) - width / 2
    matrix[1, 2] += side * (0.5 + shift[1]) - height / 2
    return cv2.warpAffine(source, matrix, (side, side))
