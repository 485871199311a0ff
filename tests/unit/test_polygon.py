"""Polygons: what is inside, how far the outline is, which sides cross."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgepose.util.polygon import Polygon, contains, crossing_sides, outline_distance

SQUARE = ((1.0, 1.0), (3.0, 1.0), (3.0, 3.0), (1.0, 3.0))
ARROW = ((0.0, 0.0), (4.0, 2.0), (0.0, 4.0), (1.0, 2.0))
"""Its left side has a notch down to x = 1."""


@pytest.mark.parametrize(
    ("polygon", "x", "y", "inside"),
    [
        (SQUARE, 2, 2, True),
        (SQUARE, 1.001, 2.999, True),
        (SQUARE, 0.999, 2, False),
        (SQUARE, 2, 3.001, False),
        (SQUARE, -5, 1, False),
        (ARROW, 0.5, 2, False),
        (ARROW, 1.1, 2, True),
        (ARROW, 0.2, 0.15, True),
        (ARROW, 4.1, 2, False),
    ],
)
def test_polygon_contains(polygon: Polygon, x: float, y: float, inside: bool) -> None:
    """In either direction of its corners, and with a notch."""
    assert contains(polygon, x, y) == inside
    assert contains(tuple(reversed(polygon)), x, y) == inside


COORDINATE = st.floats(0, 1)
POINT = st.tuples(COORDINATE, COORDINATE)


@given(st.lists(POINT, min_size=3, max_size=8), POINT)
def test_polygon_contains_agrees_with_the_winding_angle(
    polygon: list[tuple[float, float]], point: tuple[float, float]
) -> None:
    """Without crossing sides, the corners go once around a point inside and never outside."""
    assume(crossing_sides(polygon) is None)
    x, y = point
    assume(outline_distance(polygon, x, y) > 1e-6)
    angles = [math.atan2(cy - y, cx - x) for cx, cy in polygon]
    turns = sum(
        math.remainder(after - before, math.tau)
        for before, after in zip(angles, [*angles[1:], angles[0]], strict=True)
    )
    assert contains(polygon, x, y) == (abs(turns) > math.pi)


@pytest.mark.parametrize(
    ("x", "y", "distance"), [(2, 2, 1), (2, 0, 1), (5, 2, 2), (0, 0, math.sqrt(2)), (3, 2, 0)]
)
def test_polygon_outline_distance(x: float, y: float, distance: float) -> None:
    """From inside and outside, to a side or a corner."""
    assert outline_distance(SQUARE, x, y) == pytest.approx(distance)


@pytest.mark.parametrize(
    ("polygon", "sides"),
    [
        (SQUARE, None),
        (ARROW, None),
        (((0, 0), (1, 1), (1, 0)), None),
        # A bow tie: corners in the wrong order.
        (((0, 0), (1, 1), (1, 0), (0, 1)), (0, 2)),
        # A corner on another side, and the same corner twice.
        (((0, 0), (2, 0), (2, 2), (1, 0), (0, 2)), (0, 2)),
        (((0, 0), (2, 0), (1, 1), (2, 2), (0, 2), (1, 1)), (1, 4)),
    ],
)
def test_polygon_crossing_sides(polygon: Polygon, sides: tuple[int, int] | None) -> None:
    """The first two sides that cross or touch."""
    assert crossing_sides(polygon) == sides
