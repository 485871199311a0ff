"""`edgepose benchmark`: latency and accuracy of models on this machine, and comparing results."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from edgepose.cli._options import config_option, set_up_logging
from edgepose.cli._terminal import progress_bar
from edgepose.config import find_config_file, load_config
from edgepose.errors import UsageError

MAX_THREADS: Final = 64
_FILE: Final = click.Path(path_type=Path)


def _names(_context: click.Context, parameter: click.Parameter, value: Any) -> tuple[str, ...]:
    """Split names at commas; raises UsageError if there are none."""
    texts = (value,) if isinstance(value, str) else value or ()
    names = dict.fromkeys(
        name.strip() for text in texts for name in text.split(",") if name.strip()
    )
    if texts and not names:
        raise UsageError(f"{parameter.opts[0]} is empty, expected names separated by commas")
    return tuple(names)


def _counts(context: click.Context, parameter: click.Parameter, value: Any) -> tuple[int, ...]:
    """Split numbers of threads at commas; raises UsageError for any other text."""
    words = _names(context, parameter, value)
    for word in words:
        if not word.isdecimal() or not 1 <= int(word) <= MAX_THREADS:
            raise UsageError(
                f"{parameter.opts[0]} {value}: expected numbers from 1 to {MAX_THREADS} separated "
                f"by commas, got {word!r}"
            )
    return tuple(map(int, words))


def _writable(
    _context: click.Context, parameter: click.Parameter, value: Path | None
) -> Path | None:
    """Raise UsageError if a file cannot be written, before the work that makes its content."""
    option = parameter.opts[0]
    if value is None:
        return None
    if value.is_dir():
        raise UsageError(f"{value}: {option} takes a file, this is a folder")
    if not value.parent.is_dir():
        raise UsageError(f"{value}: the folder {value.parent} does not exist; create it first")
    if not os.access(value if value.exists() else value.parent, os.W_OK):
        raise UsageError(f"{value}: no permission to write there; choose another {option}")
    return value


def _output_option(what: str) -> Callable[[Any], Any]:
    text = f"Write the {what} to a file instead of stdout."
    return click.option("--output", type=_FILE, callback=_writable, metavar="FILE", help=text)


def _format_option(*formats: str) -> Callable[[Any], Any]:
    choice = click.Choice(formats)
    return click.option(
        "--format", "output_format", type=choice, default="table", show_default=True
    )


@click.group(invoke_without_command=True, subcommand_metavar="[COMMAND]")
@config_option
@click.option(
    "--models",
    metavar="NAMES|all",
    multiple=True,
    callback=_names,
    help="Names or paths separated by commas; `all` is every installed model. Default: those of "
    "the published table, MultiPose and the quantized PoseNet; with --no-latency the configured "
    "model.",
)
@click.option(
    "--threads",
    metavar="COUNTS",
    callback=_counts,
    help="CPU threads, separated by commas. Default: 1 and the number of cores, four at most.",
)
@click.option(
    "--accelerator",
    "accelerators",
    metavar="NAMES",
    default="auto",
    callback=_names,
    help="auto (default: all available), cpu, or litert, litert-without-xnnpack, tflite-runtime, "
    "edgetpu separated by commas.",
)
@click.option(
    "--min-runs",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Minimum number of runs of each row, within --max-seconds.",
)
@click.option(
    "--min-seconds",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Minimum duration of the runs of each row.",
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(min=0),
    default=150.0,
    show_default=True,
    help="Time limit of all rows together; each has three rounds even so.",
)
@click.option(
    "--picture",
    "image",
    type=_FILE,
    metavar="FILE",
    help="Input image for latency instead of random numbers.",
)
@click.option("--latency/--no-latency", default=True, help="Measure latency (default).")
@click.option(
    "--pipeline",
    is_flag=True,
    help="Also measure the whole daemon, from a source to an MQTT subscriber.",
)
@click.option("--source", metavar="URI", help="Source of --pipeline; default: images in memory.")
@click.option("--mqtt", metavar="URL", help="Broker of --pipeline; by default one is started.")
@click.option(
    "--coco",
    "annotations",
    type=_FILE,
    metavar="ANNOTATIONS.json",
    help="COCO person keypoints: also measure accuracy (needs the coco extra).",
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
@_format_option("table", "json", "markdown", "csv")
@_output_option("report")
@click.option(
    "--plot",
    type=_FILE,
    callback=_writable,
    metavar="FILE",
    help="Plot latency against mAP, as .png or .svg (needs the plot extra).",
)
@click.pass_context
def command(
    context: click.Context,
    /,
    config_path: Path | None,
    output_format: str,
    output: Path | None,
    mqtt: str | None,
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
    _check(mqtt, values)
    set_up_logging("warning")
    config = load_config(find_config_file(config_path), {"mqtt.url": mqtt})

    # Late: OpenCV, the runtimes and pycocotools, which a wrong command line does not wait for.
    from edgepose.benchmark import plot, render
    from edgepose.benchmark.session import BenchmarkOptions, run

    plot_path: Path | None = values.pop("plot")
    if plot_path is not None:
        plot.check_installed()
    options = BenchmarkOptions(config=config, given_broker=mqtt is not None, **values)
    document, left_out = run(options, _progress)
    _write(render.rendered(document, output_format), output)
    if plot_path is not None:
        plot.draw(document, plot_path)
    for error in left_out:
        print(f"edgepose: left out: {error}", file=sys.stderr)
    if left_out:
        raise click.exceptions.Exit(1)


@command.command("compare")
@click.argument("first", metavar="A.json", type=_FILE)
@click.argument("second", metavar="B.json", type=_FILE)
@_format_option("table", "json", "markdown")
@_output_option("comparison")
def compare_command(first: Path, second: Path, output_format: str, output: Path | None) -> None:
    """Compare two files of `edgepose benchmark --format json`: devices, or versions.

    Reports for each row whether B is faster or slower than A by more than the rounds of both
    differ, which rows are in one file only, and what differs between the machines.
    """
    # Late: NumPy, which a wrong command line does not wait for.
    from edgepose.benchmark import compare

    _write(compare.rendered(compare.compare_files(first, second), output_format), output)


def _check(mqtt: str | None, values: Mapping[str, Any]) -> None:
    """Raise UsageError for options that contradict each other."""
    annotations, images, plot = values["annotations"], values["images"], values["plot"]
    if (annotations is None) != (images is None):
        given, missing = ("--images", "--coco FILE") if images else ("--coco", "--images DIR")
        raise UsageError(f"{given} is given without {missing}; accuracy needs both")
    if not values["latency"] and not values["pipeline"] and annotations is None:
        raise UsageError(
            "--no-latency leaves nothing to measure; add --coco ANNOTATIONS.json --images DIR for "
            "accuracy, or --pipeline"
        )
    for option, value in (("--source", values["source"]), ("--mqtt", mqtt)):
        if value is not None and not values["pipeline"]:
            raise UsageError(f"{option} belongs to --pipeline, which is not given; add it")
    if plot is not None and plot.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"--plot {plot}: expected a file name ending in .png or .svg")
    if plot is not None and not values["latency"]:
        raise UsageError("--plot draws latencies, which --no-latency leaves out; drop one")


def _write(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[float, str], None]]:
    """Yield a function that shows the share of the work that is done, 0..1, and a text."""
    with progress_bar(what, "%", 100) as update:
        yield lambda share, text: update(100 * share, f"{what}: {text}")
