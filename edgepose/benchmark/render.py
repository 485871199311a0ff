"""Rendering of results: tables for a terminal, Markdown, a page, CSV and JSON."""

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from edgepose.benchmark import html_page, svg_plot
from edgepose.benchmark.results import Document, encode
from edgepose.benchmark.tables import Report, report

WIDTH: Final = 100
"""Columns of the terminal that tables are made for."""


def rendered(document: Document, output_format: str) -> str:
    """Return a document as `table`, `json`, `markdown`, `html` or `csv`, ending with a newline."""
    match output_format:
        case "json":
            return encode(document)
        case "csv":
            return _csv(document)
        case "html":
            return html_page.page(report(document), svg_plot.figure(document))
        case _:
            return rendered_report(report(document), output_format)


def rendered_report(content: Report, output_format: str) -> str:
    """Return a report as `table`, `markdown` or `html`, with a newline at its end."""
    if output_format == "html":
        return html_page.page(content)
    heading, table_text, list_text = (
        (_heading, _aligned, _wrapped)
        if output_format == "table"
        else (_markdown_heading, markdown_table, _bullets)
    )
    facts = (f"{name}: {text}" for name, text in content.facts.items())
    blocks = [list_text([content.title, *facts])]
    for table in content.tables:
        blocks += [
            heading(table.title, table.about),
            table_text(table.titles, table.rows),
            list_text(table.footnotes),
        ]
    for title, lines in (("notes", content.notes), ("warnings", content.warnings)):
        if lines:
            blocks += [heading(title, ""), list_text(lines)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, names on the left, figures on the right."""
    lines = [titles, ("---", *("---:" for _ in titles[1:])), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _markdown_heading(title: str, about: str) -> str:
    return f"### {title}\n\n{_escaped(about)}".strip()


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_escaped(line)}" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _heading(title: str, about: str) -> str:
    return _wrapped([f"{title}: {about}".strip()])


def _aligned(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with names on the left and figures on the right, never wrapped."""
    lines = (titles, *rows)
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "
    return "\n".join(
        gap.join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _wrapped(lines: Sequence[str]) -> str:
    return "\n".join(textwrap.fill(line, WIDTH, break_on_hyphens=False) for line in lines)


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


def _flat(values: Mapping[str, Any]) -> dict[str, object]:
    """Return a row as single values: keys of nested ones have a dot, intervals become two."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if key.endswith("_interval_95"):
            flat[f"{key}_low"], flat[f"{key}_high"] = value or (None, None)
        elif isinstance(value, Mapping):
            flat |= {f"{key}.{name}": inner for name, inner in _flat(value).items()}
        elif isinstance(value, list | tuple):
            separator = "; " if key == "doubtful" else " "
            flat[key] = separator.join(map(str, value))
        else:
            flat[key] = value
    return flat
