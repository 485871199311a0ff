"""Frames turned upright and, where wished, mirrored."""

from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

import cv2
import numpy as np

from edgepose.datatypes import Frame
from edgepose.protocols import FrameSource

_TURNS: Final = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}


class OrientedSource:
    """Turns every frame of a source clockwise by `rotation` degrees, then mirrors it if asked.

    A mirrored frame says so, and the pipeline exchanges left and right of what it finds in it:
    a left hand stays a left hand.
    """

    def __init__(self, source: FrameSource, *, rotation: int, mirror: bool) -> None:
        if rotation not in (0, *_TURNS):
            raise ValueError(f"rotation is 0, 90, 180 or 270 degrees, got {rotation}")
        self.live = source.live
        self.description = source.description
        self._source = source
        self._turn = _TURNS.get(rotation)
        self._mirror = mirror

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._source.__exit__(kind, error, traceback)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, upright and mirrored as asked."""
        for frame in self._source.frames():
            image = frame.image
            if self._turn is not None:
                image = cv2.rotate(image, self._turn).astype(np.uint8, copy=False)
            if self._mirror:
                image = cv2.flip(image, 1).astype(np.uint8, copy=False)
            yield replace(frame, image=image, mirrored=frame.mirrored ^ self._mirror)
