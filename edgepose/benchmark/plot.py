"""A plot of latency against mAP, with published and measured points."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgepose.benchmark.results import Document, LatencyRow, fastest_rows
from edgepose.errors import SinkError, SourceError

MEASURED: Final = "measured here"

PUBLISHED_SERIES: Final = {
    "Pixel 5 GPU (published)": "pixel5_gpu_ms",
    "Pixel 5 CPU (published)": "pixel5_cpu_ms",
    "Raspberry Pi 4 CPU (published)": "pi4_cpu_ms",
}
"""The published series, and their fields."""
_POINTS2_PER_MB: Final = 16.0


class Point(NamedTuple):
    """One bubble: its series, its model, its position and the size of its file."""

    series: str
    model: str
    latency_ms: float
    map: float
    megabytes: float


def points(document: Document) -> tuple[Point, ...]:
    """Return the bubbles: every published latency, and each model at its fastest.

    A model whose mAP was neither measured nor published has none.
    """
    found = [
        Point(series, row.name, getattr(row, key), row.map, row.megabytes)
        for series, key in PUBLISHED_SERIES.items()
        for row in document.published
    ]
    for row in fastest_rows(document.latency):
        accuracy = _map(row)
        if row.latency_ms is not None and accuracy is not None:
            found.append(Point(MEASURED, row.model, row.latency_ms.p50, accuracy, row.bytes / 1e6))
    return tuple(found)


def draw(document: Document, path: Path) -> None:
    """Write the plot as PNG or SVG, by the suffix of the file's name.

    Raises SourceError if there is nothing to draw, and SinkError if the file cannot be written.
    """
    figure = figure_of(document)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise SinkError(f"{path}: cannot write the plot: {error.strerror}") from error


def figure_of(document: Document) -> Any:
    """Return the plot as a `matplotlib` figure; raises SourceError if there is nothing to draw."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    bubbles = points(document)
    if not any(bubble.series == MEASURED for bubble in bubbles):
        raise SourceError(
            "there is nothing to draw: no model that ran has a published or measured mAP; add one "
            "of the table to --models, or --coco and --images"
        )
    figure = Figure(figsize=(9.0, 5.5), layout="constrained")
    axes = figure.subplots()
    for series in (*PUBLISHED_SERIES, MEASURED):
        own = [bubble for bubble in bubbles if bubble.series == series]
        axes.scatter(
            [bubble.latency_ms for bubble in own],
            [bubble.map for bubble in own],
            [bubble.megabytes * _POINTS2_PER_MB for bubble in own],
            label=series,
            alpha=0.6,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.set_xlabel("latency of one invoke in ms (median here; published as given), log scale")
    protocols = sorted({row.map_protocol for row in document.latency if row.map_protocol})
    here = f"protocol {', '.join(protocols)}" if protocols else "not measured"
    axes.set_ylabel(f"mAP (here: {here}; published: other images)")
    axes.set_title(
        f"{document.machine.name}, edgepose {document.edgepose}; bubble area: size of the file",
        fontsize=10,
    )
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.12), ncols=4, fontsize=8)
    _label(axes, bubbles)
    return figure


def _label(axes: Any, bubbles: Sequence[Point]) -> None:
    """Name the bubbles in a column on the right, evenly spaced in the order of their mAP.

    A model has one label; a published row with the mAP of a measured model has none.
    """
    names = {(bubble.map, bubble.model) for bubble in bubbles if bubble.series == MEASURED}
    measured = {level for level, _ in names}
    names |= {(b.map, f"{b.model} (published)") for b in bubbles if b.map not in measured}
    for place, (level, name) in enumerate(sorted(names)):
        axes.axhline(level, color="grey", linewidth=0.5, alpha=0.4, zorder=1)
        axes.annotate(
            name,
            xy=(1.0, level),
            xycoords=axes.get_yaxis_transform(),
            xytext=(1.03, (place + 0.5) / len(names)),
            textcoords="axes fraction",
            # Labels fit above each other if their heights are at most 200 points together.
            fontsize=min(8.5, 200 / len(names)),
            va="center",
            arrowprops={"arrowstyle": "-", "relpos": (0, 0.5), "color": "grey", "linewidth": 0.5},
            annotation_clip=False,
        )


def _map(row: LatencyRow) -> float | None:
    if row.map is not None:
        return row.map
    # The accuracy of another network does not apply.
    if row.published is None or (row.published_difference and row.ratio_to_published_pi4 is None):
        return None
    return row.published.map
