"""`edgepose models`: list, inspect, download, check and build models."""

from pathlib import Path
from typing import Any

import click
import msgspec

from edgepose.cli._options import format_option
from edgepose.cli._terminal import exit_if_failed, print_json, print_table, progress_bar
from edgepose.errors import ModelError
from edgepose.registry import download
from edgepose.registry.registry import (
    ModelEntry,
    Registry,
    add_to_manifest,
    default_registry,
    is_path,
    sha256,
    user_folder,
)


@click.group()
def command() -> None:
    """List, inspect, download, check and build models.

    Models are searched for in the user's folder ($EDGEPOSE_MODELS, else
    $XDG_DATA_HOME/edgepose/models), in /var/lib/edgepose/models, and among the bundled ones.
    """


@command.command("list")
@format_option("table", "json")
def list_models(*, output_format: str) -> None:
    """Print the known models; the status is `installed`, or the command that installs one."""
    registry = default_registry()
    entries = registry.entries.values()
    if output_format == "json":
        print_json([_describe(entry, registry) for entry in entries])
        return
    rows = [
        (
            entry.name,
            "x".join(map(str, entry.input_size_wh)),
            entry.accelerator,
            "?" if entry.bytes is None else f"{entry.bytes / 1e6:.1f}",
            "installed" if registry.find(entry) else "pull" if entry.urls else "build",
        )
        for entry in entries
    ]
    print_table(("name", "input", "runs on", "MB", "status"), rows)


@command.command()
@click.argument("name")
@format_option("table", "json")
def info(*, name: str, output_format: str) -> None:
    """Print all properties of a model, given by name or as a path to a .tflite file."""
    registry = default_registry()
    if name in registry.entries or not is_path(name):
        properties = _describe(registry.entry(name), registry)
    else:
        path = registry.resolve(name).path
        digest = sha256(path)
        properties = {
            "path": str(path.absolute()),
            "bytes": path.stat().st_size,
            "sha256": digest,
            "same_as": [e.name for e in registry.entries.values() if e.sha256 == digest],
        }
    if output_format == "json":
        print_json(properties)
    else:
        rows = [(key, _text(value)) for key, value in properties.items() if value]
        print_table(("property", "value"), rows)


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--from",
    "origin",
    metavar="URL|FOLDER",
    envvar="EDGEPOSE_MODELS_FROM",
    help="Take the published files from this folder or mirror instead.",
)
def pull(*, names: tuple[str, ...], origin: str | None) -> None:
    """Download published models into the user's folder, check them, and print their paths."""
    registry = default_registry()
    failures: list[ModelError] = []
    for entry in [registry.entry(name) for name in dict.fromkeys(names)]:
        try:
            if registry.find(entry) and not entry.urls and origin is None:
                # A bundled model.
                path = registry.verify(entry)
            else:
                with progress_bar(entry.name, entry.bytes) as progress:
                    path = download.pull(entry, user_folder(), origin=origin, progress=progress)
            click.echo(path)
        except ModelError as error:
            failures.append(error)
    exit_if_failed(failures)


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@format_option("table", "json")
def verify(*, names: tuple[str, ...], output_format: str) -> None:
    """Compare the installed models, or those named, with their hashes; exit 1 if one differs."""
    registry = default_registry()
    entries = [registry.entry(name) for name in dict.fromkeys(names)]
    installed = [entry for entry in registry.entries.values() if registry.find(entry)]
    rows = [_verify(entry, registry) for entry in entries or installed]
    if output_format == "json":
        print_json(rows)
    else:
        columns = ("name", "status", "path")
        print_table(columns, [[row[column] for column in columns] for row in rows])
    exit_if_failed([row["detail"] for row in rows if row["detail"]])


@command.command()
@click.argument("name")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for the model; default: the user's model folder.",
)
def build(*, name: str, output: Path | None) -> None:
    """Build a model from its published weights (needs the convert extra, takes minutes)."""
    # Imported on demand: only this command needs the builder.
    from edgepose.model_builder.build import build_model

    entry = default_registry().entry(name)
    folder = output or user_folder()
    path = build_model(name, folder / f"{name}.tflite", log=lambda text: click.echo(text, err=True))
    # Another version of the converter writes other bytes, so the folder gets its own manifest.
    built = {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
    add_to_manifest(folder, msgspec.structs.replace(entry, **built))
    click.echo(path)


def _describe(entry: ModelEntry, registry: Registry) -> dict[str, Any]:
    path = registry.find(entry)
    return {
        **msgspec.structs.asdict(entry),
        "path": None if path is None else str(path),
        "get": entry.install_command if path is None else None,
    }


def _verify(entry: ModelEntry, registry: Registry) -> dict[str, str]:
    path = registry.find(entry)
    status, detail = "ok", ""
    try:
        registry.verify(entry)
    except ModelError as error:
        status, detail = "bad" if path else "missing", str(error)
    return {"name": entry.name, "status": status, "path": str(path or ""), "detail": detail}


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
