"""Rendering of results: tables for a terminal, Markdown, CSV and JSON."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from edgepose.benchmark.results import Document, encode
from edgepose.benchmark.tables import Report, report

WIDTH: Final = 100
"""Columns of the terminal that tables are made for."""


def rendered(document: Document, output_format: str) -> str:
    """Return a document as `table`, `json`, `markdown` or `csv`, with a newline at its end."""
    match output_format:
        case "json":
            return encode(document)
        case "csv":
            return _csv(document)
        case _:
            return rendered_report(report(document), output_format)


def rendered_report(content: Report, output_format: str) -> str:
    """Return a report as `table` or `markdown`, with a newline at its end."""
    return _text(content) if output_format == "table" else _markdown(content)


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, names on the left, figures on the right."""
    lines = [titles, ("---", *("---:" for _ in titles[1:])), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _text(content: Report) -> str:
    # Late: only this format needs it.
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    output = io.StringIO()
    # Text is wrapped, tables are not: a table that is too wide is better than wrapped figures.
    console = Console(
        file=output,
        width=10 * WIDTH,
        no_color=True,
        force_terminal=False,
        markup=False,
        emoji=False,
        highlight=False,
    )

    def write(*lines: str) -> None:
        for line in lines:
            console.print(Text(line), width=WIDTH)

    write(*content.head)
    for table in content.tables:
        write("", f"{table.title}: {table.about}")
        widths = [max(map(len, cells)) for cells in zip(table.titles, *table.rows, strict=True)]
        gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else 1
        grid = Grid(box=None, pad_edge=False, padding=(0, gap, 0, 0))
        for index, title in enumerate(table.titles):
            grid.add_column(title, justify="right" if index else "left")
        for row in table.rows:
            grid.add_row(*row)
        console.print(grid)
        write(*table.footnotes)
    if content.notes:
        write("", *content.notes)
    if content.warnings:
        write("", *(f"warning: {line}" for line in content.warnings))
    return "".join(f"{line.rstrip()}\n" for line in output.getvalue().splitlines())


def _markdown(content: Report) -> str:
    blocks = [_bullets(content.head)]
    for table in content.tables:
        blocks += [
            f"### {table.title}",
            _escaped(table.about),
            markdown_table(table.titles, table.rows),
            _bullets(table.footnotes),
        ]
    for title, lines in (("notes", content.notes), ("warnings", content.warnings)):
        if lines:
            blocks += [f"### {title}", _bullets(lines)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _csv(document: Document) -> str:
    rows = [
        {"table": name, **_flat(msgspec.to_builtins(row))}
        for name in ("latency", "accuracy", "pipeline")
        for row in getattr(document, name)
    ]
    text = io.StringIO()
    fields = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Return a row as single values: keys of nested ones have a dot, intervals become two."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        name = prefix + key
        if key.endswith("_interval_95"):
            flat[f"{name}_low"], flat[f"{name}_high"] = value or (None, None)
        elif isinstance(value, Mapping):
            flat |= _flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            numbers = all(isinstance(item, int | float) for item in value)
            flat[name] = (" " if numbers else "; ").join(map(str, value))
        else:
            flat[name] = value
    return flat


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_escaped(line)}" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
