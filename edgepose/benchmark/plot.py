"""A plot of latency against mAP, with published and measured points."""

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
_LABELS_POINTS: Final = 200.0
"""Total font size of the lines of labels that fit above each other."""


@dataclass(frozen=True, slots=True)
class Point:
    """One bubble: its series, its model, its position and the size of its file."""

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
    """Write the plot as PNG or SVG, by the suffix of the file's name.

    Raises EdgeposeError if matplotlib is not installed, SourceError if there is nothing to draw,
    and SinkError if the file cannot be written.
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
        draw_axes(axes, bubbles, document)
        figure.savefig(path, dpi=150, format=path.suffix.lower().removeprefix("."))
    except OSError as error:
        raise SinkError(f"{path}: cannot write the plot: {error.strerror}") from error
    finally:
        pyplot.close(figure)


def draw_axes(axes: Any, bubbles: Sequence[Point], document: Document) -> None:
    """Draw the bubbles of a document."""
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
        # The legend is for colours; bubbles of the files' sizes would not fit.
        handle.set_sizes([40])
    _label(axes, bubbles)


def _label(axes: Any, bubbles: Sequence[Point]) -> None:
    """Name the bubbles in a column on the right, evenly spaced in the order of their mAP.

    Bubbles of one mAP share a label: a model and its published figures.
    """
    rows: dict[float, list[Point]] = {}
    for bubble in bubbles:
        rows.setdefault(bubble.map, []).append(bubble)
    names = {level: _names(row) for level, row in sorted(rows.items())}
    lines = sum(len(each) for each in names.values())
    used = 0
    for level, each in names.items():
        axes.axhline(level, color="grey", linewidth=0.5, alpha=0.4, zorder=1)
        axes.annotate(
            "\n".join(each),
            xy=(1.0, level),
            xycoords=axes.get_yaxis_transform(),
            xytext=(1.03, (used + len(each) / 2) / lines),
            textcoords="axes fraction",
            fontsize=min(_LABEL_POINTS, _LABELS_POINTS / lines),
            va="center",
            arrowprops={"arrowstyle": "-", "color": "grey", "linewidth": 0.5},
            annotation_clip=False,
        )
        used += len(each)


def _names(row: Sequence[Point]) -> list[str]:
    measured = [point.model for point in row if point.series == MEASURED]
    return measured or sorted({f"{point.model} (published)" for point in row})


def _accuracy_label(latency: Sequence[LatencyRow]) -> str:
    protocols = sorted({row.map_protocol for row in latency if row.map_protocol is not None})
    if not protocols:
        return "mAP, as published (not measured here)"
    return f"mAP (here: protocol {', '.join(protocols)}; published: other images)"


def _map(row: LatencyRow) -> float | None:
    if row.map is not None:
        return row.map
    # The accuracy of another network does not apply.
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
