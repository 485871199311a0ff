"""The plot of latency against mAP as SVG inside a report page, readable on a phone."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from string import ascii_uppercase
from typing import Final, NamedTuple

from edgepose.benchmark.html_page import items
from edgepose.benchmark.plot import MEASURED, PUBLISHED_SERIES, Point, points
from edgepose.benchmark.results import Document
from edgepose.benchmark.tables import format_ms

WIDTH: Final = 360
HEIGHT: Final = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 352, 24, 268
_RADIUS_PER_ROOT_MB: Final = 2.2
_NAME_WH: Final = (9, 11)
"""Least distance of two names."""
_CLASSES: Final = {
    MEASURED: "here",
    **dict(zip(PUBLISHED_SERIES, ("pixel5-gpu", "pixel5-cpu", "pi4"), strict=True)),
}


class _Axes(NamedTuple):
    """The ranges of both axes; latency is on a logarithmic one."""

    low_ms: float
    high_ms: float
    low_map: float
    high_map: float

    @classmethod
    def around(cls, bubbles: Sequence[Point]) -> "_Axes":
        """Return axes on which all bubbles have a margin."""
        times = [bubble.latency_ms for bubble in bubbles]
        maps = [bubble.map for bubble in bubbles]
        low, high = math.floor((min(maps) - 4) / 10) * 10, math.ceil((max(maps) + 4) / 10) * 10
        return cls(min(times) * 0.75, max(times) * 1.35, low, high)

    def x(self, latency_ms: float) -> float:
        """Return the position of a latency."""
        share = math.log(latency_ms / self.low_ms) / math.log(self.high_ms / self.low_ms)
        return _LEFT + share * (_RIGHT - _LEFT)

    def y(self, value: float) -> float:
        """Return the position of an mAP."""
        share = (value - self.low_map) / (self.high_map - self.low_map)
        return _BOTTOM - share * (_BOTTOM - _TOP)

    def ticks_ms(self) -> Iterator[float]:
        """Yield 1, 2 and 5 of each power of ten in the range."""
        for exponent in range(-2, 6):
            for step in (1, 2, 5):
                if self.low_ms <= (tick := step * 10.0**exponent) <= self.high_ms:
                    yield tick


def figure(document: Document) -> str:
    """Return the plot and what its letters and numbers mean, as HTML.

    Nothing if no model that ran has a measured or published mAP.
    """
    bubbles = [bubble for bubble in points(document) if bubble.latency_ms > 0]
    names = _names(bubbles)
    if MEASURED not in {series for series, _ in names}:
        return ""
    axes = _Axes.around(bubbles)
    caption = (
        "latency of one invoke in ms (log scale) against mAP; filled: the median here, "
        f"{document.machine.name}; dotted, dashed, solid: {', '.join(PUBLISHED_SERIES)}; area: "
        "size of the file"
    )
    measured = [
        f"{names[MEASURED, b.model]}: {b.model}, {format_ms(b.latency_ms)} ms, {b.megabytes:.1f} MB"
        for b in bubbles
        if b.series == MEASURED
    ]
    published = {f"{names[b.series, b.model]}: {b.model}" for b in bubbles if b.series != MEASURED}
    view = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(caption)}"'
    shapes = [*_grid(axes), *_bubbles(axes, bubbles), *_name_texts(axes, bubbles, names)]
    lines = [f"<svg {view}>", *shapes, "</svg>", f"<figcaption>{escape(caption)}</figcaption>"]
    legend = items([*measured, *sorted(published)], "footnotes")
    return "\n".join(("<figure>", *lines, legend, "</figure>"))


def _names(bubbles: Sequence[Point]) -> dict[tuple[str, str], str]:
    """Return a letter for each measured model, and a number for each published one."""
    measured = [bubble.model for bubble in bubbles if bubble.series == MEASURED]
    published = dict.fromkeys(bubble.model for bubble in bubbles if bubble.series != MEASURED)
    numbers = {model: str(number) for number, model in enumerate(published, 1)}
    letters = {
        model: ascii_uppercase[index % 26] * (index // 26 + 1)
        for index, model in enumerate(measured)
    }
    return {
        (bubble.series, bubble.model): (letters if bubble.series == MEASURED else numbers)[
            bubble.model
        ]
        for bubble in bubbles
    }


def _grid(axes: _Axes) -> Iterator[str]:
    for tick in axes.ticks_ms():
        x = f"{axes.x(tick):.1f}"
        yield f'<path class="grid" d="M{x} {_TOP}V{_BOTTOM}"/>'
        yield f'<text class="axis" x="{x}" y="{_BOTTOM + 14}" text-anchor="middle">{tick:g}</text>'
    for level in range(round(axes.low_map), round(axes.high_map) + 1, 10):
        y = axes.y(level)
        yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>'
        yield f'<text class="axis" x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{level}</text>'
    yield f'<text class="axis" x="{_LEFT - 26}" y="{_TOP - 10}">mAP</text>'
    yield f'<text class="axis" x="{_RIGHT}" y="{_BOTTOM + 28}" text-anchor="end">ms</text>'


def _bubbles(axes: _Axes, bubbles: Sequence[Point]) -> Iterator[str]:
    for each in bubbles:
        at = f'cx="{axes.x(each.latency_ms):.1f}" cy="{axes.y(each.map):.1f}"'
        yield f'<circle class="{_CLASSES[each.series]}" {at} r="{_radius(each):.1f}"/>'


def _name_texts(
    axes: _Axes, bubbles: Sequence[Point], names: dict[tuple[str, str], str]
) -> Iterator[str]:
    """Yield letters above and numbers below the bubbles, or where no name is there already."""
    width, height = _NAME_WH
    placed: list[tuple[float, float]] = []
    for each in bubbles:
        radius = _radius(each)
        above, below = (0.0, -radius - 3), (0.0, radius + height - 1)
        beside = [(radius + width, 4.0), (-radius - width, 4.0)]
        first, last = (above, below) if each.series == MEASURED else (below, above)
        at = [
            (axes.x(each.latency_ms) + dx, axes.y(each.map) + dy)
            for dx, dy in (first, *beside, last)
        ]
        free = [
            (x, y)
            for x, y in at
            if not any(abs(x - a) < width and abs(y - b) < height for a, b in placed)
        ]
        x, y = (free or at)[0]
        placed.append((x, y))
        yield f'<text class="name" x="{x:.1f}" y="{y:.1f}">{names[each.series, each.model]}</text>'


def _radius(bubble: Point) -> float:
    return _RADIUS_PER_ROOT_MB * math.sqrt(bubble.megabytes)
