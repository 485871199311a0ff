"""Two benchmarks beside each other: two devices, or two versions on one.

A run cannot say more than its rounds agree on, and two runs of one machine differ too; what is
within either is called the same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
import numpy as np

from edgepose.benchmark import report
from edgepose.benchmark.latency import MAX_SPREAD_PERCENT
from edgepose.benchmark.report import DOUBT_MARK, NOTHING, Table
from edgepose.benchmark.results import (
    AccuracyRow,
    Document,
    Interval,
    LatencyRow,
    PipelineRow,
    read,
)

KIND: Final = "edgepose-benchmark-comparison"
MIN_ROWS_IN_COMMON: Final = 4
"""From so many rows on, what they have in common says something of the machine."""
NOISE_PERCENT: Final = MAX_SPREAD_PERCENT
"""Two runs in a row, on one quiet machine, agree on a median within this."""

_AWAY: Final = "not told"
_MACHINE: Final = (
    "name",
    "soc",
    "cpu",
    "architecture",
    "cores",
    "usable_cores",
    "memory_mb",
    "os",
    "kernel",
    "python",
)
_METHOD: Final = ("min_runs", "min_seconds", "warm_up_seconds", "input")
_MEMORY_TOLERANCE_MB: Final = 8.0
"""Two boards of one kind keep a few MB more or less for themselves."""

Row = TypeVar("Row", LatencyRow, AccuracyRow, PipelineRow)
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


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two documents."""

    file: str
    machine: str
    edgepose: str
    created_at: str


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Something other than a figure that differs."""

    what: str
    a: str
    b: str


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one row in both documents.

    `ratio` is b / a; accuracy has `difference`, b - a, instead. The interval is what the rounds, or
    the bootstrap, leave open of it. `doubtful` says that a document itself doubts its figure.
    """

    table: Literal["latency", "pipeline", "accuracy"]
    row: str
    figure: Annotated[str, msgspec.Meta(description="p50_ms, fps_to_bare, latency_p50_ms, ap")]
    a: float | None
    b: float | None
    ratio: float | None = None
    difference: float | None = None
    interval: Interval | None = None
    verdict: Verdict
    doubtful: bool = False


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that two documents say of each other."""

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
    """Compare two files; raises SourceNotFoundError or SourceError with which is wrong, and how."""
    return compare(read(first), read(second), first.name, second.name)


def compare(a: Document, b: Document, name_a: str = "A", name_b: str = "B") -> Comparison:
    """Compare two documents; rows are the same where model, engine, threads and input are."""
    latency = _Matched(a.latency, b.latency, _latency_name)
    pipeline = _Matched(a.pipeline, b.pipeline, _pipeline_name)
    accuracy = _Matched(a.accuracy, b.accuracy, _accuracy_name)
    tables = (latency, pipeline, accuracy)
    compared = (
        *(_latency(name, *rows) for name, rows in latency.both.items()),
        *(each for name, rows in pipeline.both.items() for each in _pipeline(name, *rows)),
        *(_accuracy(name, *rows) for name, rows in accuracy.both.items()),
    )
    differences = tuple(_differences(a, b, latency))
    return Comparison(
        a=_side(a, name_a),
        b=_side(b, name_b),
        differences=differences,
        compared=compared,
        only_a=tuple(name for table in tables for name in table.only_a),
        only_b=tuple(name for table in tables for name in table.only_b),
        notes=tuple(_notes(compared, differences)),
    )


def rendered(comparison: Comparison, output_format: str) -> str:
    """Return a comparison as `table`, `json` or `markdown`, with a newline at its end."""
    if output_format == "json":
        return msgspec.json.format(msgspec.json.encode(comparison), indent=2).decode() + "\n"
    write = report.as_text if output_format == "table" else report.as_markdown
    text = write(
        (_described("A", comparison.a), _described("B", comparison.b)),
        _tables(comparison),
        comparison.notes,
    )
    return text.rstrip("\n") + "\n"


class _Matched:
    """The rows of two documents, by the name that makes them the same."""

    def __init__(
        self, rows_a: Sequence[Any], rows_b: Sequence[Any], name: Callable[[Any], str]
    ) -> None:
        by_a = {name(row): row for row in rows_a}
        by_b = {name(row): row for row in rows_b}
        self.both: Mapping[str, tuple[Any, Any]] = {
            key: (row, by_b[key]) for key, row in by_a.items() if key in by_b
        }
        self.only_a = [key for key in by_a if key not in by_b]
        self.only_b = [key for key in by_b if key not in by_a]


def _latency_name(row: LatencyRow) -> str:
    return f"{row.model}, {row.engine}, {_threads(row.threads)}"


def _pipeline_name(row: PipelineRow) -> str:
    return (
        f"line of {row.model}, {row.engine}, {_threads(row.threads)}, {row.source} "
        f"{row.width}x{row.height}"
    )


def _accuracy_name(row: AccuracyRow) -> str:
    return f"{row.model} on {row.device}, protocol {row.protocol}"


def _latency(name: str, a: LatencyRow, b: LatencyRow) -> Compared:
    if a.latency_ms is None or b.latency_ms is None or a.rounds is None or b.rounds is None:
        return Compared(
            table="latency",
            row=name,
            figure="p50_ms",
            a=None if a.latency_ms is None else a.latency_ms.p50,
            b=None if b.latency_ms is None else b.latency_ms.p50,
            verdict="not comparable"
            if a.latency_ms is None and b.latency_ms is None
            else "ran in one only",
        )
    return _by_rounds(
        ("latency", name, "p50_ms"),
        (a.latency_ms.p50, b.latency_ms.p50),
        (a.rounds.p50_ms, b.rounds.p50_ms),
        doubtful=bool(a.doubtful or b.doubtful),
    )


def _pipeline(name: str, a: PipelineRow, b: PipelineRow) -> Iterator[Compared]:
    doubtful = bool(a.doubtful or b.doubtful)
    if a.pipeline_to_invoke_ratio is not None and b.pipeline_to_invoke_ratio is not None:
        yield _by_rounds(
            ("pipeline", name, "fps_to_bare"),
            (a.pipeline_to_invoke_ratio, b.pipeline_to_invoke_ratio),
            (a.rounds.ratios, b.rounds.ratios),
            doubtful=doubtful,
            more_is_faster=True,
        )
    if abs(a.paced_fps - b.paced_fps) <= NOISE_PERCENT / 100 * a.paced_fps:
        yield _by_rounds(
            ("pipeline", name, "latency_p50_ms"),
            (a.latency_ms.p50, b.latency_ms.p50),
            (a.rounds.latency_p50_ms, b.rounds.latency_p50_ms),
            doubtful=doubtful,
        )
    else:
        # At another pace an idle processor is slower by something else.
        yield Compared(
            table="pipeline",
            row=name,
            figure="latency_p50_ms",
            a=a.latency_ms.p50,
            b=b.latency_ms.p50,
            verdict="not comparable",
        )


def _accuracy(name: str, a: AccuracyRow, b: AccuracyRow) -> Compared:
    same_pictures = (a.pictures, a.persons) == (b.pictures, b.persons)
    difference = round(b.ap - a.ap, 3)
    verdict: Verdict = "same"
    interval: Interval | None = None
    if not same_pictures:
        verdict = "not comparable"
    elif difference:
        # Without the single pictures the runs cannot be paired; this is on the safe side.
        low_a, high_a = a.ap_interval_95 or (a.ap, a.ap)
        low_b, high_b = b.ap_interval_95 or (b.ap, b.ap)
        interval = (round(low_b - high_a, 3), round(high_b - low_a, 3))
        if interval[0] > 0:
            verdict = "more accurate"
        elif interval[1] < 0:
            verdict = "less accurate"
    return Compared(
        table="accuracy",
        row=name,
        figure="ap",
        a=a.ap,
        b=b.ap,
        difference=difference if same_pictures else None,
        interval=interval,
        verdict=verdict,
    )


def _by_rounds(
    what: tuple[Literal["latency", "pipeline"], str, str],
    medians: tuple[float, float],
    rounds: tuple[Sequence[float], Sequence[float]],
    *,
    doubtful: bool,
    more_is_faster: bool = False,
) -> Compared:
    """Compare two figures by the middle halves of their rounds.

    A doubtful figure needs more: all rounds of one side must be beyond all of the other's.
    """
    table, row, figure = what
    a, b = medians
    if not a:
        return Compared(table=table, row=row, figure=figure, a=a, b=b, verdict="not comparable")
    (low_a, high_a), (low_b, high_b) = (
        _range(of_side, median, whole=doubtful)
        for of_side, median in zip(rounds, medians, strict=True)
    )
    ratio = b / a
    interval = (round(low_b / high_a, 4), round(high_b / low_a, 4)) if low_a > 0 else None
    verdict: Verdict = "unclear" if doubtful else "same"
    apart = low_b > high_a or high_b < low_a
    if apart and abs(ratio - 1) * 100 > NOISE_PERCENT:
        verdict = "faster" if (ratio > 1) == more_is_faster else "slower"
    return Compared(
        table=table,
        row=row,
        figure=figure,
        a=a,
        b=b,
        ratio=round(ratio, 4),
        interval=interval,
        verdict=verdict,
        doubtful=doubtful,
    )


def _range(rounds: Sequence[float], otherwise: float, *, whole: bool) -> tuple[float, float]:
    if not rounds:
        return otherwise, otherwise
    low, high = np.percentile(np.array(rounds, np.float64), (0, 100) if whole else (25, 75))
    return float(low), float(high)


def _differences(a: Document, b: Document, latency: _Matched) -> Iterator[Difference]:
    """Yield what differs between the machines, their state, versions, method and files."""
    for name in _MACHINE:
        ours, theirs = getattr(a.machine, name), getattr(b.machine, name)
        close = (
            name == "memory_mb"
            and None not in (ours, theirs)
            and abs(ours - theirs) <= _MEMORY_TOLERANCE_MB
        )
        if not close:
            yield from _differing(name.removesuffix("_mb").replace("_", " "), ours, theirs)
    for what, told in (
        ("governor", _governors),
        ("highest clock", _limits),
        ("throttling", _throttling),
        ("Edge TPU", _edge_tpus),
    ):
        yield from _differing(what, told(a), told(b))
    yield from _differing("edgepose", a.edgepose, b.edgepose)
    for runtime in dict.fromkeys((*a.runtimes, *b.runtimes)):
        yield from _differing(
            runtime, a.runtimes.get(runtime, "none"), b.runtimes.get(runtime, "none")
        )
    if a.method is not None and b.method is not None:
        for name in _METHOD:
            yield from _differing(
                f"method: {name.replace('_', ' ')}",
                getattr(a.method, name),
                getattr(b.method, name),
            )
    files = {(ours.model, ours.sha256, theirs.sha256) for ours, theirs in latency.both.values()}
    for model, ours, theirs in sorted(files):
        yield from _differing(f"file of {model}", f"{ours[:12]}...", f"{theirs[:12]}...")
    brokers = ({row.broker for row in a.pipeline}, {row.broker for row in b.pipeline})
    if all(brokers):
        yield from _differing("broker", *(", ".join(sorted(names)) for names in brokers))


def _differing(what: str, a: object, b: object) -> Iterator[Difference]:
    if a != b:
        yield Difference(
            what=what, a=_AWAY if a is None else str(a), b=_AWAY if b is None else str(b)
        )


def _governors(document: Document) -> str:
    governors = dict.fromkeys(group.governor or _AWAY for group in document.before.frequencies)
    return ", ".join(governors) or _AWAY


def _limits(document: Document) -> str:
    limits = [group.limit_mhz for group in document.before.frequencies]
    known = dict.fromkeys(f"{limit:.0f} MHz" for limit in limits if limit is not None)
    return ", ".join(known) or _AWAY


def _throttling(document: Document) -> str:
    flags = document.after.throttling
    if flags is None:
        return _AWAY
    return ", ".join(flag.replace("_", " ") for flag in flags) or "none"


def _edge_tpus(document: Document) -> str:
    ports = [
        port.bus + (f" {port.usb_mbit_per_s} Mbit/s" if port.usb_mbit_per_s else "")
        for port in document.edge_tpus
    ]
    return ", ".join(ports) or "none"


def _notes(compared: Sequence[Compared], differences: Sequence[Difference]) -> Iterator[str]:
    if not differences:
        yield "Apart from figures, nothing differs that the documents tell."
    if any(each.ratio is not None for each in compared):
        yield (
            "B/A: of medians; in brackets what the middle halves of both sides' rounds leave open. "
            f"same: these overlap, or the difference is at most {NOISE_PERCENT:g}%, within which "
            "two runs of one machine agree. Faster and slower are said of B."
        )
    ratios = [each.ratio for each in compared if each.table == "latency" and each.ratio is not None]
    if len(ratios) >= MIN_ROWS_IN_COMMON:
        low, common, high = np.percentile(ratios, (25, 50, 75))
        text = (
            f"All {len(ratios)} latency rows: B/A {common:.2f}, the middle half {low:.2f} to "
            f"{high:.2f}."
        )
        if not differences and abs(common - 1) * 100 > NOISE_PERCENT:
            text += (
                " The machine and the versions are the same, so what the rows have in common is "
                "the machine's speed at that time (clock, heat, other guests of a shared host): "
                "these two runs do not agree."
            )
        yield text
    if any(each.difference is not None for each in compared):
        yield (
            "B-A: AP x 100; in brackets what the two 95% intervals leave open. They are not "
            "paired: `edgepose benchmark --coco ... --against` on one machine sees smaller "
            "differences."
        )
    if any(each.doubtful for each in compared):
        yield (
            f"{DOUBT_MARK}: one of the two documents says itself that the figure is doubtful; then "
            "all rounds of both sides count, and where they overlap it is unclear."
        )


def _tables(comparison: Comparison) -> Iterator[Table]:
    if comparison.differences:
        yield Table(
            "what differs",
            "apart from figures",
            ("what", "A", "B"),
            tuple((each.what, each.a, each.b) for each in comparison.differences),
        )
    titles = {
        "latency": ("latency", "p50 of an invoke in ms"),
        "pipeline": (
            "pipeline",
            (
                "fps_to_bare is the line's throughput to the bare loop's, more is faster; "
                "latency_p50_ms is from frame to subscriber"
            ),
        ),
        "accuracy": ("accuracy", "AP x 100"),
    }
    for table, (title, about) in titles.items():
        rows = [each for each in comparison.compared if each.table == table]
        if rows:
            yield Table(
                title,
                about,
                ("row", "A", "B", "B-A" if table == "accuracy" else "B/A", "", "B is"),
                tuple(_cells(each) for each in rows),
            )
    for name, rows_of_one in (("A", comparison.only_a), ("B", comparison.only_b)):
        if rows_of_one:
            yield Table(
                f"only in {name}",
                "rows without a counterpart",
                ("row",),
                tuple((row,) for row in rows_of_one),
            )


def _cells(each: Compared) -> tuple[str, ...]:
    name = each.row if each.table != "pipeline" else f"{each.row}: {each.figure}"
    change = NOTHING
    spread = ""
    if each.difference is not None:
        change = f"{each.difference:+.1f}"
        if each.interval is not None:
            spread = f"[{each.interval[0]:+.1f}, {each.interval[1]:+.1f}]"
    elif each.ratio is not None:
        change = f"{each.ratio:.3f}"
        if each.interval is not None:
            spread = f"[{each.interval[0]:.3f}, {each.interval[1]:.3f}]"
    verdict = each.verdict + (DOUBT_MARK if each.doubtful else "")
    return name, _number(each.a), _number(each.b), change, spread, verdict


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"


def _side(document: Document, file: str) -> Side:
    return Side(
        file=file,
        machine=document.machine.name,
        edgepose=document.edgepose,
        created_at=document.created_at,
    )


def _described(letter: str, side: Side) -> str:
    day = side.created_at.partition("T")[0]
    return f"{letter}: {side.file}, {side.machine}, edgepose {side.edgepose}, {day}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"
