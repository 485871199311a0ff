"""Sequences made of annotated images: persons cut out and moved, images panned and zoomed.

Everything is drawn from a seed: the same images and the same number give the same sequence.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import Image
from edgepose.skeleton import MIRRORED
from tests.quality.photographs import Photograph, Photographs, with_alpha

SIZE_WH: Final = (480, 360)
FPS: Final = 30
FRAMES: Final = 240
RENDERING: Final = 1
"""To be counted up if `MadeSequence` renders the same layers differently."""
Matrices = NDArray[np.float64]
"""(frames, 2, 3): the map from px of an image to frame px."""


@dataclass(frozen=True, eq=False)
class Truth:
    """The persons of one frame: keypoints (n, 17, 2) in frame px, visible (n, 17), areas (n,)."""

    keypoints: NDArray[np.float64]
    visible: NDArray[np.bool_]
    areas: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Layer:
    """An image (H, W, 4) RGBA with its persons, and its way through the frames."""

    image: NDArray[np.uint8]
    keypoints: NDArray[np.float64]
    areas: NDArray[np.float64]
    matrices: Matrices


@dataclass(frozen=True, eq=False)
class MadeSequence:
    """Layers from back to front."""

    name: str
    seed: int
    layers: tuple[_Layer, ...]

    @property
    def fingerprint(self) -> str:
        """The same if the sequence is made of the same images in the same way."""
        content = hashlib.sha256(f"{RENDERING} {self.seed}".encode())
        for layer in self.layers:
            for part in (layer.image, layer.keypoints, layer.areas, layer.matrices):
                content.update(np.ascontiguousarray(part).tobytes())
        return content.hexdigest()[:16]

    def frames(self) -> Iterator[tuple[Image, Truth]]:
        """Render frame after frame at FPS."""
        rng = np.random.default_rng(self.seed)
        for index in range(FRAMES):
            yield self._render(index, rng)

    def _render(self, index: int, rng: np.random.Generator) -> tuple[Image, Truth]:
        canvas = np.zeros((SIZE_WH[1], SIZE_WH[0], 3), np.float32)
        points: list[NDArray[np.float64]] = []
        visible: list[NDArray[np.bool_]] = []
        areas: list[float] = []
        for layer in self.layers:
            matrix = layer.matrices[index]
            warped = cv2.warpAffine(layer.image, matrix, SIZE_WH, flags=cv2.INTER_AREA)
            opaque = warped[:, :, 3] > 127
            alpha = warped[:, :, 3:].astype(np.float32) / 255
            canvas += alpha * (warped[:, :, :3] - canvas)
            for place, shown in zip(points, visible, strict=True):
                shown &= ~_covered(place, opaque)
            for keypoints in layer.keypoints:
                place = keypoints[:, :2] @ matrix[:, :2].T + matrix[:, 2]
                points.append(place)
                inside = (place >= 0).all(axis=1) & (place < SIZE_WH).all(axis=1)
                visible.append((keypoints[:, 2] > 0) & inside)
            areas.extend(layer.areas * abs(np.linalg.det(matrix[:, :2])))
        canvas += rng.normal(0, 3, canvas.shape)
        truth = Truth(
            np.array(points).reshape(-1, 17, 2),
            np.array(visible).reshape(-1, 17),
            np.array(areas),
        )
        return np.clip(canvas, 0, 255).astype(np.uint8), truth


def sequences(photographs: Photographs, count: int) -> Iterator[MadeSequence]:
    """Make `count` sequences: in turn walkers that cross, a panned group, and both at once."""
    kinds = (_walkers, _pan, _pan_and_walkers)
    for seed in range(count):
        kind = kinds[seed % len(kinds)]
        rng = np.random.default_rng(seed)
        yield MadeSequence(f"{seed}-{kind.__name__[1:]}", seed, tuple(kind(photographs, rng)))


def _walkers(photographs: Photographs, rng: np.random.Generator) -> list[_Layer]:
    """Two to five persons walk, stop, turn, enter and leave; some pass behind a pillar."""
    empty = photographs.empty[rng.integers(len(photographs.empty))]
    layers = [
        _background(empty, _still(empty, rng)),
        *_walking(photographs, rng, int(rng.integers(2, 6))),
    ]
    if rng.random() < 0.5:
        layers.insert(rng.integers(2, len(layers) + 1), _pillar(rng))
    return layers


def _pan(photographs: Photographs, rng: np.random.Generator) -> list[_Layer]:
    """The camera turns and zooms over an image with several persons."""
    group = photographs.groups[rng.integers(len(photographs.groups))]
    return [_background(group, _panning(group, rng))]


def _pan_and_walkers(photographs: Photographs, rng: np.random.Generator) -> list[_Layer]:
    """Persons cross in front of a group, before a camera that turns."""
    return _pan(photographs, rng) + _walking(photographs, rng, int(rng.integers(1, 3)))


def _background(photograph: Photograph, matrices: Matrices) -> _Layer:
    return _Layer(with_alpha(photograph.image), photograph.keypoints, photograph.areas, matrices)


def _walking(photographs: Photographs, rng: np.random.Generator, count: int) -> list[_Layer]:
    """Persons on their ways; those whose feet are lower are nearer, and in front."""
    layers = []
    for _ in range(count):
        person = photographs.cutouts[rng.integers(len(photographs.cutouts))]
        height = rng.uniform(150, 300)
        feet_y = 150 + height * 0.7 + rng.uniform(-15, 15)
        x = _walk(rng, height)
        layers.append((feet_y, _moved(person, height, x, feet_y, rng)))
    return [layer for _, layer in sorted(layers, key=lambda layer: layer[0])]


def _walk(rng: np.random.Generator, height: float) -> NDArray[np.float64]:
    """Return the place along x in every frame: 0.3 to 1.2 heights a second, stops and turns."""
    speed = float(rng.uniform(0.3, 1.2) * height / FPS * rng.choice((-1, 1)))
    outside = -height * 0.3 if speed > 0 else SIZE_WH[0] + height * 0.3
    x = outside if rng.random() < 0.5 else rng.uniform(0.1, 0.9) * SIZE_WH[0]
    current, way = speed, []
    for _ in range(FRAMES):
        if rng.random() < 1 / (2.5 * FPS):
            speed = float(rng.choice((0.0, -1.0, 1.0, 1.0))) * rng.uniform(0.3, 1.2) * height / FPS
        current += float(np.clip(speed - current, -0.05 * height / FPS, 0.05 * height / FPS))
        x += current
        way.append(x)
    return np.array(way)


def _moved(
    person: Photograph,
    height: float,
    x: NDArray[np.float64],
    feet_y: float,
    rng: np.random.Generator,
) -> _Layer:
    """Return a cut-out on its way; it faces the same side always, and bobs with its steps."""
    scale = height / person.image.shape[0]
    mirrored = rng.random() < 0.5
    image, keypoints = person.image, person.keypoints
    phase = np.arange(FRAMES) / FPS * 2 * np.pi * 1.8
    moving = np.minimum(np.abs(np.gradient(x)) * FPS / (0.3 * height), 1.0)
    y = feet_y - height - 0.02 * height * moving * np.abs(np.sin(phase))
    matrices = np.zeros((FRAMES, 2, 3))
    sign = -1.0 if mirrored else 1.0
    matrices[:, 0, 0], matrices[:, 1, 1] = sign * scale, scale
    matrices[:, 0, 2] = x - sign * scale * image.shape[1] / 2
    matrices[:, 1, 2] = y
    return _Layer(
        image, keypoints[:, list(MIRRORED)] if mirrored else keypoints, person.areas, matrices
    )


def _pillar(rng: np.random.Generator) -> _Layer:
    width = int(rng.uniform(25, 70))
    image = np.full((SIZE_WH[1], width, 4), 255, np.uint8)
    image[:, :, :3] = rng.integers(60, 200, 3)
    matrix = np.array([[1, 0, rng.uniform(0.2, 0.8) * SIZE_WH[0]], [0, 1, 0]])
    no_keypoints = np.empty((0, 17, 3))
    return _Layer(image, no_keypoints, np.empty(0), np.repeat(matrix[np.newaxis], FRAMES, axis=0))


def _still(photograph: Photograph, rng: np.random.Generator) -> Matrices:
    height, width = photograph.image.shape[:2]
    scale = max(SIZE_WH[0] / width, SIZE_WH[1] / height) * rng.uniform(1.0, 1.3)
    return _camera(np.full(FRAMES, width / 2), np.full(FRAMES, height / 2), np.full(FRAMES, scale))


def _panning(photograph: Photograph, rng: np.random.Generator) -> Matrices:
    """The camera goes from point to point, each within 1 to 2.5 s, and stays there for a while."""
    height, width = photograph.image.shape[:2]
    smallest = max(SIZE_WH[0] / width, SIZE_WH[1] / height)
    keys = []
    frame = 0.0
    while frame < FRAMES:
        scale = smallest * rng.uniform(1.0, 2.2)
        half_wh = np.array(SIZE_WH) / scale / 2
        centre = rng.uniform(half_wh, np.array((width, height)) - half_wh + 1e-6)
        keys.append((frame, *centre, scale))
        stay = frame + rng.uniform(0.2, 0.8) * FPS
        keys.append((stay, *centre, scale))
        frame = stay + rng.uniform(1.0, 2.5) * FPS
    keys.append((frame, *keys[-1][1:]))
    times, xs, ys, scales = np.array(keys).T
    return _camera(*(_eased(times, values) for values in (xs, ys, scales)))


def _eased(times: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate with speeds that begin and end at zero."""
    frames = np.arange(FRAMES)
    index = np.clip(np.searchsorted(times, frames, side="right") - 1, 0, len(times) - 2)
    part = (frames - times[index]) / (times[index + 1] - times[index])
    smooth = part * part * (3 - 2 * part)
    eased: NDArray[np.float64] = values[index] + smooth * (values[index + 1] - values[index])
    return eased


def _camera(x: NDArray[np.float64], y: NDArray[np.float64], scale: NDArray[np.float64]) -> Matrices:
    """Return the maps of a camera that points at (x, y)."""
    matrices = np.zeros((FRAMES, 2, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = scale
    matrices[:, 0, 2] = SIZE_WH[0] / 2 - scale * x
    matrices[:, 1, 2] = SIZE_WH[1] / 2 - scale * y
    return matrices


def _covered(points: NDArray[np.float64], opaque: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which points lie under an opaque pixel."""
    columns = np.clip(points[:, 0].astype(int), 0, SIZE_WH[0] - 1)
    rows = np.clip(points[:, 1].astype(int), 0, SIZE_WH[1] - 1)
    covered: NDArray[np.bool_] = opaque[rows, columns]
    return covered
