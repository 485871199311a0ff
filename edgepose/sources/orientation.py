"""Frames rotated and mirrored as configured."""

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Final

import cv2
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from edgepose.datatypes import Image
from edgepose.protocols import FrameDemand, FrameSource, FrameStream

# Rotation and mirroring together are one flip or one transposition: half the work of two steps.
_STEPS: Final[Mapping[tuple[int, bool], Callable[[Image], NDArray[Any]]]] = {
    (0, False): lambda image: image,
    (90, False): lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    (180, False): lambda image: cv2.flip(image, -1),
    (270, False): lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
    (0, True): lambda image: cv2.flip(image, 1),
    (90, True): cv2.transpose,
    (180, True): lambda image: cv2.flip(image, 0),
    (270, True): lambda image: cv2.flip(cv2.transpose(image), -1),
}


class OrientedSource:
    """Rotates every frame of a source clockwise by `rotation` degrees, then mirrors it if asked.

    A mirrored frame is marked as such, and the pipeline exchanges left and right of the keypoints
    found in it: a left hand stays a left hand. So `mirror` is for showing a true image as a mirror
    would; a camera that mirrors its images itself must be configured not to.
    """

    def __init__(self, source: FrameSource, *, rotation: int, mirror: bool) -> None:
        self.live = source.live
        self.description = source.description
        self._source = source
        self._step = _STEPS[rotation, mirror]
        self._mirror = mirror

    def frames(self) -> FrameStream:
        """Yield the frames, rotated and mirrored."""
        with closing(self._source.frames()) as frames:
            demand: FrameDemand | None = None
            while True:
                try:
                    frame = frames.send(demand)
                except StopIteration:
                    return
                image = self._step(frame.image).astype(np.uint8, copy=False)
                demand = yield replace(frame, image=image, mirrored=frame.mirrored ^ self._mirror)
                # The consumer alone holds the frame while the next one is awaited.
                del frame, image
