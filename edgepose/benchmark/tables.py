"""The content of reports: rows, columns and footnotes of each table, and number formats."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from msgspec.structs import asdict

from edgepose.benchmark.backends import LITERT_PLAIN
from edgepose.benchmark.environment import facts, state_text
from edgepose.benchmark.reference_table import PUBLISHED_THREADS
from edgepose.benchmark.results import (
    AccuracyRow,
    Document,
    Interval,
    LatencyRow,
    Method,
    PipelineRow,
    PublishedBefore,
    fastest_rows,
)

UNSTABLE_MARK: Final = "?"
NOTHING: Final = "-"

Columns = Mapping[str, str | Callable[[Any], str]]
"""Columns by title: a function of the row, or a field with its format, as in `rounds.load_ms:ms`.

The format is `ms`, `MB` (of bytes) or one of Python; with a `?` after it unstable rows are marked.
A field with an interval has it in brackets.
"""

_LATENCY: Final[Columns] = {
    "model": "model",
    "backend": "backend",
    "T": "threads",
    "runs": lambda row: str(sum(row.rounds.runs)),
    "load": "rounds.load_ms:ms",
    "first": "rounds.first_ms:ms",
    "p50": "latency_ms.p50:ms?",
    "p95": "latency_ms.p95:ms",
    "p99": "latency_ms.p99:ms",
    "IQR %": "rounds.iqr_percent:.1f",
    "other %": "other_cpu_percent:.0f",
}
_ACCURACY: Final[Columns] = {
    "model": "model",
    "MB": "bytes:MB",
    "AP": "ap:.1f",
    "AP50": "ap50:.1f",
    "AP75": "ap75:.1f",
    "AR": "ar:.1f",
}
_PIPELINE: Final[Columns] = {
    "source": lambda row: f"{row.source} {row.width}x{row.height}",
    "frames per second": "fps:.1f?",
    "bare loop, per second": "bare_invoke.fps:.1f",
    "ratio of these": "pipeline_to_invoke_ratio:.3f",
    "additional time of a frame": "overhead_ms:ms",
    "additional CPU time of a frame": "cpu_overhead_ms:ms",
    "dropped frames": "dropped",
    "lost messages": "lost",
    "paced frames per second": "paced_fps:.1f",
    "paced latency p50": "latency_ms.p50:ms",
    "paced latency p95": "latency_ms.p95:ms",
    "paced latency p99": "latency_ms.p99:ms",
    "paced bare invoke p50": "paced_invoke_ms.p50:ms",
    "paced bare invoke p99": "paced_invoke_ms.p99:ms",
}


class Table(NamedTuple):
    """One table: names in the first column, figures in the others, all as text."""

    title: str
    about: str
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    footnotes: tuple[str, ...] = ()


class Report(NamedTuple):
    """Tables, with what was measured before them and notes after them."""

    title: str
    facts: Mapping[str, str]
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def report(document: Document) -> Report:
    """Return the report of a document."""
    date, time = document.created_at[:10], document.created_at[11:16]
    title = f"edgepose benchmark, {date} {time} UTC, {document.seconds:.0f} s"
    states = {"before": state_text(document.before), "after": state_text(document.after)}
    return Report(
        title, facts(document) | states, tuple(_tables(document)), document.notes, document.warnings
    )


def table_of(
    title: str, about: str, rows: Sequence[Any], columns: Columns, footnotes: Sequence[str] = ()
) -> Table:
    """Return a table with the cells of all rows; footnotes that are the same appear once."""
    cells = tuple(tuple(_cell(row, column) for column in columns.values()) for row in rows)
    return Table(title, about, tuple(columns), cells, tuple(dict.fromkeys(footnotes)))


def field(row: Any, path: str) -> Any:
    """Return a field by its path, such as `rounds.load_ms`; None if a part of the path is None."""
    for name in path.split("."):
        row = None if row is None else getattr(row, name)
    return row


def format_ms(value: float) -> str:
    """Return milliseconds with three significant digits, at most two decimals."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def format_value(value: Any, spec: str) -> str:
    """Return a value by a format of `Columns`; a dash for None."""
    if value is None:
        return NOTHING
    if spec == "ms":
        return format_ms(value)
    return f"{value / 1e6:.1f}" if spec == "MB" else format(value, spec)


def format_with_interval(value: float | None, interval: Interval | None, spec: str) -> str:
    """Return a value with its interval, if it has one, in brackets."""
    low_high = "" if interval is None else f" [{interval[0]:{spec}}, {interval[1]:{spec}}]"
    return format_value(value, spec) + low_high


def latency_notes(method: Method | None, rows: Sequence[LatencyRow]) -> Iterator[str]:
    """Yield how latencies were measured, and which rows the delegate did not run."""
    if method is not None:
        parts = (f"{name.replace('_', ' ')}: {value}" for name, value in asdict(method).items())
        yield f"Method: {'; '.join(parts)}."
    without = [row for row in rows if row.latency_ms and not row.delegate]
    with_xnnpack = {f"{r.model} on {r.backend}" for r in without if r.backend != LITERT_PLAIN}
    if with_xnnpack:
        names = ", ".join(sorted(with_xnnpack))
        yield f"XNNPACK was on but not used, the runtime's own kernels ran all of: {names}."


def _tables(document: Document) -> Iterator[Table]:
    if document.latency:
        yield from _latency_tables(document.latency, document.published_before)
    for protocol in dict.fromkeys(row.protocol for row in document.accuracy):
        yield _accuracy_table([row for row in document.accuracy if row.protocol == protocol])
    if document.pipeline:
        yield _pipeline_table(document.pipeline)


def _latency_tables(
    latency: Sequence[LatencyRow], before: Sequence[PublishedBefore]
) -> Iterator[Table]:
    rows = fastest_rows(latency)
    columns: Columns = {
        "model": "model",
        "MB": "bytes:MB",
        **{f"mAP {row.map_protocol}": "map:.1f" for row in rows if row.map_protocol is not None},
        "here": "latency_ms.p50:ms?",
        "here/Pi 4": "ratio_to_published_pi4:.3f",
        "MB*": "published.megabytes:.1f",
        "mAP*": "published.map:.1f",
        "Pixel 5*": "published.pixel5_cpu_ms:g",
        "its GPU*": "published.pixel5_gpu_ms:g",
        "Pi 4*": "published.pi4_cpu_ms:g",
    }
    footnotes = [f"{r.model}: {r.published_difference}" for r in rows if r.published_difference]
    yield table_of(
        "models",
        "median of invoke in ms here, at its fastest, and what was published with the models (*): "
        f"CPU latencies with {PUBLISHED_THREADS} threads, mAP of single persons cropped out of "
        "COCO, of which no list was published",
        rows,
        columns,
        footnotes,
    )
    for row in rows:
        devices = [each for each in before if row.published and each.name == row.published.name]
        if devices and row.ratio_to_published_pi4 is not None:
            yield _older_page_table(row, devices)
    by_model = [row for fastest in rows for row in latency if row.model == fastest.model]
    yield table_of(
        "latency",
        "invoke in ms by backend and threads (T); IQR: interquartile range of the medians of the "
        "rounds, in % of their median; other: CPU time of other processes, in % of one core",
        [row for row in by_model if row.latency_ms is not None],
        _LATENCY,
        [f"{row.model} on {row.backend}: {row.not_run}" for row in by_model if row.not_run],
    )


def _older_page_table(row: LatencyRow, devices: Sequence[PublishedBefore]) -> Table:
    """Return the figures of an older page beside the latency here of the same network."""
    here_ms = row.latency_ms.p50 if row.latency_ms else math.nan
    columns: Columns = {
        "device": "device",
        "MB*": "megabytes:.1f",
        "GPU*": "gpu_ms:g",
        "CPU*": "cpu_ms:g",
        "T*": "cpu_threads",
        "here": lambda _: format_ms(here_ms) + UNSTABLE_MARK * bool(row.unstable),
        "here/CPU": lambda each: f"{here_ms / each.cpu_ms:.3f}",
    }
    about = "published before (*), in ms by threads (T), of the same file: its MB were 2**20 bytes"
    return table_of(f"older page of {row.model}", about, devices, columns)


def _accuracy_table(rows: Sequence[AccuracyRow]) -> Table:
    against = {f"AP to {row.against}": "ap_difference:+.1f" for row in rows if row.against}
    return table_of(rows[0].protocol, rows[0].about, rows, {**_ACCURACY, **against})


def _pipeline_table(rows: Sequence[PipelineRow]) -> Table:
    """Return a table with a column for each row, and the stages of the paced latency."""
    cells = [(title, *(_cell(row, column) for row in rows)) for title, column in _PIPELINE.items()]
    for name in rows[0].stages_ms:
        stages = [row.stages_ms[name] for row in rows]
        cells.append((name, *(f"{format_ms(each.p50)} ({each.share:.0%})" for each in stages)))
    return Table(
        "pipeline",
        "the whole daemon, from a source to a subscriber in another process, and a bare loop of "
        "invoke: back to back, and paced by the frame rate of the source, with the latency from "
        "the timestamp of a frame to the arrival of its message and its stages; times in ms",
        ("", *(f"{row.model} {row.threads}T" for row in rows)),
        tuple(cells),
        (
            *dict.fromkeys(f"broker: {row.broker}" for row in rows),
            *(f"{row.model}: {reason}" for row in rows for reason in row.unstable),
        ),
    )


def _cell(row: Any, column: str | Callable[[Any], str]) -> str:
    if callable(column):
        return column(row)
    path, _, spec = column.partition(":")
    interval = getattr(row, f"{path}_interval_95", None)
    text = format_with_interval(field(row, path), interval, spec.removesuffix("?"))
    return text + UNSTABLE_MARK * bool(spec.endswith("?") and row.unstable)
