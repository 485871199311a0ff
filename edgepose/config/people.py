"""The sections about people over time: presence, publishing of poses, and what is made of them."""

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from msgspec import Meta

from edgepose.config.fields import Id, Live, Milliseconds, Section
from edgepose.config.values import Boolean, Validate
from edgepose.util.polygon import Polygon, crossing_sides

MAX_CORNERS: Final = 64
BUILT_IN_EXERCISES: Final = ("squat", "push_up", "curl")
ALL_EXERCISES: Final = "auto"
MIN_RANGE_DEG: Final = 20.0


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
    Meta(
        description="3 corners or more, such as [[0.1, 0.6], [0.4, 0.6], [0.4, 1], [0.1, 1]]",
        extra_json_schema={"minItems": 3, "maxItems": MAX_CORNERS},
    ),
    Validate(_check_polygon),
]


Fractions = tuple[float, float, float, float]


def _check_region(region: Fractions) -> None:
    """Raise ValueError unless the edges are in their order and within the frame."""
    x_min, y_min, x_max, y_max = region
    if not (0 <= x_min < x_max <= 1 and 0 <= y_min < y_max <= 1):
        given = ", ".join(f"{edge:g}" for edge in region)
        raise ValueError(
            f"expected 0 <= x_min < x_max <= 1 and 0 <= y_min < y_max <= 1, got [{given}]; divide "
            "pixels by the width and height of the frame"
        )


FrameRegion = Annotated[
    Fractions,
    Meta(description="[x_min, y_min, x_max, y_max], such as [0, 0.4, 0.5, 1]"),
    Validate(_check_region),
]

Degrees = Annotated[float, Meta(ge=0, le=180)]


class ZoneConfig(Section, frozen=True, kw_only=True):
    """A part of a camera's frame."""

    name: Live[Id]
    polygon: Live[Corners]
    place: Live[Literal["feet", "torso"]] = "feet"
    exclude: Live[Literal["none", "falls", "all"]] = "none"
    dwell_ms: Live[Milliseconds] = 0


class PublishConfig(Section, frozen=True, kw_only=True):
    """What a pose message has beside the smoothed keypoints."""

    raw: Live[Boolean] = False
    angles: Live[Boolean] = False


class PresenceConfig(Section, frozen=True, kw_only=True):
    """Delays of the presence topic."""

    on_delay_ms: Live[Milliseconds] = 300
    off_delay_ms: Live[Milliseconds] = 1000


class IdleConfig(Section, frozen=True, kw_only=True):
    """Fewer frames while no person is there."""

    enabled: Live[Boolean] = False
    after_s: Live[Annotated[float, Meta(ge=1, le=3600)]] = 10.0
    fps: Live[Annotated[float, Meta(ge=1, le=30)]] = 5.0


class PostureConfig(Section, frozen=True, kw_only=True):
    """Whether a person stands, sits or lies."""

    enabled: Live[Boolean] = False
    dwell_ms: Live[Milliseconds] = 1000


class FallsConfig(Section, frozen=True, kw_only=True):
    """Suspected falls."""

    enabled: Live[Boolean] = False
    fall_ms: Live[Annotated[int, Meta(ge=500, le=10_000)]] = 2000
    lying_ms: Live[Milliseconds] = 5000
    recovery_ms: Live[Milliseconds] = 3000


class RepetitionsConfig(Section, frozen=True, kw_only=True):
    """The exercise whose repetitions are counted, and what an exercise of the user is."""

    exercise: Live[Id | None] = None
    joint: Live[Literal["elbow", "shoulder", "hip", "knee"] | None] = None
    start_angle: Live[Degrees | None] = None
    turn_angle: Live[Degrees | None] = None
    body: Live[Literal["any", "upright", "horizontal"]] = "any"
    each_side: Live[Boolean] = False

    def conflicts(self) -> Iterator[str]:
        """Report an exercise that is not defined, or a definition that has no effect."""
        start, turn = self.start_angle, self.turn_angle
        if self.exercise in (None, ALL_EXERCISES, *BUILT_IN_EXERCISES):
            if self != RepetitionsConfig(exercise=self.exercise):
                yield (
                    "joint, start_angle, turn_angle, body and each_side define an exercise, which "
                    f"exercise: {self.exercise or 'null'} does not use; write a name of your own "
                    "there, or leave them out"
                )
        elif self.joint is None or start is None or turn is None:
            yield (
                f"{self.exercise} is not built in ({', '.join(BUILT_IN_EXERCISES)}, or "
                f"{ALL_EXERCISES} for these); correct it, or define it with joint, start_angle and "
                "turn_angle"
            )
        elif abs(start - turn) < MIN_RANGE_DEG:
            yield (
                f"start_angle {start:g} and turn_angle {turn:g} are closer than "
                f"{MIN_RANGE_DEG:g} degrees, within which angles jitter; choose them further apart"
            )
