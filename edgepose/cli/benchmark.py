"""`edgepose benchmark`: how accurate the models are on annotated pictures."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from edgepose.cli._options import accelerator_option, config_option, set_up_logging
from edgepose.config import Config, find_config_file, load_config
from edgepose.errors import UsageError
from edgepose.weights import default_registry, resolve

ALL = "all"


@click.command()
@config_option
@click.option(
    "--models",
    "names",
    metavar="NAMES|all",
    multiple=True,
    help="Names or paths, with commas between; `all` is every one on this machine for the CPU. "
    "Each runs with its own defaults. Without it, the configured model as it is configured.",
)
@accelerator_option
@click.option(
    "--coco",
    "annotations",
    type=click.Path(path_type=Path),
    metavar="ANNOTATIONS.json",
    help="COCO person keypoints to compare with (needs the coco extra).",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the annotated pictures.",
)
@click.option(
    "--protocol",
    "protocol_names",
    type=click.Choice(["single", "whole", "multi", "crops"]),
    multiple=True,
    help="One or more; without it all. single: pictures of one person, cropped around it. whole: "
    "the same pictures, not cropped. multi: all pictures, everybody in them. crops: every person "
    "of all pictures, cropped around it.",
)
@click.option(
    "--against",
    metavar="NAME",
    help="Also print how much the AP differs from this model's on the same pictures.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json", "markdown", "csv"]),
    default="table",
    show_default=True,
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the report there instead of to stdout.",
)
def command(
    *,
    config_path: Path | None,
    names: tuple[str, ...],
    accelerator: str | None,
    annotations: Path | None,
    images: Path | None,
    protocol_names: tuple[str, ...],
    against: str | None,
    output_format: str,
    output: Path | None,
) -> None:
    """Measure how accurate models are on annotated pictures (COCO's OKS average precision).

    Each figure comes with its protocol, the number of pictures and a bootstrap interval. A picture
    that cannot be read is named on stderr and left out for all models, and the exit code is 1 then.
    """
    if annotations is None or images is None:
        raise UsageError(_missing(annotations, images))
    _check_writable(output)
    set_up_logging("warning")
    config = load_config(find_config_file(config_path), {"accelerator": accelerator})

    # Late: OpenCV, a runtime and pycocotools, which a wrong command line need not wait for.
    from edgepose.benchmark import accuracy, coco, report
    from edgepose.build import build_model

    pycocotools = accuracy.check_installed()
    protocols = [accuracy.PROTOCOLS[name] for name in protocol_names or accuracy.PROTOCOLS]
    # Everything that can be wrong is found before the long part.
    pictures = [
        picture
        for picture in coco.read_annotations(annotations)
        if any(accuracy.cases_of(picture, protocol) for protocol in protocols)
    ]
    coco.check_images(tuple(pictures), images)
    configs, compared = _configs(config, names, against)
    models = [build_model(each) for each in configs]
    labels = _labels([model.name for model in models], [each.model.name for each in configs])
    with _progress(len(pictures)) as advance:
        evaluation = accuracy.evaluate(models, pictures, images, protocols, on_picture=advance)
    for error in evaluation.left_out:
        print(f"edgepose: left out: {error}", file=sys.stderr)
    text = report.Report(
        report.accuracy_sections(evaluation, models, labels, compared),
        report.accuracy_notes(
            pycocotools,
            None if compared is None else labels[compared],
            len(evaluation.left_out),
        ),
    ).rendered(output_format)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")
    if evaluation.left_out:
        raise click.exceptions.Exit(1)


def _missing(annotations: Path | None, images: Path | None) -> str:
    if annotations is None and images is None:
        return (
            "this version measures accuracy only, latency is not built yet; give it annotated "
            "pictures with --coco ANNOTATIONS.json --images DIR"
        )
    given, missing = ("--coco", "--images DIR") if images is None else ("--images", "--coco FILE")
    return f"{given} is given without {missing}; accuracy needs the annotations and the pictures"


def _check_writable(output: Path | None) -> None:
    """Find out before the work whether its result can be written."""
    if output is None:
        return
    if output.is_dir():
        raise UsageError(f"{output}: --output takes a file, this is a folder")
    if not output.parent.is_dir():
        raise UsageError(f"{output}: the folder {output.parent} is not there; make it first")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise UsageError(f"{output}: the report may not be written there; name another --output")


def _configs(
    config: Config, names: Sequence[str], against: str | None
) -> tuple[list[Config], int | None]:
    """Return a configuration for every model, and which one the others are compared with."""
    chosen = [name.strip() for text in names for name in text.split(",") if name.strip()]
    if names and not chosen:
        raise UsageError("--models is empty, expected names of models, or all")
    if ALL in chosen:
        registry = default_registry()
        here = [e.name for e in registry.entries.values() if registry.find(e)]
        on_cpu = [name for name in here if registry.entry(name).accelerator == "cpu"]
        chosen = [each for name in chosen for each in (on_cpu if name == ALL else [name])]
        if not chosen:
            raise UsageError("no model is on this machine; `edgepose models list` says how to get")
    own = config.model.name
    wanted = list(dict.fromkeys(chosen or [own]))
    if against is not None and against not in wanted:
        wanted.insert(0, against)
    for name in wanted:
        resolve(name)
    configs = [
        config
        if not chosen and name == own
        # Kind, input size and the like in the file are those of the model that the file names.
        else msgspec.structs.replace(config, model=type(config.model)(name=name))
        for name in wanted
    ]
    return configs, None if against is None else wanted.index(against)


def _labels(names: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return what each model is called: its name, or as it was given where two share one."""
    return [
        name if names.count(name) == 1 else asked for name, asked in zip(names, given, strict=True)
    ]


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr where that is a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("pictures", total=total)
        yield lambda: bar.advance(task)
