"""Comparison of two benchmarks: two devices, or two versions on one.

Figures differ only if the rounds of both runs differ and by more than two runs of one machine do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from msgspec.structs import replace

from edgepose.benchmark import tables
from edgepose.benchmark.environment import ports_text, throttling_text
from edgepose.benchmark.latency import MAX_IQR_PERCENT
from edgepose.benchmark.render import rendered_report
from edgepose.benchmark.results import (
    AccuracyRow,
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

_UNKNOWN: Final = "unknown"
_METHOD: Final = ("min_runs", "min_seconds", "warm_up_seconds", "input")
_MEMORY_TOLERANCE_MB: Final = 8.0
"""Two boards of one kind reserve a few MB more or less."""

TableName = Literal["latency", "pipeline", "accuracy"]
_ABOUT: Final[dict[TableName, str]] = {
    "latency": "p50 of invoke in ms",
    "pipeline": "fps_to_bare is the frame rate / that of the bare loop, more is faster; "
    "latency_p50_ms is from frame to subscriber",
    "accuracy": "AP x 100",
}
Verdict = Literal[
    "same",
    "faster",
    "slower",
    "more accurate",
    "less accurate",
    "unclear",
    "not comparable",
    "ran in one only",
]


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
    the rounds, or the bootstrap. `doubtful` if a document marks its figure as unstable.
    """

    table: TableName
    row: str
    figure: str
    a: float | None
    b: float | None
    unstable: bool = False
    ratio: float | None = None
    difference: float | None = None
    interval: Interval | None = None
    verdict: Verdict = "not comparable"


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
    rows_a, rows_b = _named_rows(a), _named_rows(b)
    compared = tuple(
        each
        for name, row in rows_a.items()
        if name in rows_b
        for each in _compared(name, row, rows_b[name])
    )
    differences = tuple(_differences(a, b))
    return Comparison(
        a=Side(name_a, a.machine.name, a.edgepose, a.created_at),
        b=Side(name_b, b.machine.name, b.edgepose, b.created_at),
        differences=differences,
        compared=compared,
        only_a=tuple(name for name in rows_a if name not in rows_b),
        only_b=tuple(name for name in rows_b if name not in rows_a),
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


def _named_rows(document: Document) -> dict[str, Any]:
    """Return the rows of a document by what makes rows of two documents the same."""

    def backend(row: LatencyRow | PipelineRow) -> str:
        return f"{row.model}, {row.backend}, {tables.format_threads(row.threads)}"

    return {
        **{backend(row): row for row in document.latency},
        **{
            f"pipeline of {backend(row)}, {row.source} {row.width}x{row.height}": row
            for row in document.pipeline
        },
        **{
            f"{row.model} on {row.device}, protocol {row.protocol}": row
            for row in document.accuracy
        },
    }


def _compared(name: str, a: Any, b: Any) -> Iterator[Compared]:
    match a:
        case LatencyRow():
            yield _compare_latency(name, a, b)
        case PipelineRow():
            yield from _compare_pipeline(name, a, b)
        case _:
            yield _compare_accuracy(name, a, b)


def _compare_latency(name: str, a: LatencyRow, b: LatencyRow) -> Compared:
    p50_a, p50_b = (None if row.latency_ms is None else row.latency_ms.p50 for row in (a, b))
    figure = Compared("latency", name, "p50_ms", p50_a, p50_b, bool(a.unstable or b.unstable))
    if a.rounds is not None and b.rounds is not None:
        return _by_rounds(figure, a.rounds.p50_ms, b.rounds.p50_ms)
    return replace(figure, verdict="ran in one only") if a.rounds or b.rounds else figure


def _compare_pipeline(name: str, a: PipelineRow, b: PipelineRow) -> Iterator[Compared]:
    unstable = bool(a.unstable or b.unstable)
    ratios = (a.pipeline_to_invoke_ratio, b.pipeline_to_invoke_ratio)
    if None not in ratios:
        figure = Compared("pipeline", name, "fps_to_bare", *ratios, unstable)
        yield _by_rounds(figure, a.rounds.ratios, b.rounds.ratios, more_is_faster=True)
    figure = Compared(
        "pipeline", name, "latency_p50_ms", a.latency_ms.p50, b.latency_ms.p50, unstable
    )
    # At another frame rate an idle processor is slower by another amount.
    if abs(a.paced_fps - b.paced_fps) <= NOISE_PERCENT / 100 * a.paced_fps:
        figure = _by_rounds(figure, a.rounds.latency_p50_ms, b.rounds.latency_p50_ms)
    yield figure


def _compare_accuracy(name: str, a: AccuracyRow, b: AccuracyRow) -> Compared:
    figure = Compared("accuracy", name, "ap", a.ap, b.ap)
    if (a.images, a.persons) != (b.images, b.persons):
        return figure
    difference = round(b.ap - a.ap, 3)
    # Runs cannot be paired without the single images; this is on the safe side.
    low_a, high_a = a.ap_interval_95 or (a.ap, a.ap)
    low_b, high_b = b.ap_interval_95 or (b.ap, b.ap)
    low, high = round(low_b - high_a, 3), round(high_b - low_a, 3)
    verdict: Verdict = "more accurate" if low > 0 else "less accurate" if high < 0 else "same"
    return replace(
        figure,
        difference=difference,
        interval=(low, high) if difference else None,
        verdict=verdict if difference else "same",
    )


def _by_rounds(
    figure: Compared,
    rounds_a: Sequence[float],
    rounds_b: Sequence[float],
    *,
    more_is_faster: bool = False,
) -> Compared:
    """Return a figure with the verdict of the interquartile ranges of its rounds.

    An unstable figure needs more: all rounds of one side must be beyond all of the other's.
    """
    a, b = figure.a, figure.b
    if not a or b is None:
        return figure
    percentiles = (0, 100) if figure.unstable else (25, 75)
    low_a, high_a = map(float, np.percentile(rounds_a or [a], percentiles))
    low_b, high_b = map(float, np.percentile(rounds_b or [b], percentiles))
    ratio = b / a
    verdict: Verdict = "unclear" if figure.unstable else "same"
    if (low_b > high_a or high_b < low_a) and abs(ratio - 1) * 100 > NOISE_PERCENT:
        verdict = "faster" if (ratio > 1) == more_is_faster else "slower"
    return replace(
        figure,
        ratio=round(ratio, 4),
        interval=(round(low_b / high_a, 4), round(high_b / low_a, 4)) if low_a > 0 else None,
        verdict=verdict,
    )


def _differences(a: Document, b: Document) -> Iterator[Difference]:
    """Yield what differs between the machines, their state, versions, method and files."""
    facts_a, facts_b = _facts(a), _facts(b)
    for what in dict.fromkeys((*facts_a, *facts_b)):
        optional = what.startswith(("method", "file of", "broker"))
        if optional and not (what in facts_a and what in facts_b):
            continue
        ours, theirs = facts_a.get(what, "none"), facts_b.get(what, "none")
        if ours != theirs and not (what == "memory" and _close(ours, theirs)):
            yield Difference(what, _shown(ours), _shown(theirs))


def _facts(document: Document) -> dict[str, object]:
    groups = document.before.frequencies
    limits = [f"{group.limit_mhz:.0f} MHz" for group in groups if group.limit_mhz is not None]
    facts: dict[str, object] = {
        name.removesuffix("_mb").replace("_", " "): value
        for name, value in asdict(document.machine).items()
    }
    facts |= {
        "governor": ", ".join(dict.fromkeys(group.governor or _UNKNOWN for group in groups)),
        "highest clock": ", ".join(dict.fromkeys(limits)),
        "throttling": throttling_text(document.after),
        "Edge TPU": ports_text(document.edge_tpus),
        "edgepose": document.edgepose,
        **document.runtimes,
    }
    if document.method is not None:
        for name in _METHOD:
            facts[f"method: {name.replace('_', ' ')}"] = getattr(document.method, name)
    facts |= {f"file of {row.model}": f"{row.sha256[:12]}..." for row in document.latency}
    if document.pipeline:
        facts["broker"] = ", ".join(sorted({row.broker for row in document.pipeline}))
    return facts


def _close(a: Any, b: Any) -> bool:
    return None not in (a, b) and abs(a - b) <= _MEMORY_TOLERANCE_MB


def _shown(value: object) -> str:
    return _UNKNOWN if value in (None, "") else str(value)


def _notes(compared: Sequence[Compared], differences: Sequence[Difference]) -> Iterator[str]:
    if not differences:
        yield "Machines, versions and methods are the same."
    if any(each.ratio is not None for each in compared):
        yield (
            "B/A: of medians; in brackets its uncertainty by the interquartile ranges of both "
            "sides' rounds. same: the ranges overlap, or the difference is at most "
            f"{NOISE_PERCENT:g}%, within which two runs of one machine agree. Faster and slower "
            "refer to B."
        )
    ratios = [each.ratio for each in compared if each.table == "latency" and each.ratio is not None]
    if len(ratios) >= MIN_ROWS_IN_COMMON:
        low, common, high = np.percentile(ratios, (25, 50, 75))
        all_rows = f"All {len(ratios)} latency rows: B/A {common:.2f} ({low:.2f} to {high:.2f})."
        if not differences and abs(common - 1) * 100 > NOISE_PERCENT:
            all_rows += (
                " The machine had another speed (clock, temperature, other guests of a shared "
                "host): these two runs do not agree."
            )
        yield all_rows
    if any(each.difference is not None for each in compared):
        yield (
            "B-A: AP x 100; in brackets its uncertainty by the two 95% intervals. They are not "
            "paired: `edgepose benchmark --coco ... --against` on one machine finds smaller "
            "differences."
        )
    if any(each.unstable for each in compared):
        yield (
            f"{tables.UNSTABLE_MARK}: at least one document marks the figure as unstable; then all "
            "rounds of both sides are compared, and it is unclear if they overlap."
        )


def _tables(comparison: Comparison) -> Iterator[tables.Table]:
    if comparison.differences:
        yield tables.table_of(
            "differences",
            "machines, versions and methods",
            comparison.differences,
            {"what": lambda each: each.what, "A": lambda each: each.a, "B": lambda each: each.b},
        )
    for name, about in _ABOUT.items():
        rows = [each for each in comparison.compared if each.table == name]
        columns: dict[str, Callable[[Compared], str]] = {
            "row": lambda each: each.row + f": {each.figure}" * (each.table == "pipeline"),
            "A": lambda each: tables.format_or_dash("{:.4g}", each.a),
            "B": lambda each: tables.format_or_dash("{:.4g}", each.b),
            "B-A" if name == "accuracy" else "B/A": _change,
            "": _uncertainty,
            "B is": lambda each: each.verdict + tables.UNSTABLE_MARK * each.unstable,
        }
        if rows:
            yield tables.table_of(name, about, rows, columns)
    for letter, names in (("A", comparison.only_a), ("B", comparison.only_b)):
        if names:
            yield tables.table_of(
                f"only in {letter}", "rows without a counterpart", names, {"row": str}
            )


def _change(each: Compared) -> str:
    if each.difference is not None:
        return f"{each.difference:+.1f}"
    return tables.format_or_dash("{:.3f}", each.ratio)


def _uncertainty(each: Compared) -> str:
    form = "[{:.3f}, {:.3f}]" if each.difference is None else "[{:+.1f}, {:+.1f}]"
    return "" if each.interval is None else form.format(*each.interval)
