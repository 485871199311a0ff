"""A photograph of a person in known motion: a source for any machine, with a known ground truth."""

import math
from dataclasses import dataclass
from importlib.resources import files
from itertools import count
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import Frame, Image
from edgepose.errors import SourceError
from edgepose.protocols import FrameStream
from edgepose.sources._base import Pacer
from edgepose.sources._opencv import configure_opencv, to_rgb

ASSET: Final = "astronaut.jpg"
PHOTOGRAPH_PX: Final = 512
"""Width and height of the photograph."""
PERIOD_NS: Final = 8_000_000_000
"""The period of the motion."""
_BACKGROUND: Final = (90, 90, 90)


def read_photograph() -> Image:
    """Return the bundled photograph, uint8 (512, 512, 3) RGB; raises SourceError."""
    try:
        data = (files("edgepose") / "assets" / ASSET).read_bytes()
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except OSError as error:
        raise SourceError(
            f"the bundled {ASSET} cannot be read ({error.strerror}); install edgepose again"
        ) from error
    if image is None:
        raise SourceError(f"the bundled {ASSET} is damaged; install edgepose again")
    return to_rgb(image.astype(np.uint8, copy=False))


@dataclass(kw_only=True)
class SyntheticSource:
    """The photograph, swaying, turning and zooming along a smooth path that depends on time only.

    A `live` source paces the frames by the clock; otherwise they are produced on demand. The
    timestamp of frame k is that of the first one plus k / `fps` seconds, to the nearest nanosecond.
    """

    description = "synthetic:"
    size_wh: tuple[int, int] = (640, 480)
    fps: float = 30.0
    live: bool = True

    def affine_at(self, elapsed_ns: int) -> NDArray[np.float64]:
        """Return the (2, 3) map from photograph px to frame px, this long after the first frame."""
        width, height = self.size_wh
        phase = 2 * math.pi * (elapsed_ns % PERIOD_NS) / PERIOD_NS
        scale = min(width, height) / PHOTOGRAPH_PX * (0.8 + 0.08 * math.sin(2 * phase))
        angle = math.radians(6) * math.sin(phase)
        cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
        centre_x = width * (0.5 + 0.12 * math.sin(phase))
        centre_y = height * (0.5 + 0.05 * math.sin(3 * phase))
        middle = PHOTOGRAPH_PX / 2
        return np.array(
            [
                [cosine, -sine, centre_x - middle * (cosine - sine)],
                [sine, cosine, centre_y - middle * (sine + cosine)],
            ]
        )

    def frames(self) -> FrameStream:
        """Yield frames without end."""
        configure_opencv()
        photograph = read_photograph()
        pacer = Pacer()
        for sequence in count():
            elapsed_ns = round(sequence * 1e9 / self.fps)
            image = self._render(photograph, elapsed_ns)
            if self.live:
                pacer.wait_for(elapsed_ns)
            yield Frame(image, pacer.start_ns + elapsed_ns, sequence)
            del image

    def _render(self, photograph: Image, elapsed_ns: int) -> Image:
        affine = self.affine_at(elapsed_ns)
        # OpenCV counts from the centre of the first pixel, half a pixel inside our coordinates.
        affine[:, 2] += affine[:, :2] @ (0.5, 0.5) - 0.5
        return cv2.warpAffine(
            photograph,
            affine,
            self.size_wh,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=_BACKGROUND,
        ).astype(np.uint8, copy=False)
