"""Frames turned upright and, where wished, mirrored."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

import cv2
import numpy as np

from edgepose.datatypes import Frame, Image
from edgepose.protocols import FrameSource
from edgepose.util.resource import Resource


def _flipped(image: Image, code: int) -> Image:
    return cv2.flip(image, code).astype(np.uint8, copy=False)


def _rotated(image: Image, code: int) -> Image:
    return cv2.rotate(image, code).astype(np.uint8, copy=False)


def _transposed(image: Image) -> Image:
    return cv2.transpose(image).astype(np.uint8, copy=False)


# A turn and a mirror image together are one flip, or one transposition: half the work of two steps.
_STEPS: Final[Mapping[tuple[int, bool], Callable[[Image], Image]]] = {
    (0, False): lambda image: image,
    (90, False): lambda image: _rotated(image, cv2.ROTATE_90_CLOCKWISE),
    (180, False): lambda image: _flipped(image, -1),
    (270, False): lambda image: _rotated(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
    (0, True): lambda image: _flipped(image, 1),
    (90, True): _transposed,
    (180, True): lambda image: _flipped(image, 0),
    (270, True): lambda image: _flipped(_transposed(image), -1),
}


class OrientedSource(Resource):
    """Turns every frame of a source clockwise by `rotation` degrees, then mirrors it if asked.

    A mirrored frame says so, and the pipeline exchanges left and right of what it finds in it:
    a left hand stays a left hand. So `mirror` is for showing a true picture as a mirror would;
    a camera that mirrors by itself is to be told not to.
    """

    def __init__(self, source: FrameSource, *, rotation: int, mirror: bool) -> None:
        if (rotation, mirror) not in _STEPS:
            raise ValueError(f"rotation is 0, 90, 180 or 270 degrees, got {rotation}")
        self.live = source.live
        self.description = source.description
        self._source = source
        self._step = _STEPS[rotation, mirror]
        self._mirror = mirror

    def open(self) -> None:
        """Open the source; raises SourceError."""
        self._source.__enter__()

    def close(self) -> None:
        """Close the source; closing twice is fine."""
        self._source.__exit__(None, None, None)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, upright and mirrored as asked."""
        for frame in self._source.frames():
            yield replace(
                frame, image=self._step(frame.image), mirrored=frame.mirrored ^ self._mirror
            )
            # While the next one is awaited, this one belongs to whoever took it.
            del frame
