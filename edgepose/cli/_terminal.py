"""Output that several subcommands share: JSON, tables, progress bars, errors."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

import click

from edgepose.util.redact import masked_text
from edgepose.util.text import printable, valid_text


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # Names of files may have bytes that are not UTF-8, which JSON cannot hold.
    click.echo(text.encode("utf-8", "surrogatepass").decode("utf-8", "replace"))


def print_error(text: str) -> None:
    """Print an error on stderr, in one line but for its indented ones."""
    lines = map(printable, valid_text(text).split("\n  "))
    print_on_stderr("edgepose: " + "\n  ".join(lines))


def print_on_stderr(text: str) -> None:
    """Print a line on stderr; it is lost if its reader is gone or its disk is full."""
    try:
        print(masked_text(text), file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def print_warning(text: str) -> None:
    """Print a warning on stderr, before there is a log."""
    print_error(f"warning: {text}")


def discard(stream: TextIO) -> None:
    """Send what is still printed to nowhere: Python flushes it at exit, which may fail or block."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def flush_or_discard(stream: TextIO) -> None:
    """Write what is buffered; if that fails, as before, it must not fail once more at exit."""
    try:
        stream.flush()
    except OSError:
        discard(stream)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; nothing is cut, since users copy paths and hashes."""
    lines = [[printable(cell) for cell in cells] for cells in (columns, *rows)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(map(str.ljust, line, widths)).rstrip())


@contextmanager
def progress_bar(title: str, total: float | None = None) -> Iterator[Callable[..., None]]:
    """Show a progress bar on stderr if it is a terminal: in percent, or a number without `total`.

    Yields a function that takes how much is done, and optionally a text to put after the title.
    """
    # Imported on demand: rich takes 50 ms.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        BarColumn(),
        TextColumn("{task.completed:,.0f}" if total is None else "{task.percentage:.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task(title, total=total)

        def update(done: float, text: str = "") -> None:
            bar.update(task, completed=done, description=f"{title} {printable(text)}")

        yield update


def exit_if_failed(failures: Sequence[object]) -> None:
    """Print failures on stderr, one a line, and exit with code 1 if there are any."""
    for failure in failures:
        print_error(str(failure))
    if failures:
        raise click.exceptions.Exit(1)
