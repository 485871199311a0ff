"""Polygons in a plane, as sequences of corners (x, y)."""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

Point = tuple[float, float]
Polygon = Sequence[Point]


def contains(polygon: Polygon, x: float, y: float) -> bool:
    """Return whether a point is inside: a ray from it crosses an odd number of sides."""
    inside = False
    x0, y0 = polygon[-1]
    for x1, y1 in polygon:
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            inside = not inside
        x0, y0 = x1, y1
    return inside


def outline_distance(polygon: Polygon, x: float, y: float) -> float:
    """Return the distance of a point to the nearest side."""
    return min(_side_distance(start, end, x, y) for start, end in _sides(polygon))


def crossing_sides(polygon: Polygon) -> tuple[int, int] | None:
    """Return the numbers of two sides, from 0, that cross or touch apart from a common corner.

    Side n goes from corner n to the next one. None if there are no such sides.
    """
    sides = list(_sides(polygon))
    for (n, first), (m, second) in combinations(enumerate(sides), 2):
        if m - n not in (1, len(sides) - 1) and _meet(*first, *second):
            return n, m
    return None


def _sides(polygon: Polygon) -> Iterator[tuple[Point, Point]]:
    return zip(polygon, (*polygon[1:], polygon[0]), strict=True)


def _side_distance(start: Point, end: Point, x: float, y: float) -> float:
    dx, dy = end[0] - start[0], end[1] - start[1]
    squared = dx * dx + dy * dy
    along = ((x - start[0]) * dx + (y - start[1]) * dy) / squared if squared else 0.0
    along = min(1.0, max(0.0, along))
    return math.hypot(start[0] + along * dx - x, start[1] + along * dy - y)


def _meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether the lines from a to b and from c to d have a point in common."""
    turns = _turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b)
    if turns[0] * turns[1] < 0 and turns[2] * turns[3] < 0:
        return True
    ends = ((a, b, c), (a, b, d), (c, d, a), (c, d, b))
    return any(turn == 0 and _in_box(*end) for turn, end in zip(turns, ends, strict=True))


def _turn(a: Point, b: Point, c: Point) -> float:
    """Positive or negative as c is on one side of the line through a and b or the other."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _in_box(a: Point, b: Point, c: Point) -> bool:
    return min(a[0], b[0]) <= c[0] <= max(a[0], b[0]) and min(a[1], b[1]) <= c[1] <= max(a[1], b[1])
