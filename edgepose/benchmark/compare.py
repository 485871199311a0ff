"""Comparison of two benchmarks: two devices, or two versions on one.

Figures differ only if the rounds of both runs differ and by more than two runs of one machine do.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace

from edgepose.benchmark import environment, tables
from edgepose.benchmark.latency import MAX_IQR_PERCENT
from edgepose.benchmark.render import rendered_report
from edgepose.benchmark.results import (
    Document,
    Interval,
    LatencyRow,
    PipelineRow,
    encode,
    read,
)

KIND: Final = "edgepose-benchmark-comparison"
MIN_ROWS_IN_COMMON: Final = 4
"""From this number of rows on, a ratio common to all is a property of the machine."""
NOISE_PERCENT: Final = MAX_IQR_PERCENT
"""Two successive runs on one quiet machine agree on a median within this."""

_METHOD: Final = ("min_runs", "min_seconds", "warm_up_seconds", "input")
_ABOUT: Final = {
    "latency": "p50 of invoke in ms",
    "pipeline": "fps_to_bare is the frame rate / that of the bare loop, more is faster; "
    "latency_p50_ms is from frame to subscriber",
    "accuracy": "AP x 100; B-A with a range by both 95% intervals, which are not paired: "
    "`edgepose benchmark --coco ... --against` on one machine finds smaller differences",
}


class _Figure(NamedTuple):
    """A figure of a table: its field, that of its rounds or interval, and the verdicts.

    It is only compared if the field `condition` is the same in both rows, within the noise.
    """

    table: str
    name: str
    field: str
    rounds: str
    more: str
    less: str
    condition: str | None = None


_FIGURES: Final = (
    _Figure("latency", "p50_ms", "latency_ms.p50", "rounds.p50_ms", "slower", "faster"),
    _Figure(
        "pipeline", "fps_to_bare", "pipeline_to_invoke_ratio", "rounds.ratios", "faster", "slower"
    ),
    _Figure(
        "pipeline",
        "latency_p50_ms",
        "latency_ms.p50",
        "rounds.latency_p50_ms",
        "slower",
        "faster",
        # At another frame rate an idle processor is slower by another amount.
        condition="paced_fps",
    ),
    _Figure("accuracy", "ap", "ap", "ap_interval_95", "more accurate", "less accurate"),
)


class Side(msgspec.Struct, frozen=True):
    """One of the two documents."""

    file: str
    machine: str
    edgepose: str
    created_at: str


class Difference(msgspec.Struct, frozen=True):
    """A difference of the machines, versions or methods."""

    what: str
    a: str
    b: str


class Compared(msgspec.Struct, frozen=True, rename={"unstable": "doubtful"}):
    """One figure of one row in both documents: p50_ms, fps_to_bare, latency_p50_ms or ap.

    `ratio` is b / a; accuracy has `difference`, b - a, instead. `interval` is its uncertainty by
    the rounds, or the bootstrap. `doubtful` if a document marks its figure as unstable. `verdict`
    is same, faster, slower, more or less accurate, unclear, not comparable, or ran in one only.
    """

    table: str
    row: str
    figure: str
    a: float | None
    b: float | None
    unstable: bool = False
    ratio: float | None = None
    difference: float | None = None
    interval: Interval | None = None
    verdict: str = "not comparable"


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of two documents."""

    schema: Literal[1] = 1
    kind: Literal["edgepose-benchmark-comparison"] = KIND
    a: Side
    b: Side
    differences: tuple[Difference, ...]
    compared: tuple[Compared, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    notes: tuple[str, ...]


def compare_files(first: Path, second: Path) -> Comparison:
    """Compare two files; raises SourceNotFoundError or SourceError with the invalid one."""
    return compare(read(first), read(second), first.name, second.name)


def compare(a: Document, b: Document, name_a: str = "A", name_b: str = "B") -> Comparison:
    """Compare two documents; rows match if model, backend, threads and input are the same."""
    rows_a, rows_b = _rows(a), _rows(b)
    compared = [
        _compared(figure, key[1], row, rows_b[key])
        for key, row in rows_a.items()
        if key in rows_b
        for figure in _FIGURES
        if figure.table == key[0]
    ]
    facts_a, facts_b = _facts(a), _facts(b)
    differences = tuple(
        Difference(what, fact, facts_b[what])
        for what, fact in facts_a.items()
        if fact != facts_b.get(what, fact)
    )
    return Comparison(
        a=Side(name_a, a.machine.name, a.edgepose, a.created_at),
        b=Side(name_b, b.machine.name, b.edgepose, b.created_at),
        differences=differences,
        compared=tuple(compared),
        only_a=tuple(key[1] for key in rows_a if key not in rows_b),
        only_b=tuple(key[1] for key in rows_b if key not in rows_a),
        notes=tuple(_notes(compared, differences)),
    )


def rendered(comparison: Comparison, output_format: str) -> str:
    """Return a comparison as `table`, `json` or `markdown`, with a newline at its end."""
    if output_format == "json":
        return encode(comparison)
    head = tuple(
        f"{letter}: {side.file}, {side.machine}, edgepose {side.edgepose}, {side.created_at[:10]}"
        for letter, side in (("A", comparison.a), ("B", comparison.b))
    )
    report = tables.Report(head, tuple(_tables(comparison)), comparison.notes)
    return rendered_report(report, output_format)


def _rows(document: Document) -> dict[tuple[str, str], Any]:
    """Return the rows by table, and by what rows of two documents have in common."""

    def backend(row: LatencyRow | PipelineRow) -> str:
        return f"{row.model}, {row.backend}, {tables.format_threads(row.threads)}"

    names: dict[str, Callable[[Any], str]] = {
        "latency": backend,
        "pipeline": lambda row: (
            f"pipeline of {backend(row)}, {row.source} {row.width}x{row.height}"
        ),
        "accuracy": lambda row: (
            f"{row.model} on {row.device}, protocol {row.protocol} "
            f"({row.images} images, {row.persons} persons)"
        ),
    }
    return {
        (table, name(row)): row for table, name in names.items() for row in getattr(document, table)
    }


def _compared(figure: _Figure, name: str, row_a: Any, row_b: Any) -> Compared:
    """Compare a figure of two rows by the interquartile ranges of its rounds, or its intervals.

    An unstable figure needs more: all rounds of one side must be beyond all of the other's.
    """
    a, b = (tables.field(row, figure.field) for row in (row_a, row_b))
    unstable = any(getattr(row, "unstable", ()) for row in (row_a, row_b))
    compared = Compared(figure.table, name, figure.name, a, b, unstable)
    if (a is None) != (b is None):
        return replace(compared, verdict="ran in one only")
    conditions = [tables.field(row, figure.condition) for row in (row_a, row_b) if figure.condition]
    if a is None or (conditions and _change_percent(*conditions) > NOISE_PERCENT):
        return compared
    is_accuracy = figure.table == "accuracy"
    percentiles = (0, 100) if unstable or is_accuracy else (25, 75)
    (low_a, high_a), (low_b, high_b) = (
        map(float, np.percentile(tables.field(row, figure.rounds) or [value], percentiles))
        for row, value in ((row_a, a), (row_b, b))
    )
    verdict = "unclear" if unstable else "same"
    if is_accuracy or _change_percent(a, b) > NOISE_PERCENT:
        verdict = figure.more if low_b > high_a else figure.less if high_b < low_a else verdict
    if is_accuracy:
        # Runs cannot be paired without the single images; this is on the safe side.
        interval = (round(low_b - high_a, 3), round(high_b - low_a, 3))
        return replace(compared, difference=round(b - a, 3), interval=interval, verdict=verdict)
    interval = (round(low_b / high_a, 4), round(high_b / low_a, 4))
    return replace(compared, ratio=round(b / a, 4), interval=interval, verdict=verdict)


def _change_percent(a: float, b: float) -> float:
    return abs(b - a) / a * 100


def _facts(document: Document) -> dict[str, str]:
    """Return what should be the same in two documents: machine, versions, method, files."""
    facts = environment.facts(document)
    facts["throttling"] = environment.throttling_text(document.after)
    if document.method is not None:
        facts |= {f"method: {name}": str(getattr(document.method, name)) for name in _METHOD}
    facts |= {f"file of {row.model}": f"{row.sha256[:12]}..." for row in document.latency}
    if document.pipeline:
        facts["broker"] = ", ".join(sorted({row.broker for row in document.pipeline}))
    return facts


def _notes(compared: Sequence[Compared], differences: Sequence[Difference]) -> Iterator[str]:
    if not differences:
        yield "Machines, versions and methods are the same."
    if any(each.ratio is not None for each in compared):
        yield (
            "B/A: of medians, with a range by the interquartile ranges of both sides' rounds. "
            "same: these overlap, or the difference is at most "
            f"{NOISE_PERCENT:g}%, within which two runs of one machine agree."
        )
    ratios = [each.ratio for each in compared if each.table == "latency" and each.ratio is not None]
    if len(ratios) >= MIN_ROWS_IN_COMMON:
        low, common, high = np.percentile(ratios, (25, 50, 75))
        all_rows = f"All {len(ratios)} latency rows: B/A {common:.2f} ({low:.2f} to {high:.2f})."
        if not differences and _change_percent(1, common) > NOISE_PERCENT:
            all_rows += (
                " The machine had another speed (clock, temperature, other guests of a shared "
                "host): these two runs do not agree."
            )
        yield all_rows
    if any(each.unstable for each in compared):
        yield (
            f"{tables.UNSTABLE_MARK}: at least one document marks the figure as unstable; it is "
            "unclear if any rounds of both sides overlap."
        )


def _tables(comparison: Comparison) -> Iterator[tables.Table]:
    if comparison.differences:
        yield tables.table_of(
            "differences",
            "machines, versions and methods",
            comparison.differences,
            {"what": "what", "A": "a", "B": "b"},
        )
    for name, about in _ABOUT.items():
        rows = [each for each in comparison.compared if each.table == name]
        columns: tables.Columns = {
            "row": lambda each: each.row + f": {each.figure}" * (each.table == "pipeline"),
            "A": "a:.4g",
            "B": "b:.4g",
            "B-A" if name == "accuracy" else "B/A": _change,
            "B is": lambda each: each.verdict + tables.UNSTABLE_MARK * each.unstable,
        }
        if rows:
            yield tables.table_of(name, about, rows, columns)
    for letter, names in (("A", comparison.only_a), ("B", comparison.only_b)):
        if names:
            about = "rows without a counterpart"
            yield tables.table_of(f"only in {letter}", about, names, {"row": str})


def _change(each: Compared) -> str:
    if each.difference is not None:
        return tables.format_with_interval(each.difference, each.interval, "+.1f")
    return tables.format_with_interval(each.ratio, each.interval, ".3f")
