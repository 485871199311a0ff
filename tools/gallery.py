"""Write the table of the benchmark results in docs/results, from the files there.

Run `python -m tools.gallery [DIR] [--check]` in the repository.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from edgepose.benchmark.render import markdown_table
from edgepose.benchmark.results import Document, LatencyRow, PipelineRow, read
from edgepose.benchmark.tables import NOTHING, UNSTABLE_MARK, format_ms
from edgepose.errors import EdgeposeError, SourceError, SourceNotFoundError

COMMAND: Final = "python -m tools.gallery"
TABLE_FILE: Final = "README.md"
MAIN_MODELS: Final = {
    "movenet-lightning-int8": "Lightning INT8",
    "movenet-lightning-fp16": "Lightning FP16",
    "movenet-thunder-int8": "Thunder INT8",
    "movenet-thunder-fp16": "Thunder FP16",
    "posenet-mobilenet-int8": "PoseNet INT8",
    "movenet-multipose-fp16": "MultiPose FP16",
}
"""The columns of the table."""
PIPELINE_MODEL: Final = "movenet-lightning-int8"

_EDGETPU: Final = "-edgetpu"
# A path outside the system's own folders, or an address.
_PRIVATE: Final = re.compile(
    r"(?:^|[\s'\"=:(])(?:/(?!(?:dev|sys|proc|etc|usr|boot)/)[^\s/]+/|~/|[A-Za-z]:\\\\)|://|\b\S+@\S+"
)

_HEAD: Final = f"""# Results

Results of `edgepose benchmark` on the machines of users. This page is generated from the files
beside it by `{COMMAND}`; do not edit it by hand.

Figures are the median of one invoke in ms, on the fastest backend, with the number of threads after
the slash (T) or TPU for an Edge TPU. `pipeline` is the frame rate of the whole daemon, camera frame
to MQTT message, relative to a bare loop of the model with one thread, and the median latency from
frame to subscriber at the frame rate of the source. A figure with ? is marked as unstable in its
file, - was not measured. Different versions are different measurements: compare two files with
`edgepose benchmark compare A.json B.json`.
"""

_SUBMIT: Final = f"""## Submit a result

1. On an idle machine: `edgepose benchmark --pipeline --format json --output my-machine.json`, named
   after machine and accelerator. It takes a few minutes.
2. Read the file: it contains the model of the machine, its operating system and clocks, but no user
   names or paths.
3. Put it into `docs/results/`, run `{COMMAND}`, and send both files as a pull request.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """One file of the gallery."""

    name: str
    document: Document


def update(folder: Path, *, check: bool = False) -> None:
    """Read all results of a folder and write its table.

    With `check` nothing is written: raises SourceError if the table is out of date. Raises
    SourceNotFoundError or SourceError for an invalid folder or files; all of these are named.
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
        raise SourceError(f"{path}: out of date; run `{COMMAND} {folder}`")


def read_folder(folder: Path) -> tuple[Result, ...]:
    """Read and check every .json of a folder, sorted by machine, then date and file name."""
    if not folder.is_dir():
        raise SourceNotFoundError(f"{folder}: no such folder of results")
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
    """Raise SourceError with the reason for a document that cannot be published."""
    if not any(row.latency_ms is not None for row in document.latency):
        raise SourceError(
            f"{name}: expected measured latencies, it has none; run `edgepose benchmark` without "
            "--no-latency"
        )
    for place, text in _texts(msgspec.to_builtins(document), ""):
        if _PRIVATE.search(text):
            raise SourceError(
                f"{name}: {place} contains a path or an address ({text!r}), which is private; use "
                "models and sources by name, or remove it"
            )


def page(results: Sequence[Result]) -> str:
    """Return the page in Markdown."""
    if not results:
        return f"{_HEAD}\nThere are no results yet.\n\n{_SUBMIT}"
    columns = [
        model for model in MAIN_MODELS if any(_best(each.document, model) for each in results)
    ]
    titles = ("machine", *(MAIN_MODELS[model] for model in columns), "pipeline", "edgepose", "file")
    table = markdown_table(titles, [_line(each, columns) for each in results])
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
    """Return the fastest row of a model, including its file compiled for an Edge TPU."""
    rows = [
        row
        for row in document.latency
        if row.model in (model, model + _EDGETPU) and row.latency_ms is not None
    ]
    return min(rows, key=lambda row: row.latency_ms.p50 if row.latency_ms else 0.0, default=None)


def _median(row: LatencyRow | None) -> str:
    if row is None or row.latency_ms is None:
        return NOTHING
    where = "TPU" if row.device == "edgetpu" else f"{row.threads}T"
    return f"{format_ms(row.latency_ms.p50)}{UNSTABLE_MARK if row.unstable else ''}/{where}"


def _pipeline(rows: Sequence[PipelineRow]) -> str:
    for row in rows:
        if row.model == PIPELINE_MODEL and row.threads == 1:
            ratio = row.pipeline_to_invoke_ratio
            share = "" if ratio is None else f"{ratio:.2f}, "
            return (
                f"{share}{format_ms(row.latency_ms.p50)} ms{UNSTABLE_MARK if row.unstable else ''}"
            )
    return NOTHING


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{place}[{index}]")


def _escaped(text: str) -> str:
    return text.replace("[", "\\[").replace("]", "\\]")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs/results"))
    parser.add_argument("--check", action="store_true", help="fail if the table is out of date")
    options = parser.parse_args(arguments)
    try:
        update(options.folder, check=options.check)
    except EdgeposeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
