"""The sections about people over time: presence, publishing of poses, and what is made of them."""

from typing import Annotated, Final, Literal

from msgspec import Meta

from edgepose.config.fields import Id, Live, Milliseconds, Section
from edgepose.config.values import Validate
from edgepose.util.polygon import Polygon, crossing_sides

MAX_CORNERS: Final = 64


def _check_polygon(corners: Polygon) -> None:
    """Raise ValueError unless the corners are those of a polygon within the frame."""
    if not 3 <= len(corners) <= MAX_CORNERS:
        raise ValueError(f"expected 3 to {MAX_CORNERS} corners, got {len(corners)}")
    for number, (x, y) in enumerate(corners, 1):
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise ValueError(
                f"corner {number} is [{x:g}, {y:g}], expected fractions of the frame, 0 to 1; "
                "divide pixels by the width and height of the frame"
            )
        same = corners.index((x, y)) + 1
        if same < number:
            raise ValueError(f"corners {same} and {number} are the same point; leave one out")
    crossing = crossing_sides(corners)
    if crossing is not None:
        one, other = (f"{side + 1} to {(side + 1) % len(corners) + 1}" for side in crossing)
        raise ValueError(
            f"the side from corner {one} crosses or touches that from {other}; give the corners in "
            "their order around the zone"
        )


Corners = Annotated[
    tuple[tuple[float, float], ...],
    Meta(description="3 corners or more, such as [[0.1, 0.6], [0.4, 0.6], [0.4, 1], [0.1, 1]]"),
    Validate(_check_polygon),
]


class ZoneConfig(Section, frozen=True, kw_only=True):
    """A part of a camera's frame."""

    name: Live[Id]
    polygon: Live[Corners]
    place: Live[Literal["feet", "torso"]] = "feet"
    exclude: Live[Literal["none", "falls", "all"]] = "none"
    dwell_ms: Live[Milliseconds] = 0


class PresenceConfig(Section, frozen=True, kw_only=True):
    """Delays of the presence topic."""

    on_delay_ms: Live[Milliseconds] = 300
    off_delay_ms: Live[Milliseconds] = 1000
