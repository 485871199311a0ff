"""The content of reports: rows, columns and footnotes of each table, and number formats."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgepose.benchmark.backends import EDGETPU, LITERT, LITERT_PLAIN, TFLITE_RUNTIME
from edgepose.benchmark.environment import described
from edgepose.benchmark.reference_table import PUBLISHED_THREADS
from edgepose.benchmark.results import (
    AccuracyRow,
    Document,
    Interval,
    LatencyRow,
    Method,
    PipelineRow,
)

UNSTABLE_MARK: Final = "?"
NOTHING: Final = "-"

_BACKEND_TITLES: Final = {
    LITERT: "LiteRT",
    LITERT_PLAIN: "no XNNPACK",
    TFLITE_RUNTIME: "tflite-rt",
    EDGETPU: "Edge TPU",
}


@dataclass(frozen=True, slots=True)
class Table:
    """One table: names in the first column, figures in the others, all as text."""

    title: str
    about: str
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    footnotes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Tables, between the lines before and after them."""

    head: tuple[str, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def report(document: Document) -> Report:
    """Return the report of a document."""
    versions = ", ".join(f"{name} {version}" for name, version in document.runtimes.items())
    run = f"{document.created_at}, {document.seconds:.0f} s"
    head = (
        f"edgepose {document.edgepose} benchmark, {run}; {versions}",
        *described(document.machine, document.before, document.after, document.edge_tpus),
    )
    return Report(head, tuple(_tables(document)), document.notes, document.warnings)


def table_of(
    title: str,
    about: str,
    rows: Sequence[Any],
    columns: Mapping[str, Callable[[Any], str]],
    footnotes: Sequence[str] = (),
) -> Table:
    """Return a table whose columns are functions of a row."""
    cells = tuple(tuple(column(row) for column in columns.values()) for row in rows)
    return Table(title, about, tuple(columns), cells, tuple(footnotes))


def method_notes(method: Method) -> Iterator[str]:
    """Yield how the latencies were measured."""
    yield (
        f"Method: one run is {method.timed}, by {method.timer}. Each row has at least "
        f"{method.min_runs} runs and {method.min_seconds:g} s in {method.rounds} rounds or more, "
        f"within the {method.max_seconds:g} s of the whole table; {method.order}, so that thermal "
        "throttling or background load affects all models equally. Rows whose rounds disagree get "
        "more rounds while there is time."
    )
    yield (
        "Before its runs a model is loaded (load), runs once (first) and warms up, "
        f"{method.warm_up_seconds:g} s in its first round; none of these count as runs; load and "
        f"first are medians over the rounds. {method.memory.capitalize()}. The garbage collector "
        f"is {method.garbage_collector}. Input: {method.input} (seed {method.seed})."
    )
    yield (
        "p50, p95, p99, mean and standard deviation (sd) are over all runs of a row; of fewer than "
        "100 runs p99 is little more than the slowest. Each row reports whether it is reliable: "
        "IQR is the interquartile range of its rounds' medians in % of their median; above "
        f"{method.max_iqr_percent:g}% the row is unstable ({UNSTABLE_MARK}). other: CPU time of "
        "other processes (and of the hypervisor) meanwhile, in % of one core."
    )


def latency_notes(rows: Sequence[LatencyRow]) -> Iterator[str]:
    """Yield notes on the published figures and on delegates."""
    if any(row.published for row in rows):
        yield (
            "* published with the models, not measured here: Pixel 5 and Raspberry Pi 4 CPU with "
            f"{PUBLISHED_THREADS} threads; mAP of single persons cropped out of COCO (no list of "
            "the images was published), of the published file if ours differs."
        )
        if all(row.map is None for row in rows):
            yield "Accuracy was not measured; use --coco and --images."
    unused = sorted(
        f"{row.model} on {row.backend}"
        for row in rows
        if row.latency_ms and not row.delegate and row.backend in (LITERT, TFLITE_RUNTIME)
    )
    if unused:
        names = ", ".join(dict.fromkeys(unused))
        yield f"XNNPACK was on but not used, the runtime's own kernels ran all of: {names}."


def format_or_dash(form: str, value: object) -> str:
    """Return a formatted value, or a dash for None."""
    return NOTHING if value is None else form.format(value)


def format_ms(value: float) -> str:
    """Return milliseconds with three significant digits, at most two decimals."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def format_p50(row: LatencyRow) -> str:
    """Return the median of a row, marked if it is unstable."""
    if row.latency_ms is None:
        return "n/a"
    return format_ms(row.latency_ms.p50) + (UNSTABLE_MARK if row.unstable else "")


def format_threads(count: int) -> str:
    """Return a number of threads."""
    return f"{count} thread{'s' if count > 1 else ''}"


def _tables(document: Document) -> Iterator[Table]:
    latency = document.latency
    if latency:
        yield _published_table(latency)
        yield _medians_table(latency)
        for backend, threads in dict.fromkeys((row.backend, row.threads) for row in latency):
            rows = [row for row in latency if (row.backend, row.threads) == (backend, threads)]
            yield from _details_table([row for row in rows if row.latency_ms is not None])
    for protocol in dict.fromkeys(row.protocol for row in document.accuracy):
        yield _accuracy_table([row for row in document.accuracy if row.protocol == protocol])
    if document.pipeline:
        yield from _pipeline_tables(document.pipeline)


def _published_table(latency: Sequence[LatencyRow]) -> Table:
    rows = [_representative([r for r in latency if r.model == name]) for name in _models(latency)]
    protocols = sorted({row.map_protocol for row in latency if row.map_protocol is not None})
    differences = list(
        dict.fromkeys(row.published_difference for row in rows if row.published_difference)
    )
    marks = {text: f" [{letter}]" for text, letter in zip(differences, "abcdefghij", strict=False)}
    footnotes = [f"{mark.strip()} {difference}" for difference, mark in marks.items()]
    if any(row.published is not None and row.ratio_to_published_pi4 is None for row in rows):
        footnotes.append("No ratio is given for another network or another device.")
    where = "; ".join(
        dict.fromkeys(
            f"{row.backend} {row.runtime_version}"
            + ("" if row.backend == EDGETPU else f", {format_threads(row.threads)}")
            for row in rows
            if row.latency_ms is not None
        )
    )
    measured_map = {"mAP": lambda row: format_or_dash("{:.1f}", row.map)} if protocols else {}
    return table_of(
        "latency",
        f"median of invoke here in ms ({where}) and published figures (*)"
        + (f"; mAP without * is protocol {', '.join(protocols)}" if protocols else ""),
        rows,
        {
            "model": lambda row: row.model + marks.get(row.published_difference, ""),
            "MB": _megabytes,
            "MB*": lambda row: format_or_dash("{0.megabytes:.1f}", row.published),
            "mAP*": lambda row: format_or_dash("{0.map:.1f}", row.published),
            "Pixel 5*": lambda row: format_or_dash("{0.pixel5_cpu_ms:g}", row.published),
            "its GPU*": lambda row: format_or_dash("{0.pixel5_gpu_ms:g}", row.published),
            "Pi 4*": lambda row: format_or_dash("{0.pi4_cpu_ms:g}", row.published),
            **measured_map,
            "here": format_p50,
            "here/Pi 4": lambda row: format_or_dash("{:.3f}", row.ratio_to_published_pi4),
        },
        footnotes,
    )


def _medians_table(latency: Sequence[LatencyRow]) -> Table:
    by_key = {row.key: row for row in latency}

    def column(backend: str, threads: int) -> tuple[str, Callable[[str], str]]:
        title = _BACKEND_TITLES.get(backend, backend)
        return (
            title if backend == EDGETPU else f"{title} {threads}T",
            lambda model: _cell(by_key.get((model, backend, threads)), format_p50),
        )

    keys = dict.fromkeys((row.backend, row.threads) for row in latency)
    reasons = (f"{row.model} on {row.backend}: {row.not_run}" for row in latency if row.not_run)
    return table_of(
        "medians",
        "p50 of invoke in ms by backend and threads (T)",
        _models(latency),
        {"model": str, **dict(column(*key) for key in keys)},
        list(dict.fromkeys(reasons)),
    )


def _details_table(rows: Sequence[LatencyRow]) -> Iterator[Table]:
    if not rows:
        return
    first = rows[0]
    delegates = sorted({row.delegate.partition(" (")[0] for row in rows if row.delegate})

    def ms(field: str) -> Callable[[LatencyRow], str]:
        return lambda row: format_ms(getattr(row.latency_ms, field))

    yield table_of(
        EDGETPU
        if first.backend == EDGETPU
        else f"{first.backend}, {format_threads(first.threads)}",
        f"{first.runtime} {first.runtime_version}, {', '.join(delegates) or 'no delegate'}; times "
        "in ms",
        rows,
        {
            "model": lambda row: row.model,
            "runs": lambda row: str(sum(row.rounds.runs)),
            "load": lambda row: format_ms(row.rounds.load_ms),
            "first": lambda row: format_ms(row.rounds.first_ms),
            "min": ms("min"),
            "mean": ms("mean"),
            "p50": format_p50,
            "p95": ms("p95"),
            "p99": ms("p99"),
            "sd": ms("standard_deviation"),
            "IQR": lambda row: f"{row.rounds.iqr_percent:.1f}%",
            "other": lambda row: format_or_dash("{:.0f}%", row.other_cpu_percent),
        },
    )


def _accuracy_table(rows: Sequence[AccuracyRow]) -> Table:
    def figure(name: str, form: str = "{:.1f}") -> Callable[[AccuracyRow], str]:
        return lambda row: _with_interval(
            getattr(row, name), getattr(row, f"{name}_interval_95"), form
        )

    columns: dict[str, Callable[[AccuracyRow], str]] = {
        "model": lambda row: row.model,
        "MB": _megabytes,
        **{name.upper(): figure(name) for name in ("ap", "ap50", "ap75", "ar")},
    }
    against = next((row.against for row in rows if row.against is not None), None)
    if against is not None:
        columns[f"AP to {against}"] = figure("ap_difference", "{:+.1f}")
    return table_of(rows[0].protocol, rows[0].about, rows, columns)


def _pipeline_tables(rows: Sequence[PipelineRow]) -> Iterator[Table]:
    columns: dict[str, Callable[[PipelineRow], str]] = {
        "model": lambda row: row.model,
        "source": lambda row: f"{row.source} {row.width}x{row.height}",
        "T": lambda row: str(row.threads),
    }
    yield table_of(
        "pipeline",
        "the whole daemon, from a source to a subscriber in another process, and a bare loop of "
        "invoke in the same run: frames per second back to back, their ratio, and the additional "
        "time and processor time (cpu) of a frame in ms",
        rows,
        {
            **columns,
            "fps": lambda row: f"{row.fps:.1f}" + (UNSTABLE_MARK if row.unstable else ""),
            "bare fps": lambda row: f"{row.bare_invoke.fps:.1f}",
            "ratio": lambda row: format_or_dash("{:.3f}", row.pipeline_to_invoke_ratio),
            "overhead": lambda row: _cell(row.overhead_ms, format_ms),
            "cpu": lambda row: _cell(row.cpu_overhead_ms, format_ms),
            "dropped": lambda row: str(row.dropped),
            "lost": lambda row: str(row.lost),
        },
        [f"{row.model}: {reason}" for row in rows for reason in row.unstable],
    )
    yield table_of(
        "pipeline latency",
        "from the timestamp of a frame to the arrival of its message, at the frame rate of the "
        "source, and the bare invoke at that rate; times in ms",
        rows,
        {
            **columns,
            "fps": lambda row: f"{row.paced_fps:.1f}",
            "p50": lambda row: format_ms(row.latency_ms.p50),
            "p95": lambda row: format_ms(row.latency_ms.p95),
            "p99": lambda row: format_ms(row.latency_ms.p99),
            "invoke p50": lambda row: format_ms(row.paced_invoke_ms.p50),
            "invoke p99": lambda row: format_ms(row.paced_invoke_ms.p99),
            "p50 more": lambda row: format_ms(row.latency_ms.p50 - row.paced_invoke_ms.p50),
            "p99 more": lambda row: format_ms(row.latency_ms.p99 - row.paced_invoke_ms.p99),
        },
        list(dict.fromkeys(f"broker: {row.broker}" for row in rows)),
    )

    def stage(row: PipelineRow) -> Callable[[Any], str]:
        return lambda name: _cell(
            row.stages_ms.get(name), lambda found: f"{format_ms(found.p50)} ({found.share:.0%})"
        )

    yield table_of(
        "stages",
        "median in ms and share of each stage of that latency",
        list(dict.fromkeys(name for row in rows for name in row.stages_ms)),
        {"stage": str, **{f"{row.model} {row.threads}T": stage(row) for row in rows}},
    )


def _models(latency: Sequence[LatencyRow]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.model for row in latency))


def _representative(rows: Sequence[LatencyRow]) -> LatencyRow:
    """Return the row to compare with the published one: the first backend's, at most 4 threads."""
    running = [row for row in rows if row.latency_ms is not None] or list(rows)
    return max(
        (row for row in running if row.backend == running[0].backend),
        key=lambda row: row.threads if row.threads <= PUBLISHED_THREADS else -row.threads,
    )


def _megabytes(row: LatencyRow | AccuracyRow) -> str:
    return f"{row.bytes / 1e6:.1f}"


def _cell(value: Any, form: Callable[[Any], str]) -> str:
    return NOTHING if value is None else form(value)


def _with_interval(value: float | None, interval: Interval | None, form: str) -> str:
    text = format_or_dash(form, value)
    if interval is not None:
        text += f" [{form.format(interval[0])}, {form.format(interval[1])}]"
    return text
