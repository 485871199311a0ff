"""`edgepose benchmark`: latency and accuracy of models on this machine, and comparing results."""

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from edgepose.cli._options import config_option, format_option, set_up_logging, source_option
from edgepose.cli._terminal import exit_if_failed, progress_bar
from edgepose.config.loader import find_config_file, load_config
from edgepose.errors import UsageError
from edgepose.util.extras import require_extra

MAX_THREADS: Final = 64
_FILE: Final = click.Path(path_type=Path)
_NEW_FILE: Final = click.Path(dir_okay=False, writable=True, path_type=Path)
_SECONDS: Final = click.FloatRange(min=0)
_output_option = click.option("--output", type=_NEW_FILE, metavar="FILE", help="Default: stdout.")


def _names(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[str, ...]:
    """Split names at commas."""
    names = dict.fromkeys(name.strip() for name in (value or "").split(",") if name.strip())
    if value is not None and not names:
        raise click.BadParameter("empty, expected values separated by commas")
    return tuple(names)


def _counts(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, ...]:
    """Split numbers of threads at commas."""
    words = _names(context, parameter, value)
    return tuple(click.IntRange(1, MAX_THREADS)(word, parameter, context) for word in words)


@click.group(invoke_without_command=True, subcommand_metavar="[COMMAND]")
@config_option
@click.option(
    "--models",
    metavar="NAMES|all",
    callback=_names,
    help="Names or paths separated by commas; `all` is every installed model. Default: all; "
    "with --no-latency the configured model.",
)
@click.option(
    "--threads", metavar="COUNTS", callback=_counts, help="CPU threads; default: 1, and up to four."
)
@click.option(
    "--accelerator",
    "accelerators",
    metavar="NAMES",
    default="auto",
    callback=_names,
    help="auto (all available), cpu, or litert, litert-without-xnnpack, tflite-runtime, edgetpu "
    "separated by commas.",
)
@click.option("--min-runs", type=click.IntRange(1), default=50, help="Minimum runs of each row.")
@click.option("--min-seconds", type=_SECONDS, default=1.0, help="Minimum seconds of each row.")
@click.option("--max-seconds", type=_SECONDS, default=150.0, help="Time limit of the whole table.")
@click.option("--latency/--no-latency", default=True, help="Measure latency.")
@click.option("--pipeline", is_flag=True, help="Also measure the whole daemon, with a broker.")
@source_option("Source of --pipeline; default: images in memory.")
@click.option("--mqtt", metavar="URL", help="Broker of --pipeline; by default one is started.")
@click.option(
    "--coco", "annotations", type=_FILE, metavar="ANNOTATIONS.json", help="Also measure accuracy."
)
@click.option("--images", type=_FILE, metavar="DIR", help="Folder of the annotated images.")
@click.option(
    "--protocol",
    "protocols",
    type=click.Choice(["single", "whole", "multi", "crops"]),
    multiple=True,
    help="Accuracy protocol, may be repeated; default: all. single: images of one person, cropped "
    "to it. whole: the same images, not cropped. multi: all images, every person. crops: every "
    "person of all images, cropped to it.",
)
@click.option("--against", metavar="NAME", help="Also report the difference in AP to this model.")
@format_option("table", "json", "markdown", "html", "csv")
@_output_option
@click.option("--plot", type=_NEW_FILE, metavar="FILE", help="Plot latency and mAP: .png or .svg.")
@click.pass_context
def command(
    context: click.Context,
    /,
    config_path: Path | None,
    output_format: str,
    output: Path | None,
    **values: Any,
) -> None:
    """Measure latency and accuracy of models on this machine, beside the published table.

    Rows are measured in several rounds; one whose rounds disagree is marked. The report warns of
    whatever makes figures unreliable. Accuracy needs --coco; its figures have a bootstrap interval.
    An image that cannot be read is reported on stderr and left out for all models, and the exit
    code is 1 then.
    """
    if context.invoked_subcommand is not None:
        return
    _check(values, output)
    plot, mqtt = values.pop("plot"), values.pop("mqtt")
    set_up_logging("warning")
    config = load_config(find_config_file(config_path), {"mqtt.url": mqtt})

    # Late: OpenCV, the runtimes and pycocotools, which a wrong command line does not wait for.
    from edgepose.benchmark import plot as plotting
    from edgepose.benchmark import render
    from edgepose.benchmark.session import BenchmarkOptions, run

    if plot is not None:
        require_extra("matplotlib", "plot", "--plot")
    options = BenchmarkOptions(config=config, given_broker=mqtt is not None, **values)
    document, left_out = run(options, partial(progress_bar, total=1.0))
    _write(render.rendered(document, output_format), output)
    if plot is not None:
        plotting.draw(document, plot)
    exit_if_failed([f"left out: {error}" for error in left_out])


@command.command("compare")
@click.argument("first", metavar="A.json", type=_FILE)
@click.argument("second", metavar="B.json", type=_FILE)
@format_option("table", "json", "markdown", "html")
@_output_option
def compare_command(first: Path, second: Path, output_format: str, output: Path | None) -> None:
    """Compare two files of `edgepose benchmark --format json`: devices, or versions.

    Reports for each row whether B is faster or slower than A by more than the rounds of both
    differ, which rows are in one file only, and what differs between the machines.
    """
    # Late: NumPy, which a wrong command line does not wait for.
    from edgepose.benchmark import compare

    _write(compare.rendered(compare.compare_files(first, second), output_format), output)


def _check(values: Mapping[str, Any], output: Path | None) -> None:
    """Raise UsageError for options that contradict each other, or a file that cannot be written."""
    annotations, images, plot = values["annotations"], values["images"], values["plot"]
    latency, pipeline = values["latency"], values["pipeline"]
    is_other_plot = plot and plot.suffix.lower() not in (".png", ".svg")
    contradictions = {
        "--coco is given without --images DIR; accuracy needs both": annotations and not images,
        "--images is given without --coco FILE; accuracy needs both": images and not annotations,
        "--no-latency leaves nothing to measure; add --coco ANNOTATIONS.json --images DIR for "
        "accuracy, or --pipeline": not (latency or pipeline or annotations),
        "--source belongs to --pipeline; add it": values["source"] and not pipeline,
        "--mqtt belongs to --pipeline; add it": values["mqtt"] and not pipeline,
        "--plot takes a file name ending in .png or .svg": is_other_plot,
        "--plot draws latencies, which --no-latency leaves out; drop one": plot and not latency,
    }
    for message, is_wrong in contradictions.items():
        if is_wrong:
            raise UsageError(message)
    for path in filter(None, (output, plot)):
        if not (path.exists() or os.access(path.parent, os.W_OK)):
            raise UsageError(f"{path}: the folder {path.parent} does not exist or is not writable")


def _write(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")
