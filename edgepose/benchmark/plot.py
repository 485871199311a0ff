"""A picture of the table: latency against mAP, published points beside the measured ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgepose.benchmark.results import Document, LatencyRow
from edgepose.errors import EdgeposeError, SinkError, SourceError

MEASURED: Final = "measured here"

_SERIES: Final = {
    "Pixel 5 GPU": "pixel5_gpu_ms",
    "Pixel 5 CPU": "pixel5_cpu_ms",
    "Raspberry Pi 4 CPU": "pi4_cpu_ms",
}
_COLOURS: Final = {
    MEASURED: "#0072b2",
    "Pixel 5 GPU": "#cc79a7",
    "Pixel 5 CPU": "#e69f00",
    "Raspberry Pi 4 CPU": "#d55e00",
}
_POINTS2_PER_MB: Final = 16.0
_SIZE_INCHES: Final = (9.0, 5.5)
_LABEL_POINTS: Final = 8.5
_LABEL_LINES: Final = 1.35
"""Height of a label's line, in heights of its letters."""


@dataclass(frozen=True, slots=True)
class Point:
    """One bubble: which series it belongs to, where it lies, and how large its file is."""

    series: str
    model: str
    latency_ms: float
    map: float
    megabytes: float


def check_installed() -> None:
    """Raise EdgeposeError unless matplotlib can be imported."""
    _pyplot()


def points(document: Document) -> tuple[Point, ...]:
    """Return the bubbles: each model at its fastest, and every published latency.

    A model whose mAP was neither measured nor published has none.
    """
    found = []
    for model in dict.fromkeys(row.model for row in document.latency):
        rows = [row for row in document.latency if row.model == model]
        row = min(rows, key=lambda row: row.latency_ms.p50 if row.latency_ms else float("inf"))
        accuracy = _map(row)
        if row.latency_ms is not None and accuracy is not None:
            found.append(Point(MEASURED, model, row.latency_ms.p50, accuracy, row.bytes / 1e6))
    found += [
        Point(series, row.name, getattr(row, key), row.map, row.megabytes)
        for series, key in _SERIES.items()
        for row in document.published
    ]
    return tuple(found)


def draw(document: Document, path: Path) -> None:
    """Write the picture as PNG or SVG, whichever the file's name ends in.

    Raises EdgeposeError where matplotlib is missing, SourceError where there is nothing to draw,
    and SinkError where the file cannot be written.
    """
    bubbles = points(document)
    if not any(bubble.series == MEASURED for bubble in bubbles):
        raise SourceError(
            "there is nothing to draw: no model that ran has a published or measured mAP; add one "
            "of the table to --models, or --coco and --images"
        )
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=_SIZE_INCHES, layout="constrained")
    try:
        _draw(axes, bubbles, document)
        figure.savefig(path, dpi=150, format=path.suffix.lower().removeprefix("."))
    except OSError as error:
        raise SinkError(f"{path}: cannot write the plot: {error.strerror}") from error
    finally:
        pyplot.close(figure)


def _draw(axes: Any, bubbles: Sequence[Point], document: Document) -> None:
    for series, colour in _COLOURS.items():
        own = [bubble for bubble in bubbles if bubble.series == series]
        axes.scatter(
            [bubble.latency_ms for bubble in own],
            [bubble.map for bubble in own],
            s=[bubble.megabytes * _POINTS2_PER_MB for bubble in own],
            label=series if series == MEASURED else f"{series} (published)",
            color=colour,
            alpha=0.75 if series == MEASURED else 0.45,
            linewidths=0,
            zorder=3 if series == MEASURED else 2,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(_ticker().LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(_ticker().FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(_ticker().NullFormatter())
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.set_xlabel("latency of one invoke in ms (median here; published as given), log scale")
    axes.set_ylabel(_accuracy_label(document.latency))
    axes.set_title(
        f"{document.machine.name}, edgepose {document.edgepose}; bubble area: size of the file",
        fontsize=10,
    )
    axes.margins(x=0.08, y=0.12)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(0, -0.12), ncols=4, fontsize=8)
    for handle in legend.legend_handles:
        # The legend says colours; bubbles of the files' sizes would not fit.
        handle.set_sizes([40])
    _label(axes, bubbles)


def _label(axes: Any, bubbles: Sequence[Point]) -> None:
    """Name the rows of bubbles in a column on the right, each led to its own, none on another.

    Rows of one mAP share a line: a model and its published figures.
    """
    rows: dict[float, list[Point]] = {}
    for bubble in bubbles:
        rows.setdefault(bubble.map, []).append(bubble)
    levels = sorted(rows)
    inches = axes.get_figure().get_size_inches()[1] * axes.get_position().height
    low, high = axes.get_ylim()
    line = _LABEL_POINTS * _LABEL_LINES / 72 / inches * (high - low)
    names = [_names(rows[level]) for level in levels]
    heights = _apart(levels, [line * (name.count("\n") + 1) for name in names], low)
    for level, name, height in zip(levels, names, heights, strict=True):
        axes.axhline(level, color="grey", linewidth=0.5, alpha=0.4, zorder=1)
        axes.annotate(
            name,
            xy=(1.0, level),
            xycoords=axes.get_yaxis_transform(),
            xytext=(1.03, height),
            textcoords=axes.get_yaxis_transform(),
            fontsize=_LABEL_POINTS,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "grey", "linewidth": 0.5},
            annotation_clip=False,
        )


def _names(row: Sequence[Point]) -> str:
    measured = [point.model for point in row if point.series == MEASURED]
    published = dict.fromkeys(point.model for point in row if point.series != MEASURED)
    return "\n".join(measured or (f"{name} (published)" for name in published))


def _apart(levels: Sequence[float], sizes: Sequence[float], bottom: float) -> list[float]:
    """Return places near levels (ascending) for labels of given heights, none over another.

    They are pushed up where they meet, then all of a heap moved down to be about its middle.
    """
    heaps: list[tuple[float, list[float], float]] = []
    for level, size in zip(levels, sizes, strict=True):
        centre, members, height = level, [size], size
        while heaps and heaps[-1][0] + heaps[-1][2] / 2 > centre - height / 2:
            below, others, total = heaps.pop()
            centre = (below * len(others) + centre * len(members)) / (len(others) + len(members))
            members, height = others + members, total + height
        heaps.append((max(centre, bottom + height / 2), members, height))
    places = []
    for centre, members, height in heaps:
        edge = centre - height / 2
        for size in members:
            places.append(edge + size / 2)
            edge += size
    return places


def _accuracy_label(latency: Sequence[LatencyRow]) -> str:
    protocols = sorted({row.map_protocol for row in latency if row.map_protocol is not None})
    if not protocols:
        return "mAP, as published (not measured here)"
    return f"mAP (here: protocol {', '.join(protocols)}; published: other pictures)"


def _map(row: LatencyRow) -> float | None:
    if row.map is not None:
        return row.map
    # Another network's accuracy says nothing of this one.
    if row.published is None or (row.published_difference and row.ratio_to_published_pi4 is None):
        return None
    return row.published.map


def _ticker() -> Any:
    from matplotlib import ticker

    return ticker


def _pyplot() -> Any:
    try:
        import matplotlib as mpl

        # Before pyplot, which otherwise looks for a screen.
        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise EdgeposeError(
            f"--plot needs matplotlib, which cannot be imported ({error}); install it with "
            "`pip install 'edgepose[plot]'`"
        ) from None
    return plt
