"""Output that several subcommands share: JSON, tables, progress bars, errors."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; on a terminal, long cells are folded."""
    # Imported on demand, as below: rich takes 50 ms.
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in columns:
        # Folded, not cut: users copy paths and hashes.
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    # In a pipe, rich would fold at 80 columns.
    width = None if sys.stdout.isatty() else 10_000
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    with console.capture() as text:
        console.print(table)
    # rich pads the last column too.
    for line in text.get().splitlines():
        click.echo(line.rstrip())


@contextmanager
def progress_bar(text: str, unit: str, total: float | None = None) -> Iterator[Callable[..., None]]:
    """Show a progress bar on stderr if it is a terminal.

    Yields a function that takes the number of units done, and optionally a new text.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        BarColumn(),
        TextColumn("{task.completed:,.0f} " + unit),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task(text, total=total)

        def update(done: float, text: str = text) -> None:
            bar.update(task, completed=done, description=text)

        yield update


def exit_if_failed(failures: Sequence[object]) -> None:
    """Print failures on stderr, one a line, and exit with code 1 if there are any."""
    for failure in failures:
        print(f"edgepose: {failure}", file=sys.stderr)
    if failures:
        raise click.exceptions.Exit(1)
