"""A photograph of a person in known motion: a source for any machine, and a truth to measure by."""

import math
import time
from collections.abc import Iterator
from importlib.resources import files
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepose.clock import boottime_ns
from edgepose.datatypes import Frame, Image
from edgepose.errors import SourceError
from edgepose.sources._base import OpenableSource

ASSET: Final = "astronaut.jpg"
PERIOD_NS: Final = 8_000_000_000
"""After this long the motion repeats."""


def read_photograph() -> Image:
    """Return the bundled photograph, uint8 (512, 512, 3) RGB."""
    data = (files("edgepose") / "assets" / ASSET).read_bytes()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"the bundled {ASSET} is damaged; install edgepose again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


class SyntheticSource(OpenableSource):
    """The photograph, swaying, turning and zooming along a smooth path that depends on time only.

    `realtime` paces the frames and makes the source live; otherwise they come as fast as they are
    taken. `frame_count` None never ends. Timestamps are exactly `1 / fps` apart.
    """

    description = "synthetic"

    def __init__(
        self,
        *,
        size_wh: tuple[int, int] = (640, 480),
        fps: float = 30.0,
        frame_count: int | None = None,
        realtime: bool = True,
    ) -> None:
        self.live = realtime
        self.start_ns = 0
        self._size_wh = size_wh
        self._interval_ns = round(1e9 / fps)
        self._frame_count = frame_count
        self._photograph: Image | None = None

    def open(self) -> None:
        """Read the photograph."""
        self._photograph = read_photograph()

    def close(self) -> None:
        """Forget the photograph."""
        self._photograph = None

    def affine_at(self, elapsed_ns: int) -> NDArray[np.float64]:
        """Return the (2, 3) map from photograph px to frame px, this long after the first frame."""
        width, height = self._size_wh
        phase = 2 * math.pi * (elapsed_ns % PERIOD_NS) / PERIOD_NS
        scale = min(width, height) / 512 * (0.8 + 0.08 * math.sin(2 * phase))
        angle = math.radians(6) * math.sin(phase)
        cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
        centre_x = width * (0.5 + 0.12 * math.sin(phase))
        centre_y = height * (0.5 + 0.05 * math.sin(3 * phase))
        return np.array(
            [
                [cosine, -sine, centre_x - 256 * (cosine - sine)],
                [sine, cosine, centre_y - 256 * (sine + cosine)],
            ]
        )

    def frames(self) -> Iterator[Frame]:
        """Yield the frames of the motion."""
        photograph = self._photograph
        if photograph is None:
            raise SourceError("synthetic: read before it was opened")
        self.start_ns = boottime_ns()
        # Pixel centres lie half a pixel inside the continuous coordinates of the map.
        inward = np.array([0.5, 0.5])
        sequence = 0
        while self._frame_count is None or sequence < self._frame_count:
            elapsed_ns = sequence * self._interval_ns
            affine = self.affine_at(elapsed_ns)
            affine[:, 2] += affine[:, :2] @ inward - inward
            image = cv2.warpAffine(
                photograph,
                affine,
                self._size_wh,
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=(90, 90, 90),
            )
            timestamp_ns = self.start_ns + elapsed_ns
            if self.live:
                time.sleep(max(0, timestamp_ns - boottime_ns()) / 1e9)
            yield Frame(image.astype(np.uint8, copy=False), timestamp_ns, sequence)
            sequence += 1
