"""Calibration pictures: made from pictures that ship inside the scikit-image package.

Nothing else is needed, so a stranger gets the same pictures. They are not realistic; they only
have to move every activation through the range that real pictures give, which is checked
against measured accuracy in models/README.md.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepose.errors import ConversionError

Picture = npt.NDArray[np.uint8]

PACKAGE = "scikit-image 0.26.0"
# Public domain (NASA), the others CC0, as scikit-image's data README says.
PERSON = ("astronaut.png", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5")
BACKGROUNDS = (
    ("chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    ("coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
    ("rocket.jpg", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"),
    ("motorcycle_left.png", "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179"),
)
SEED = 20240607


def calibration_pictures(count: int, side: int) -> list[Picture]:
    """Return `count` RGB pictures (side, side, 3), the same ones at every call.

    Raises ConversionError when the package is missing or its pictures are not the pinned ones.
    """
    person = _load(*PERSON)
    backgrounds = [_load(*entry) for entry in BACKGROUNDS]
    random = np.random.default_rng(SEED)
    return [_picture(person, backgrounds, side, random) for _ in range(count)]


def _load(name: str, sha256: str) -> Picture:
    import cv2

    try:
        import skimage
    except ImportError as error:
        raise ConversionError(
            f"calibration needs the pictures in {PACKAGE}: pip install 'edgepose[convert]'"
        ) from error
    path = Path(skimage.__file__).parent / "data" / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConversionError(f"{PACKAGE} has no {name}: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ConversionError(f"{name} of {PACKAGE}: expected sha256 {sha256}, got {found}")
    decoded: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(decoded[:, :, ::-1], np.uint8)


def _picture(
    person: Picture, backgrounds: list[Picture], side: int, random: np.random.Generator
) -> Picture:
    """Return one picture: a person near or far, before black or something, in any light."""
    import cv2

    canvas: Any = np.zeros((side, side, 3), np.uint8)
    if random.random() < 0.5:
        behind = backgrounds[random.integers(len(backgrounds))]
        canvas = _warp(behind, side, random.uniform(0.6, 1.5), random.uniform(-20, 20), (0, 0))
    for _ in range(1 + int(random.random() < 0.25)):
        zoom = float(np.exp(random.uniform(np.log(0.35), np.log(1.8))))
        shift = random.uniform(-0.25, 0.25, 2)
        turn = random.normal(0, 12)
        layer = _warp(person, side, zoom, turn, shift)
        mask = _warp(np.full_like(person, 255), side, zoom, turn, shift) > 127
        canvas = np.where(mask, layer, canvas)
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


def _warp(image: Picture, side: int, zoom: float, turn: float, shift: Any) -> Picture:
    """Return the image's square middle at `zoom` times the canvas, turned by degrees, moved."""
    import cv2

    height, width = image.shape[:2]
    scale = side / min(height, width) * zoom
    if scale < 0.5:
        half: Any = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        image = half
        height, width = image.shape[:2]
        scale = side / min(height, width) * zoom
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, scale)
    matrix[0, 2] += side * (0.5 + shift[0]) - width / 2
    matrix[1, 2] += side * (0.5 + shift[1]) - height / 2
    return np.asarray(cv2.warpAffine(image, matrix, (side, side)), np.uint8)
