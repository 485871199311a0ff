"""The options of `edgepose benchmark`, and its subcommands."""

import sys
from pathlib import Path
from typing import ClassVar, Final

import click

from edgepose.cli._lazy import LazyGroup
from edgepose.cli._options import config_option, set_up_logging
from edgepose.cli.benchmark._files import check_writable
from edgepose.config import find_config_file, load_config
from edgepose.errors import UsageError

PLOT_SUFFIXES: Final = (".png", ".svg")
MAX_THREADS: Final = 64


class _Benchmark(LazyGroup):
    package = "edgepose.cli.benchmark"
    subcommands: ClassVar = {
        "compare": "Compare two results: devices, or versions.",
        "gallery": "Make one table of the results in a folder.",
    }


@click.group(cls=_Benchmark, invoke_without_command=True, subcommand_metavar="[COMMAND]")
@config_option
@click.option(
    "--models",
    "names",
    metavar="NAMES|all",
    multiple=True,
    help="Names or paths, with commas between; `all` is every one on this machine. Without it, "
    "those of the published table, MultiPose and the quantized PoseNet; with --no-latency the "
    "configured model, as it is configured.",
)
@click.option(
    "--threads",
    metavar="COUNTS",
    help="Threads of the CPU, with commas between. Without it, 1 and as many as there are cores, "
    "four at most.",
)
@click.option(
    "--accelerator",
    "accelerators",
    metavar="NAMES",
    help="auto (default: all there are), cpu, edgetpu, or with commas between litert, "
    "litert-without-xnnpack, tflite-runtime, edgetpu.",
)
@click.option(
    "--min-runs",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Runs of each row at least, as far as --max-seconds allows.",
)
@click.option(
    "--min-seconds",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Seconds of runs of each row at least.",
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(min=0),
    default=150.0,
    show_default=True,
    help="What all rows together may take; each has three rounds even so.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What the models see while they are timed, in place of random numbers.",
)
@click.option(
    "--latency/--no-latency",
    "with_latency",
    default=True,
    help="Whether to measure latency; on by default.",
)
@click.option(
    "--pipeline",
    "with_pipeline",
    is_flag=True,
    help="Also measure the whole line, from a source to a subscriber of a broker.",
)
@click.option(
    "--source",
    metavar="URI",
    help="What the line reads with --pipeline; without it, pictures from memory.",
)
@click.option(
    "--mqtt",
    "broker",
    metavar="URL",
    help="The broker of --pipeline; without it, one of the benchmark's own.",
)
@click.option(
    "--coco",
    "annotations",
    type=click.Path(path_type=Path),
    metavar="ANNOTATIONS.json",
    help="COCO person keypoints: also measure accuracy (needs the coco extra).",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the annotated pictures.",
)
@click.option(
    "--protocol",
    "protocols",
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
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw latency against mAP, as .png or .svg (needs the plot extra).",
)
@click.pass_context
def command(
    context: click.Context,
    *,
    config_path: Path | None,
    names: tuple[str, ...],
    threads: str | None,
    accelerators: str | None,
    min_runs: int,
    min_seconds: float,
    max_seconds: float,
    picture: Path | None,
    with_latency: bool,
    with_pipeline: bool,
    source: str | None,
    broker: str | None,
    annotations: Path | None,
    images: Path | None,
    protocols: tuple[str, ...],
    against: str | None,
    output_format: str,
    output: Path | None,
    plot: Path | None,
) -> None:
    """Measure how fast models are here, beside the published table, and how accurate.

    Rows are measured in turns, in several rounds; one whose rounds disagree is marked. The report
    says what of the machine makes figures doubtful. Accuracy needs --coco; each of its figures
    comes with its protocol, the number of pictures and a bootstrap interval. A picture that cannot
    be read is named on stderr and left out for all models, and the exit code is 1 then.
    """
    if context.invoked_subcommand is not None:
        return
    if (annotations is None) != (images is None):
        given, missing = (
            ("--coco", "--images DIR") if images is None else ("--images", "--coco FILE")
        )
        raise UsageError(
            f"{given} is given without {missing}; accuracy needs the annotations and the pictures"
        )
    if not with_latency and not with_pipeline and annotations is None:
        raise UsageError(
            "--no-latency leaves nothing to measure; add --coco ANNOTATIONS.json --images DIR for "
            "accuracy, or --pipeline"
        )
    for option, value in (("--source", source), ("--mqtt", broker)):
        if value is not None and not with_pipeline:
            raise UsageError(f"{option} belongs to --pipeline, which is not given; add it")
    if plot is not None:
        if plot.suffix.lower() not in PLOT_SUFFIXES:
            raise UsageError(f"--plot {plot}: expected a file name ending in .png or .svg")
        if not with_latency:
            raise UsageError("--plot draws latencies, which --no-latency leaves out; drop one")
    for option, path in (("--output", output), ("--plot", plot)):
        check_writable(path, option)
    set_up_logging("warning")
    config = load_config(find_config_file(config_path), {"mqtt.url": broker})

    # Late: OpenCV, the runtimes and pycocotools, which a wrong command line need not wait for.
    from edgepose.benchmark import report
    from edgepose.cli.benchmark import _measure

    document, left_out = _measure.run(
        _measure.Order(
            config=config,
            names=names,
            threads=_counts(threads),
            accelerators=_words("auto" if accelerators is None else accelerators, "--accelerator"),
            min_runs=min_runs,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            picture=picture,
            with_latency=with_latency,
            with_pipeline=with_pipeline,
            source=source,
            with_broker=broker is not None,
            annotations=annotations,
            images=images,
            protocols=protocols,
            against=against,
            with_plot=plot is not None,
        )
    )
    text = report.rendered(document, output_format)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")
    if plot is not None:
        from edgepose.benchmark.plot import draw

        draw(document, plot)
    if left_out:
        raise click.exceptions.Exit(1)


def _words(text: str, option: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words:
        raise UsageError(f"{option} is empty, expected names with commas between")
    return words


def _counts(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    words = _words(text, "--threads")
    for word in words:
        if not word.isdecimal() or not 1 <= int(word) <= MAX_THREADS:
            raise UsageError(
                f"--threads {text}: expected numbers from 1 to {MAX_THREADS} with commas between, "
                f"got {word!r}"
            )
    return tuple(map(int, words))
