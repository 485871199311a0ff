"""`edgepose models`: list, inspect, fetch, check and build models."""

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from edgepose.errors import EdgeposeError, ModelError, UsageError
from edgepose.registry import download
from edgepose.registry.registry import (
    ModelEntry,
    Registry,
    add_to_list,
    check_file,
    default_registry,
    is_path,
    sha256,
    user_folder,
)

format_option = click.option(
    "--format", "output_format", type=click.Choice(["table", "json"]), default="table"
)


@click.group()
def command() -> None:
    """List, inspect, fetch, check and build models.

    Models are looked for in the user's folder ($EDGEPOSE_MODELS, else
    $XDG_DATA_HOME/edgepose/models), in /var/lib/edgepose/models, and among the bundled ones.
    """


@command.command("list")
@format_option
def list_models(*, output_format: str) -> None:
    """Print the models known by name, and whether each one is here.

    Where the status is not `here` it is the command that gets the model: pull or build.
    """
    registry = default_registry()
    rows = [_described(entry, registry) for entry in registry.entries.values()]
    if output_format == "json":
        _print_json(rows)
        return
    _print_table(
        ("name", "input", "runs on", "MB", "status"),
        [
            (
                row["name"],
                "x".join(map(str, row["input_size_wh"])),
                row["accelerator"],
                "?" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}",
                "here" if row["path"] else row["get"].split()[2],
            )
            for row in rows
        ],
    )


@command.command()
@click.argument("name")
@format_option
def info(*, name: str, output_format: str) -> None:
    """Print everything known of one model, given by name or as a path to a .tflite file."""
    registry = default_registry()
    if name not in registry.entries and is_path(name):
        facts = _described_file(Path(name).expanduser(), registry)
    else:
        facts = _described(registry.entry(name), registry)
    if output_format == "json":
        _print_json(facts)
    else:
        _print_table(None, [(key, _plain(value)) for key, value in facts.items() if value])


@command.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option(
    "--from",
    "origin",
    metavar="URL|FOLDER",
    envvar="EDGEPOSE_MODELS_FROM",
    help="Fetch NAME's published file from this folder or mirror instead.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.1),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up on a server that is silent for so long.",
)
def pull(*, names: tuple[str, ...], origin: str | None, timeout_s: float) -> None:
    """Fetch published models into the user's folder, checked before use.

    What was interrupted goes on where it stopped. Prints the path of every model.
    """
    if not names:
        raise UsageError(
            "expected the name of a model to fetch; `edgepose models list` prints them"
        )
    registry = default_registry()
    entries = [registry.entry(name) for name in dict.fromkeys(names)]
    limits = download.Limits(timeout_s=timeout_s)

    def fetch(entry: ModelEntry) -> None:
        found = registry.find(entry)
        if found is not None and not entry.urls and origin is None:
            # A bundled model needs no fetching; one that is built and missing gets its remedy.
            click.echo(registry.verify(entry))
            return
        with _progress(entry.name) as progress:
            path = download.pull(
                entry, user_folder(), origin=origin, progress=progress, limits=limits
            )
        click.echo(path)

    _for_each(entries, fetch, "fetched")


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@format_option
def verify(*, names: tuple[str, ...], output_format: str) -> None:
    """Read the installed models, or those named, and compare their hashes; exit 1 if one differs.

    Models in the folders that no list names are mentioned, since nothing is known to compare.
    """
    registry = default_registry()
    entries = [registry.entry(name) for name in dict.fromkeys(names)]
    rows: list[dict[str, str]] = []
    for entry in entries or [e for e in registry.entries.values() if registry.find(e)]:
        try:
            path = registry.verify(entry)
        except ModelError as error:
            found = registry.find(entry)
            status = "missing" if found is None else "bad"
            rows.append(_verdict(entry.name, status, found, str(error)))
        else:
            rows.append(_verdict(entry.name, "ok", path, ""))
    if not names:
        rows += [
            _verdict(path.stem, "unlisted", path, "no list names this file")
            for path in registry.unlisted()
        ]
    if output_format == "json":
        _print_json(rows)
    else:
        columns = ("name", "status", "path")
        _print_table(columns, [tuple(row[column] for column in columns) for row in rows])
    bad = [row["detail"] for row in rows if row["status"] in ("bad", "missing")]
    if bad:
        raise ModelError(
            "\n  ".join(bad) if len(bad) == 1 else _listing("models are not right", bad)
        )


@command.command()
@click.argument("name")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where to put the model; without it the user's model folder.",
)
def build(*, name: str, output: Path | None) -> None:
    """Build a model from its published weights (needs the convert extra, and some minutes)."""
    folder = user_folder() if output is None else output
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Imported late, since it and what it imports are there with the convert extra only.
        builder = importlib.import_module("edgepose.model_builder.build")
        path: Path = builder.build_model(
            name, folder / f"{name}.tflite", log=lambda text: click.echo(text, err=True)
        )
    except ImportError as error:
        raise ModelError(
            f"building models needs the convert extra, {error.name or error} is missing; install "
            "it on a computer with `pip install 'edgepose[convert]'`, and copy the model over"
        ) from None
    except EdgeposeError:
        raise
    except OSError as error:
        raise ModelError(
            f"{folder}: models cannot be stored there ({error.strerror or error}); name another "
            "folder with --output"
        ) from None
    check_file(path)
    entry = default_registry().entries.get(name)
    if entry is not None:
        # Another version of the converter gives other bytes: the folder's own list says which.
        own = msgspec.structs.replace(
            entry, file=path.name, bytes=path.stat().st_size, sha256=sha256(path)
        )
        add_to_list(path.parent, own)
    click.echo(path)


def _for_each(entries: Sequence[ModelEntry], work: Callable[[ModelEntry], None], done: str) -> None:
    """Do all that can be done before the first failure is told."""
    failures: list[EdgeposeError] = []
    for entry in entries:
        try:
            work(entry)
        except EdgeposeError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ModelError(_listing(f"models could not be {done}", list(map(str, failures))))


def _listing(title: str, sentences: list[str]) -> str:
    return "\n  ".join((f"{len(sentences)} {title}:", *sentences))


def _described(entry: ModelEntry, registry: Registry) -> dict[str, Any]:
    path = registry.find(entry)
    facts: dict[str, Any] = msgspec.to_builtins(entry)
    return {
        "name": entry.name,
        "kind": entry.kind,
        "accelerator": entry.accelerator,
        "input_size_wh": list(entry.input_size_wh),
        "bytes": entry.bytes,
        "path": None if path is None else str(path),
        "get": None if path is not None else entry.install_command,
        **{key: value for key, value in facts.items() if key != "input_size_wh"},
        "urls": list(entry.urls),
    }


def _described_file(path: Path, registry: Registry) -> dict[str, Any]:
    file = registry.resolve(path)
    digest = sha256(file.path)
    known = [entry.name for entry in registry.entries.values() if entry.sha256 == digest]
    return {
        "path": str(file.path.absolute()),
        "bytes": file.path.stat().st_size,
        "sha256": digest,
        "same_as": known,
    }


def _verdict(name: str, status: str, path: Path | None, detail: str) -> dict[str, str]:
    return {"name": name, "status": status, "path": str(path or ""), "detail": detail}


def _plain(value: object) -> str:
    if isinstance(value, list):
        numbers = all(isinstance(part, int) for part in value)
        return ("x" if numbers else "\n").join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _print_json(data: object) -> None:
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def _print_table(columns: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> None:
    """Print a table: drawn on a terminal, in plain aligned columns for everything else."""
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from rich.box import SIMPLE
        from rich.console import Console
        from rich.table import Table

        table = Table(show_header=columns is not None, box=SIMPLE)
        for index, title in enumerate(columns or ("", "")):
            # What people copy from a table must be whole.
            table.add_column(title, no_wrap=not index, overflow="fold")
        for row in rows:
            table.add_row(*map(_literal, row))
        Console().print(table)
        return
    lines = [tuple(columns), *rows] if columns is not None else list(rows)
    count = max(map(len, lines), default=0)
    widths = [max(len(line[index]) for line in lines) for index in range(count)]
    for line in lines:
        cells = (
            text.replace("\n", " ").ljust(width) for text, width in zip(line, widths, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def _literal(text: str) -> Any:
    # A path with [brackets] is not markup.
    from rich.text import Text

    return Text(text)


@contextmanager
def _progress(name: str) -> Iterator[download.Progress]:
    """Show a bar on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
