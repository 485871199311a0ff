"""Zones of the frame."""

from dataclasses import dataclass
from typing import Literal

from edgepose.util.polygon import Point, contains


@dataclass(frozen=True)
class Zone:
    """A polygon in fractions of the frame, and what it is for.

    `place` is what of a person must be inside. `exclude` is `falls` if who lies there did not fall,
    as in a bed, and `all` if who is there is no person of the scene, as in a mirror. A person must
    be there for `dwell_ms` to be in the zone, and as long outside to have left it.
    """

    name: str
    polygon: tuple[Point, ...]
    place: Literal["feet", "torso"] = "feet"
    exclude: Literal["none", "falls", "all"] = "none"
    dwell_ms: float = 0.0

    def contains(self, x: float, y: float) -> bool:
        """Return whether a point is inside, in fractions of the frame."""
        return contains(self.polygon, x, y)
