"""Comparison of two benchmarks: two devices, or two versions on one.

Figures differ only if the rounds of both runs differ and by more than two runs of one machine do.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace

from edgepose.benchmark import environment, tables
from edgepose.benchmark.latency import MAX_IQR_PERCENT
from edgepose.benchmark.render import rendered_report
from edgepose.benchmark.results import Document, Interval, encode, read

MIN_ROWS_IN_COMMON: Final = 4
"""From this number of rows on, a ratio common to all is a property of the machine."""
NOISE_PERCENT: Final = MAX_IQR_PERCENT
"""Two successive runs on one quiet machine agree on a median within this."""

_METHOD: Final = ("min_runs", "min_seconds", "warm_up_seconds", "input")
_ROW_NAMES: Final = {
    "latency": "{0.model}, {0.backend}, {0.threads}T",
    "pipeline": "pipeline of {0.model}, {0.backend}, {0.threads}T, {0.source} {0.width}x{0.height}",
    "accuracy": "{0.model} on {0.device}, protocol {0.protocol} "
    "({0.images} images, {0.persons} persons)",
}
"""What rows of two documents have in common if they can be compared."""


class _Figure(NamedTuple):
    """A figure of a row: its field, that of its rounds or interval, and the verdicts.

    It is only compared if the field `condition` is the same in both rows, within the noise.
    """

    name: str
    field: str
    rounds: str
    more: str
    less: str
    condition: str | None = None


_FIGURES: Final = {
    "latency": [_Figure("p50_ms", "latency_ms.p50", "rounds.p50_ms", "slower", "faster")],
    "pipeline": [
        _Figure("fps_to_bare", "pipeline_to_invoke_ratio", "rounds.ratios", "faster", "slower"),
        _Figure(
            "latency_p50_ms",
            "latency_ms.p50",
            "rounds.latency_p50_ms",
            "slower",
            "faster",
            # At another frame rate an idle processor is slower by another amount.
            condition="paced_fps",
        ),
    ],
    "accuracy": [_Figure("ap", "ap", "ap_interval_95", "more accurate", "less accurate")],
}
_COLUMNS: Final[tables.Columns] = {
    "row": "row",
    "figure": "figure",
    "A": "a:.4g",
    "B": "b:.4g",
    "B/A": lambda each: tables.format_with_interval(each.ratio, each.interval, ".3f"),
    "B is": "verdict:?",
}
_ABOUT: Final = (
    "p50_ms of invoke; fps_to_bare, the frame rate / that of the bare loop; latency_p50_ms from "
    "frame to subscriber; ap x 100, which is not paired: --against on one machine finds smaller "
    "differences. In brackets: range by the rounds' quartiles, or by the 95% intervals of ap. "
    f"same: these ranges overlap, or {NOISE_PERCENT:g}% at most, within which two runs agree. "
    f"{tables.UNSTABLE_MARK}: a document marks the figure as unstable; then all rounds are compared"
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

    `ratio` is b / a, `interval` its uncertainty by the rounds, or the bootstrap. `doubtful` if a
    document marks its figure as unstable. `verdict` is same, faster, slower, more or less accurate,
    unclear, not comparable, or ran in one only.
    """

    table: str
    row: str
    figure: str
    a: float | None
    b: float | None
    unstable: bool = False
    ratio: float | None = None
    interval: Interval | None = None
    verdict: str = "not comparable"


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of two documents."""

    schema: Literal[1] = 1
    kind: Literal["edgepose-benchmark-comparison"] = "edgepose-benchmark-comparison"
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
        _compared(table, figure, name, row, rows_b[table, name])
        for (table, name), row in rows_a.items()
        if (table, name) in rows_b
        for figure in _FIGURES[table]
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
        only_a=tuple(name for table, name in rows_a if (table, name) not in rows_b),
        only_b=tuple(name for table, name in rows_b if (table, name) not in rows_a),
        notes=tuple(_notes(compared, differences)),
    )


def rendered(comparison: Comparison, output_format: str) -> str:
    """Return a comparison as `table`, `json`, `markdown` or `html`, with a newline at its end."""
    if output_format == "json":
        return encode(comparison)
    sides = {
        letter: f"{side.file}, {side.machine}, edgepose {side.edgepose}, {side.created_at[:10]}"
        for letter, side in (("A", comparison.a), ("B", comparison.b))
    }
    title = "edgepose benchmark: two results compared"
    report = tables.Report(title, sides, tuple(_tables(comparison)), comparison.notes)
    return rendered_report(report, output_format)


def _rows(document: Document) -> dict[tuple[str, str], Any]:
    """Return the rows by table and name."""
    return {
        (table, name.format(row)): row
        for table, name in _ROW_NAMES.items()
        for row in getattr(document, table)
    }


def _compared(table: str, figure: _Figure, name: str, *rows: Any) -> Compared:
    """Compare a figure of two rows by the interquartile ranges of its rounds, or its intervals.

    An unstable figure needs more: all rounds of one side must be beyond all of the other's.
    """
    a, b = (tables.field(row, figure.field) for row in rows)
    unstable = any(getattr(row, "unstable", ()) for row in rows)
    compared = Compared(table, name, figure.name, a, b, unstable)
    if (a is None) != (b is None):
        return replace(compared, verdict="ran in one only")
    conditions = [tables.field(row, figure.condition) for row in rows if figure.condition]
    if a is None or (conditions and _exceeds_noise(*conditions)):
        return compared
    percentiles = (0, 100) if unstable or table == "accuracy" else (25, 75)
    (low_a, high_a), (low_b, high_b) = (
        np.percentile(tables.field(row, figure.rounds) or [value], percentiles).tolist()
        for row, value in zip(rows, (a, b), strict=True)
    )
    if not (a and low_a):
        return compared
    verdict = "unclear" if unstable else "same"
    if _exceeds_noise(a, b):
        verdict = figure.more if low_b > high_a else figure.less if high_b < low_a else verdict
    interval = (round(low_b / high_a, 4), round(high_b / low_a, 4))
    return replace(compared, ratio=round(b / a, 4), interval=interval, verdict=verdict)


def _exceeds_noise(a: float, b: float) -> bool:
    return abs(b - a) > NOISE_PERCENT / 100 * a


def _facts(document: Document) -> dict[str, str]:
    """Return what should be the same in two documents: machine, versions, method, files."""
    facts = environment.facts(document)
    if document.method is not None:
        facts |= {f"method: {name}": str(getattr(document.method, name)) for name in _METHOD}
    facts |= {f"file of {row.model}": f"{row.sha256[:12]}..." for row in document.latency}
    if document.pipeline:
        facts["broker"] = ", ".join(sorted({row.broker for row in document.pipeline}))
    return facts


def _notes(compared: Sequence[Compared], differences: Sequence[Difference]) -> Iterator[str]:
    ratios = [each.ratio for each in compared if each.table == "latency" and each.ratio is not None]
    if len(ratios) >= MIN_ROWS_IN_COMMON:
        low, common, high = np.percentile(ratios, (25, 50, 75))
        all_rows = f"All {len(ratios)} latency rows: B/A {common:.2f} ({low:.2f} to {high:.2f})."
        if not differences and _exceeds_noise(1, common):
            all_rows += (
                " The machine had another speed (clock, temperature, other guests of a shared "
                "host): these two runs do not agree."
            )
        yield all_rows


def _tables(comparison: Comparison) -> Iterator[tables.Table]:
    what: tables.Columns = {"what": "what", "A": "a", "B": "b"}
    alone = "rows without a counterpart"
    if comparison.differences:
        about = "machines, versions and methods"
        yield tables.table_of("differences", about, comparison.differences, what)
    if comparison.compared:
        yield tables.table_of("figures", _ABOUT, comparison.compared, _COLUMNS)
    if comparison.only_a:
        yield tables.table_of("only in A", alone, comparison.only_a, {"row": str})
    if comparison.only_b:
        yield tables.table_of("only in B", alone, comparison.only_b, {"row": str})
