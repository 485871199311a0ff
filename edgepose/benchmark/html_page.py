"""A report as one HTML file: no script, and no request for anything."""

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from edgepose.benchmark.tables import Report, Table

LONGEST_FIGURE: Final = 20
"""Characters of a cell from which on it is text, on several lines on a phone."""

_TEXT: Final = ' class="text"'
_STYLE_FILE: Final = Path(__file__).with_name("report.css")


def page(content: Report, plot: str = "") -> str:
    """Return a report as an HTML document; `plot` is HTML that follows the first table."""
    style = _STYLE_FILE.read_text(encoding="utf-8")
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # Even text that was not escaped could run nothing and load nothing.
    policy = f"default-src 'none'; style-src 'sha256-{style_hash}'; img-src data:"
    first, others = content.tables[:1], content.tables[1:]
    parts = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # Browsers would otherwise ask the server for an icon.
        '<link rel="icon" href="data:,">',
        f"<title>{escape(content.title)}</title>\n<style>{style}</style>\n</head>\n<body>",
        f"<header>\n<h1>{escape(content.title)}</h1>\n<dl>",
        *(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in content.facts.items()),
        "</dl>\n</header>\n<main>",
        _list("warnings", content.warnings),
        *map(_table, first),
        plot,
        *map(_table, others),
        _list("notes", content.notes),
        "</main>\n</body>\n</html>\n",
    )
    return "\n".join(filter(None, parts))


def items(texts: Sequence[str], style_class: str = "") -> str:
    """Return a list of texts, nothing without one."""
    lines = "\n".join(f"<li>{escape(text)}</li>" for text in texts)
    attribute = f' class="{style_class}"' if style_class else ""
    return f"<ul{attribute}>\n{lines}\n</ul>" if texts else ""


def _list(title: str, texts: Sequence[str]) -> str:
    """Return a section with a list, nothing without texts."""
    return f'<section class="{title}">\n<h2>{title}</h2>\n{items(texts)}\n</section>' * bool(texts)


def _table(table: Table) -> str:
    """Return a section with a table that scrolls on its own, its description and footnotes."""
    title = escape(table.title)
    heads = "".join(_cell(text, "col") for text in table.titles)
    rows = "\n".join(
        f"<tr>{_cell(first, 'row')}{''.join(map(_cell, others))}</tr>"
        for first, *others in table.rows
    )
    return "\n".join(
        (
            f'<section>\n<h2>{title}</h2>\n<p class="about">{escape(table.about)}</p>',
            f'<div class="scroll" role="region" aria-label="{title}" tabindex="0">\n<table>',
            f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>",
            f"{items(table.footnotes, 'footnotes')}</section>",
        )
    )


def _cell(text: str, heads: str = "") -> str:
    """Return a cell, which heads a `row` or `col`; an empty one heads nothing."""
    if heads and text:
        return f'<th scope="{heads}">{escape(text)}</th>'
    return f"<td{_TEXT if len(text) > LONGEST_FIGURE else ''}>{escape(text)}</td>"
