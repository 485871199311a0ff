"""What a benchmark found, as tables for people, Markdown, CSV or JSON."""

import csv
import io
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edgepose.benchmark.accuracy import RESAMPLES, SEED, Evaluation, Figures
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
    encode,
)
from edgepose.protocols import LoadedModel

WIDTH: Final = 100
"""Columns of a terminal that the tables are made for."""
FIGURES: Final = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar": "AR"}
PUBLISHED_MARK: Final = "*"
DOUBT_MARK: Final = "?"
NOTHING: Final = "-"

_INTERVAL: Final = "_interval_95"
"""Ends the key of the interval that belongs to a figure."""
_NO_ACCURACY: Final = " Accuracy was not measured; --coco and --images do that."
_ENGINE_TITLES: Final = {
    LITERT: "LiteRT",
    LITERT_PLAIN: "no XNNPACK",
    TFLITE_RUNTIME: "tflite-rt",
    EDGETPU: "Edge TPU",
}


@dataclass(frozen=True, slots=True)
class Table:
    """One table: what it is about, its titles, and its rows of text, names in the first column.

    `below` are sentences that belong to it alone.
    """

    title: str
    about: str
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    below: tuple[str, ...] = ()


def rendered(document: Document, output_format: str) -> str:
    """Return a document as `table`, `json`, `markdown` or `csv`, with a newline at its end."""
    writers: dict[str, Callable[[Document], str]] = {
        "table": _as_text,
        "json": lambda document: encode(document).decode(),
        "markdown": _as_markdown,
        "csv": _as_csv,
    }
    return writers[output_format](document).rstrip("\n") + "\n"


def accuracy_rows(
    evaluation: Evaluation,
    models: Sequence[LoadedModel],
    labels: Sequence[str],
    against: int | None = None,
) -> tuple[AccuracyRow, ...]:
    """Return a row for each protocol and model; `against` is whom the others are compared with."""
    rows = []
    for result in evaluation.results:
        about = (
            f"{result.protocol.description}. {result.pictures} pictures, {result.persons} persons"
        )
        for index, (model, label, score) in enumerate(
            zip(models, labels, result.scores, strict=True)
        ):
            figures: dict[str, Any] = {}
            for place, key in enumerate(Figures._fields):
                figures[key] = _percent(score.figures[place])
                figures[key + _INTERVAL] = _percents(score.interval(place))
            if against is not None:
                figures["against"] = labels[against]
                if index != against:
                    value, interval = score.difference(result.scores[against])
                    figures["ap_difference"] = _percent(value)
                    figures["ap_difference" + _INTERVAL] = _percents(interval)
            rows.append(
                AccuracyRow(
                    about=about,
                    model=label,
                    bytes=model.path.stat().st_size,
                    device=model.device,
                    protocol=result.protocol.name,
                    pictures=result.pictures,
                    persons=result.persons,
                    left_out=len(evaluation.left_out),
                    **figures,
                )
            )
    return tuple(rows)


def accuracy_notes(pycocotools: str, against: str | None, left_out: int) -> tuple[str, ...]:
    """Return how the accuracy figures came about."""
    notes = [
        (
            f"AP and AR (pycocotools {pycocotools}): average precision and recall x 100, mean over "
            "OKS .50 to .95. No pose threshold applies."
        ),
        f"In brackets: 95% interval, bootstrap over pictures ({RESAMPLES} resamples, seed {SEED}).",
    ]
    if against is not None:
        notes.append(
            f"To {against}: difference in AP on the same pictures, with its own (paired) interval."
        )
    if left_out:
        notes.append(f"{left_out} pictures could not be used and are left out for every model.")
    return tuple(notes)


def method_notes(method: Method) -> tuple[str, ...]:
    """Return how the latencies were measured, in sentences."""
    return (
        (
            f"Method: one run is {method.timed}, by {method.timer}. Each row has at least "
            f"{method.min_runs} runs and {method.min_seconds:g} s in {method.rounds} rounds or "
            f"more, as far as the whole table's {method.max_seconds:g} s allow; {method.order}. "
            f"Rows whose rounds disagree get further rounds while there is time."
        ),
        (
            f"Before its runs a row is loaded (load), runs once (first) and warms up, "
            f"{method.warm_up_seconds:g} s in its first round; none of these count as runs. "
            f"{method.memory[0].upper()}{method.memory[1:]}; load and first are medians over the "
            f"rounds. The garbage collector is {method.garbage_collector}. Input: {method.input} "
            f"(seed {method.seed})."
        ),
        (
            "p50, p95, p99, mean and standard deviation (sd) are over all runs of a row; of fewer "
            "than 100 runs p99 is little more than the slowest. spread: the middle half of its "
            f"rounds' medians in % of their median; above {method.max_spread_percent:g}% the row "
            f"is doubtful ({DOUBT_MARK}). others: CPU time of other processes (and of the "
            "hypervisor) meanwhile, in % of one core."
        ),
    )


def latency_notes(rows: Sequence[LatencyRow]) -> tuple[str, ...]:
    """Return what is to be said of the published figures, and of delegates."""
    notes = []
    if any(row.published for row in rows):
        notes.append(
            f"{PUBLISHED_MARK} published with the models, not measured here: Pixel 5 and Raspberry "
            f"Pi 4 CPU with {PUBLISHED_THREADS} threads; mAP of single persons cropped out of "
            "COCO (no list of the pictures was published), of the published file where ours is "
            "another." + ("" if any(row.map is not None for row in rows) else _NO_ACCURACY)
        )
    unused = sorted(
        {
            f"{row.model} on {row.engine}"
            for row in rows
            if row.latency_ms is not None
            and row.delegate is None
            and row.engine in (LITERT, TFLITE_RUNTIME)
        }
    )
    if unused:
        notes.append(
            "XNNPACK was on but took no part of: " + ", ".join(unused) + ". The runtime's own "
            "kernels did all the work there."
        )
    return tuple(notes)


def tables(document: Document) -> Iterator[Table]:
    """Yield the tables of a document, in the order that people read them."""
    if document.latency:
        yield _beside_published(document.latency)
        yield _medians(document.latency)
        yield from _details(document.latency)
    for protocol in dict.fromkeys(row.protocol for row in document.accuracy):
        yield _accuracy(protocol, [row for row in document.accuracy if row.protocol == protocol])
    if document.pipeline:
        yield from _pipeline(document.pipeline)


def _beside_published(latency: Sequence[LatencyRow]) -> Table:
    rows, below = [], []
    marks: dict[str, str] = {}
    protocols = {row.map_protocol for row in latency if row.map_protocol is not None}
    chosen = [_chosen([row for row in latency if row.model == model]) for model in _models(latency)]
    for row in chosen:
        published = row.published
        mark = ""
        if row.published_difference is not None:
            mark = f" [{marks.setdefault(row.published_difference, chr(ord('a') + len(marks)))}]"
        ratio = row.ratio_to_published_pi4
        rows.append(
            (
                row.model + mark,
                f"{row.bytes / 1e6:.1f}",
                *(
                    (NOTHING,) * 5
                    if published is None
                    else (
                        f"{published.megabytes:.1f}",
                        f"{published.map:.1f}",
                        f"{published.pixel5_cpu_ms:g}",
                        f"{published.pixel5_gpu_ms:g}",
                        f"{published.pi4_cpu_ms:g}",
                    )
                ),
                *([NOTHING if row.map is None else f"{row.map:.1f}"] if protocols else []),
                _median(row),
                NOTHING if ratio is None else f"{ratio:.3f}",
            )
        )
    below += [f"[{mark}] {difference}" for difference, mark in marks.items()]
    if any(row.published is not None and row.ratio_to_published_pi4 is None for row in chosen):
        below.append("No ratio is given to a network or a device that is another.")
    return Table(
        "latency",
        f"median of an invoke here in ms ({_where(chosen)}) beside what was published "
        f"({PUBLISHED_MARK})"
        + (
            f"; mAP without {PUBLISHED_MARK} is protocol {', '.join(protocols)}"
            if protocols
            else ""
        ),
        (
            *("model", "MB", f"MB{PUBLISHED_MARK}", f"mAP{PUBLISHED_MARK}"),
            *(f"Pixel 5{PUBLISHED_MARK}", f"its GPU{PUBLISHED_MARK}", f"Pi 4{PUBLISHED_MARK}"),
            *(["mAP"] if protocols else []),
            *("here", "here/Pi 4"),
        ),
        tuple(rows),
        tuple(below),
    )


def _medians(latency: Sequence[LatencyRow]) -> Table:
    columns = list(dict.fromkeys((row.engine, row.threads) for row in latency))
    by_key = {row.key: row for row in latency}
    rows = tuple(
        (
            model,
            *(
                _median(by_key[model, engine, threads])
                if (model, engine, threads) in by_key
                else NOTHING
                for engine, threads in columns
            ),
        )
        for model in _models(latency)
    )
    reasons = dict.fromkeys(
        f"{row.model} on {row.engine}: {row.not_run}" for row in latency if row.not_run is not None
    )
    return Table(
        "medians",
        "p50 of an invoke in ms by engine and threads (T)",
        (
            "model",
            *(
                _ENGINE_TITLES.get(engine, engine) + _short(engine, threads)
                for engine, threads in columns
            ),
        ),
        rows,
        tuple(reasons),
    )


def _details(latency: Sequence[LatencyRow]) -> Iterator[Table]:
    for engine, threads in dict.fromkeys((row.engine, row.threads) for row in latency):
        rows = [
            row
            for row in latency
            if (row.engine, row.threads) == (engine, threads) and row.latency_ms is not None
        ]
        if not rows:
            continue
        delegates = {(row.delegate or "").partition(" (")[0] for row in rows} - {""}
        with_delegate = f", {', '.join(sorted(delegates))}" if delegates else ", no delegate"
        yield Table(
            engine if engine == EDGETPU else f"{engine}, {_threads(threads)}",
            f"{rows[0].runtime} {rows[0].runtime_version}{with_delegate}; times in ms",
            (
                *("model", "runs", "load", "first", "min", "mean", "p50", "p95", "p99", "sd"),
                *("spread", "others"),
            ),
            tuple(map(_detail, rows)),
        )


def _detail(row: LatencyRow) -> tuple[str, ...]:
    latency, rounds = row.latency_ms, row.rounds
    assert latency is not None
    assert rounds is not None
    return (
        row.model,
        str(sum(rounds.runs)),
        _ms(rounds.load_ms),
        _ms(rounds.first_ms),
        *map(_ms, (latency.min, latency.mean)),
        _median(row),
        *map(_ms, (latency.p95, latency.p99, latency.standard_deviation)),
        f"{rounds.spread_percent:.1f}%",
        NOTHING if row.others_percent is None else f"{row.others_percent:.0f}%",
    )


def _accuracy(protocol: str, rows: Sequence[AccuracyRow]) -> Table:
    against = next((row.against for row in rows if row.against is not None), None)
    titles = ["model", "MB", *FIGURES.values()]
    if against is not None:
        titles.append(f"AP to {against}")
    cells = []
    for row in rows:
        cell = [row.model, f"{row.bytes / 1e6:.1f}"]
        cell += [
            _with_interval(getattr(row, key), getattr(row, key + _INTERVAL), "{:.1f}")
            for key in FIGURES
        ]
        if against is not None:
            difference, interval = row.ap_difference, row.ap_difference_interval_95
            cell.append(_with_interval(difference, interval, "{:+.1f}"))
        cells.append(tuple(cell))
    return Table(protocol, rows[0].about, tuple(titles), tuple(cells))


def _pipeline(rows: Sequence[PipelineRow]) -> Iterator[Table]:
    yield Table(
        "pipeline",
        "the whole line, from a source to a subscriber in another process, beside a bare loop of "
        "invokes in the same run: frames a second back to back, their ratio, and what a frame "
        "takes longer (ms)",
        (*("model", "source", "T", "fps", "bare fps", "ratio", "overhead", "dropped", "lost"),),
        tuple(
            (
                row.model,
                f"{row.source} {row.width}x{row.height}",
                str(row.threads),
                f"{row.fps:.1f}" + (DOUBT_MARK if row.doubtful else ""),
                f"{row.bare_invoke.fps:.1f}",
                NOTHING
                if row.pipeline_to_invoke_ratio is None
                else f"{row.pipeline_to_invoke_ratio:.3f}",
                NOTHING if row.overhead_ms is None else _ms(row.overhead_ms),
                str(row.dropped),
                str(row.lost),
            )
            for row in rows
        ),
        tuple(f"{row.model}: {reason}" for row in rows for reason in row.doubtful),
    )
    yield Table(
        "pipeline latency",
        "from a frame's timestamp to its message received, at the source's pace, beside the bare "
        "invoke at that pace; times in ms",
        (
            *("model", "source", "T", "fps", "p50", "p95", "p99"),
            *("invoke p50", "invoke p99", "p50 more", "p99 more"),
        ),
        tuple(
            (
                row.model,
                f"{row.source} {row.width}x{row.height}",
                str(row.threads),
                f"{row.paced_fps:.1f}",
                *map(_ms, (row.latency_ms.p50, row.latency_ms.p95, row.latency_ms.p99)),
                *map(_ms, (row.paced_invoke_ms.p50, row.paced_invoke_ms.p99)),
                _ms(row.latency_ms.p50 - row.paced_invoke_ms.p50),
                _ms(row.latency_ms.p99 - row.paced_invoke_ms.p99),
            )
            for row in rows
        ),
        tuple(dict.fromkeys(f"broker: {row.broker}" for row in rows)),
    )
    stages = dict.fromkeys(name for row in rows for name in row.stages_ms)
    yield Table(
        "stages",
        "median in ms and share of each stage of that latency",
        ("stage", *(f"{row.model} {row.threads}T" for row in rows)),
        tuple(
            (
                name,
                *(
                    f"{_ms(row.stages_ms[name].p50)} ({row.stages_ms[name].share:.0%})"
                    if name in row.stages_ms
                    else NOTHING
                    for row in rows
                ),
            )
            for name in stages
        ),
    )


def as_text(
    head: Sequence[str],
    found: Iterable[Table],
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> str:
    """Return tables for a terminal, between what is said before and after them."""
    blocks = ["\n".join(_wrapped(line) for line in head)]
    for table in found:
        lines = [table.titles, *table.rows]
        blocks.append(
            "\n".join(
                (
                    _wrapped(f"{table.title}: {table.about}"),
                    _aligned(lines),
                    *map(_wrapped, table.below),
                )
            )
        )
    blocks += ["\n".join(_wrapped(line) for line in notes)]
    blocks += ["\n".join(_wrapped(f"warning: {line}") for line in warnings)]
    return "\n\n".join(filter(None, blocks))


def as_markdown(
    head: Sequence[str],
    found: Iterable[Table],
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> str:
    """Return tables as Markdown, between what is said before and after them."""
    blocks = ["\n".join(f"- {_escaped(line)}" for line in head)]
    for table in found:
        lines = [table.titles, ("---", *("---:" for _ in table.titles[1:])), *table.rows]
        written = "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)
        below = "\n".join(f"- {_escaped(line)}" for line in table.below)
        blocks += [f"### {table.title}\n\n{_escaped(table.about)}\n\n{written}", below]
    if notes:
        blocks.append("### notes\n\n" + "\n".join(f"- {_escaped(n)}" for n in notes))
    if warnings:
        blocks.append("### warnings\n\n" + "\n".join(f"- {_escaped(n)}" for n in warnings))
    return "\n\n".join(filter(None, blocks))


def _as_text(document: Document) -> str:
    return as_text(_head(document), tables(document), document.notes, document.warnings)


def _as_markdown(document: Document) -> str:
    return as_markdown(_head(document), tables(document), document.notes, document.warnings)


def _as_csv(document: Document) -> str:
    rows = [
        {"table": name, **_flat(msgspec.to_builtins(row))}
        for name in ("latency", "accuracy", "pipeline")
        for row in getattr(document, name)
    ]
    keys = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(keys), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _head(document: Document) -> tuple[str, ...]:
    versions = ", ".join(f"{name} {version}" for name, version in document.runtimes.items())
    return (
        (
            f"edgepose {document.edgepose} benchmark, {document.created_at}, "
            f"{document.seconds:.0f} s; {versions}"
        ),
        *described(document.machine, document.before, document.after, document.edge_tpus),
    )


def _models(latency: Sequence[LatencyRow]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.model for row in latency))


def _chosen(rows: Sequence[LatencyRow]) -> LatencyRow:
    """Return the row that stands beside the published one: the first engine's, most threads."""
    running = [row for row in rows if row.latency_ms is not None] or list(rows)
    return max((row for row in running if row.engine == running[0].engine), key=_by_threads)


def _by_threads(row: LatencyRow) -> int:
    # The published figures are of four threads; more would not compare.
    return row.threads if row.threads <= PUBLISHED_THREADS else -row.threads


def _where(rows: Sequence[LatencyRow]) -> str:
    return "; ".join(
        dict.fromkeys(
            f"{row.engine} {row.runtime_version}"
            + ("" if row.engine == EDGETPU else f", {_threads(row.threads)}")
            for row in rows
            if row.latency_ms is not None
        )
    )


def _short(engine: str, threads: int) -> str:
    # The number of threads means nothing to an Edge TPU.
    return "" if engine == EDGETPU else f" {threads}T"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _median(row: LatencyRow) -> str:
    if row.latency_ms is None:
        return "n/a"
    return _ms(row.latency_ms.p50) + (DOUBT_MARK if row.doubtful else "")


def _with_interval(value: float | None, interval: Interval | None, form: str) -> str:
    if value is None:
        return NOTHING
    text = form.format(value)
    if interval is not None:
        text += f" [{form.format(interval[0])}, {form.format(interval[1])}]"
    return text


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, texts)) for texts in zip(*lines, strict=True)]
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "
    return "\n".join(
        gap.join(
            # Names to the left, figures to the right.
            text.rjust(width) if index else text.ljust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Return a row of a document as single values, nested ones with a dot in the key.

    An interval becomes two values, a list is joined.
    """
    flat: dict[str, object] = {}
    for key, value in values.items():
        name = prefix + key
        if key.endswith(_INTERVAL):
            flat[f"{name}_low"], flat[f"{name}_high"] = value or (None, None)
        elif isinstance(value, Mapping):
            flat |= _flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            numbers = all(isinstance(item, int | float) for item in value)
            flat[name] = (" " if numbers else "; ").join(map(str, value))
        else:
            flat[name] = value
    return flat


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _percent(share: float) -> float:
    return round(share * 100, 3)


def _percents(ends: Interval | None) -> Interval | None:
    return None if ends is None else (_percent(ends[0]), _percent(ends[1]))


def _ms(value: float) -> str:
    """Return milliseconds with as many digits as mean something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
