"""The table of the results that people sent, made of their files."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from edgepose.benchmark.results import Document, LatencyRow, PipelineRow, read
from edgepose.errors import EdgeposeError, SourceError, SourceNotFoundError

TABLE_FILE: Final = "README.md"
MAIN_MODELS: Final = {
    "movenet-lightning-int8": "Lightning INT8",
    "movenet-lightning-fp16": "Lightning FP16",
    "movenet-thunder-int8": "Thunder INT8",
    "movenet-thunder-fp16": "Thunder FP16",
    "posenet-mobilenet-int8": "PoseNet INT8",
    "movenet-multipose-fp16": "MultiPose FP16",
}
"""The columns: what most people choose between."""
PIPELINE_MODEL: Final = "movenet-lightning-int8"

_NOTHING: Final = "-"
_DOUBT: Final = "?"
_EDGETPU: Final = "-edgetpu"
# A path outside the system's own folders, or an address.
_PRIVATE: Final = re.compile(
    r"(?:^|[\s'\"=:(])(?:/(?!(?:dev|sys|proc|etc|usr|boot)/)[^\s/]+/|~/|[A-Za-z]:\\\\)|://|\b\S+@\S+"
)

_HEAD: Final = """# Results

What `edgepose benchmark` measured on machines that people have. This page is made of the files
beside it by `edgepose benchmark gallery`; do not edit it by hand.

Figures are the median of one invoke in ms, on the engine that was fastest there, with the number of
threads after the slash (T) or TPU for an Edge TPU. `line` is throughput of the whole line, camera
frame to MQTT message, to that of the bare model with one thread, and the median delay from frame to
subscriber at the pace of the source. A figure with ? is one that its own file calls doubtful, - was
not measured. Different versions are different measurements: compare two files with
`edgepose benchmark compare A.json B.json`.
"""

_SUBMIT: Final = """## Send yours

1. On a machine that does nothing else: `edgepose benchmark --pipeline --format json --output
   my-machine.json`, named after machine and accelerator. It takes a few minutes.
2. Read it: it tells the model of the machine, its system and clocks; names and paths of yours do
   not belong in it.
3. Put it into `docs/results/`, run `edgepose benchmark gallery`, and send both files as a pull
   request.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """One file of the gallery."""

    name: str
    document: Document


def update(folder: Path, *, check: bool = False) -> None:
    """Read all results of a folder and write its table.

    With `check` nothing is written: raises SourceError where the table is not the one that belongs
    there. Raises SourceNotFoundError or SourceError where the folder, or a file in it, is wrong;
    all wrong files are named.
    """
    text = page(read_folder(folder))
    path = folder / TABLE_FILE
    try:
        if not check:
            path.write_text(text, encoding="utf-8")
            return
        current = path.read_text(encoding="utf-8") if path.exists() else ""
    except OSError as error:
        raise SourceError(f"{path}: cannot be read or written: {error.strerror}") from error
    if current != text:
        raise SourceError(
            f"{path}: not what the files beside it make; run `edgepose benchmark gallery {folder}`"
        )


def read_folder(folder: Path) -> tuple[Result, ...]:
    """Read and check every .json of a folder, sorted by machine, then date and file name."""
    if not folder.is_dir():
        raise SourceNotFoundError(f"{folder}: expected a folder of results, there is none")
    results, wrong = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            document = read(path)
            check(document, str(path))
        except EdgeposeError as error:
            wrong.append(str(error))
        else:
            results.append(Result(path.name, document))
    if wrong:
        raise SourceError("; ".join(wrong))
    return tuple(sorted(results, key=_order))


def check(document: Document, name: str) -> None:
    """Raise SourceError for a document that does not belong in a gallery, and say why."""
    if not any(row.latency_ms is not None for row in document.latency):
        raise SourceError(
            f"{name}: expected measured latencies, it has none; run `edgepose benchmark` without "
            "--no-latency"
        )
    for place, text in _texts(msgspec.to_builtins(document), ""):
        if _PRIVATE.search(text):
            raise SourceError(
                f"{name}: {place} tells a path or an address ({text!r}), which is nobody else's "
                "business; measure with models and sources by name, or take it out"
            )


def page(results: Sequence[Result]) -> str:
    """Return the page of a gallery, in Markdown."""
    if not results:
        return f"{_HEAD}\nThere is none yet.\n\n{_SUBMIT}"
    columns = [
        model for model in MAIN_MODELS if any(_best(each.document, model) for each in results)
    ]
    titles = ("machine", *(MAIN_MODELS[model] for model in columns), "line", "edgepose", "file")
    lines = [
        titles,
        ("---", *("---:" for _ in columns), "---:", "---", "---"),
        *(_line(each, columns) for each in results),
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{_HEAD}\n{table}\n\n{_SUBMIT}"


def _order(result: Result) -> tuple[str, str, str]:
    document = result.document
    return document.machine.name.casefold(), document.created_at, result.name


def _line(result: Result, columns: Sequence[str]) -> tuple[str, ...]:
    document = result.document
    return (
        _escaped(_machine(document)),
        *(_median(_best(document, model)) for model in columns),
        _pipeline(document.pipeline),
        _escaped(f"{document.edgepose}, {document.created_at.partition('T')[0]}"),
        f"[{_escaped(result.name)}]({result.name})",
    )


def _machine(document: Document) -> str:
    machine = document.machine
    chip = ", ".join(part for part in (machine.soc, machine.cpu) if part)
    system = ", ".join(part for part in (machine.os, f"Python {machine.python}") if part)
    cores = f"{machine.usable_cores} core{'s' if machine.usable_cores > 1 else ''}"
    tpus = f", {len(document.edge_tpus)} Edge TPU" if document.edge_tpus else ""
    return f"**{machine.name}**{tpus} ({chip or machine.architecture}, {cores}; {system})"


def _best(document: Document, model: str) -> LatencyRow | None:
    """Return the fastest row of a model, the one compiled for an Edge TPU among them."""
    rows = [
        row
        for row in document.latency
        if row.model in (model, model + _EDGETPU) and row.latency_ms is not None
    ]
    return min(rows, key=lambda row: row.latency_ms.p50 if row.latency_ms else 0.0, default=None)


def _median(row: LatencyRow | None) -> str:
    if row is None or row.latency_ms is None:
        return _NOTHING
    where = "TPU" if row.device == "edgetpu" else f"{row.threads}T"
    return f"{_number(row.latency_ms.p50)}{_DOUBT if row.doubtful else ''}/{where}"


def _pipeline(rows: Sequence[PipelineRow]) -> str:
    for row in rows:
        if row.model == PIPELINE_MODEL and row.threads == 1:
            ratio = row.pipeline_to_invoke_ratio
            share = "" if ratio is None else f"{ratio:.2f}, "
            return f"{share}{_number(row.latency_ms.p50)} ms{_DOUBT if row.doubtful else ''}"
    return _NOTHING


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{place}[{index}]")


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("[", "\\[").replace("]", "\\]")
