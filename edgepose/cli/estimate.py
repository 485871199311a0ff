"""`edgepose estimate`: the poses of pictures, folders and videos."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import click
import msgspec

from edgepose import messages
from edgepose.build import (
    build_model,
    build_smoother,
    build_tracker,
    path_source,
)
from edgepose.cli._options import config_option, model_option, set_up_logging
from edgepose.config import Config, find_config_file, load_config
from edgepose.datatypes import Frame
from edgepose.errors import EdgeposeError, SourceError, SourceNotFoundError, UsageError
from edgepose.inference.failover import SingleModel
from edgepose.messages import EstimateLine
from edgepose.pipeline import FrameResult, Pipeline
from edgepose.protocols import LoadedModel, Tracker
from edgepose.smoothing.no_smoother import NoSmoother
from edgepose.sources import images
from edgepose.tracking.no_tracker import NoTracker


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@config_option
@model_option
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["ndjson", "json", "table"]),
    default="ndjson",
    show_default=True,
    help="One JSON object a line, one JSON list, or a table.",
)
@click.option(
    "--annotate",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write a copy of every frame with its skeletons drawn on into this folder.",
)
@click.option(
    "--mode",
    type=click.Choice(["image", "video"]),
    help="Independent pictures or a sequence; by default what the file is.",
)
@click.option("--no-crop", is_flag=True, help="Always look at the whole frame.")
@click.option("--no-smooth", is_flag=True, help="Leave keypoints as the model finds them.")
@click.option("--no-track", is_flag=True, help="Number poses afresh in every frame.")
@click.option("--keypoint-threshold", type=click.FloatRange(0, 1), metavar="T")
@click.option("--pose-threshold", type=click.FloatRange(0, 1), metavar="T")
def command(
    *,
    inputs: tuple[str, ...],
    config_path: Path | None,
    model: str | None,
    output_format: str,
    annotate: Path | None,
    mode: str | None,
    no_crop: bool,
    no_smooth: bool,
    no_track: bool,
    keypoint_threshold: float | None,
    pose_threshold: float | None,
) -> None:
    """Print the poses of pictures, folders of pictures and videos, one frame after another.

    An input that cannot be read is named on stderr, the others are still done, and the exit code
    is 1 then.
    """
    config = load_config(
        find_config_file(config_path),
        {
            "model.name": model,
            "model.crop": False if no_crop else None,
            "smoothing.preset": "off" if no_smooth else None,
            "pose.keypoint_threshold": keypoint_threshold,
            "pose.pose_threshold": pose_threshold,
        },
    )
    set_up_logging("warning")
    if annotate is not None:
        _make_folder(annotate)
    loaded = build_model(config)
    failures: list[EdgeposeError] = []
    with _Progress(inputs) as progress, _Writer(output_format) as writer:
        for name in inputs:
            for path in _files(Path(name), failures):
                progress.start(path)
                sequence = mode == "video" or (mode is None and not images.is_image(path))
                pipeline = _pipeline(config, loaded, sequence=sequence, track=not no_track)
                try:
                    for frame in _frames(path):
                        result = pipeline.process(frame, confirm_in_crop=not sequence)
                        writer.write(_line(result, name=str(path)))
                        if annotate is not None:
                            _annotate(result, path, annotate, config.pose.keypoint_threshold)
                        progress.advance()
                        if not sequence:
                            pipeline.reset()
                except SourceError as error:
                    failures.append(error)
    for failure in failures:
        print(f"edgepose: {failure}", file=sys.stderr)
    if failures:
        raise click.exceptions.Exit(1)


class _Writer:
    """Writes results to stdout in one of the formats."""

    def __init__(self, output_format: str) -> None:
        self._format = output_format
        self._rows: list[tuple[str, ...]] = []
        self._written = 0

    def __enter__(self) -> Self:
        if self._format == "json":
            sys.stdout.write("[")
        return self

    def write(self, line: EstimateLine) -> None:
        """Take in the result of one frame."""
        if self._format == "table":
            self._rows += _rows(line)
            return
        if self._format == "json":
            sys.stdout.write(",\n " if self._written else "\n ")
        sys.stdout.write(messages.encode(line).decode())
        if self._format == "ndjson":
            sys.stdout.write("\n")
            sys.stdout.flush()
        self._written += 1

    def __exit__(self, *_: object) -> None:
        if self._format == "json":
            sys.stdout.write("\n]\n" if self._written else "]\n")
        elif self._format == "table":
            _print_table(self._rows)


class _Progress:
    """A progress bar on stderr where that is a terminal, and there is more than a glance to do."""

    def __init__(self, inputs: tuple[str, ...]) -> None:
        self._stack = ExitStack()
        self._bar: Any = None
        self._task: Any = None
        self._inputs = inputs

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            # Late: rich takes 50 ms to import, and a pipe never shows a bar.
            from rich.console import Console
            from rich.progress import Progress, TextColumn, TimeElapsedColumn

            self._bar = self._stack.enter_context(
                Progress(
                    *Progress.get_default_columns()[:-1],
                    TextColumn("{task.completed:.0f} frames"),
                    TimeElapsedColumn(),
                    console=Console(stderr=True),
                    transient=True,
                )
            )
        return self

    def start(self, path: Path) -> None:
        """Name the file being worked on."""
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(path.name, total=None)
            self._bar.update(self._task, description=path.name)

    def advance(self) -> None:
        """Count one frame."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _pipeline(config: Config, loaded: LoadedModel, *, sequence: bool, track: bool) -> Pipeline:
    tracker: Tracker = build_tracker(config) if sequence and track else NoTracker()
    # Without identities there is no past that a filter could belong to.
    smooth = sequence and track
    return Pipeline(
        SingleModel(loaded),
        tracker,
        build_smoother(config.smoothing) if smooth else NoSmoother(),
        (),
        node=config.node_name,
        camera=config.cameras[0].name,
    )


def _files(path: Path, failures: list[EdgeposeError]) -> Iterator[Path]:
    """Yield the files an input stands for, or note why there is none."""
    try:
        if not path.exists():
            raise SourceNotFoundError(f"{path}: no such file or folder")
        if path.is_dir():
            yield from images.list_images(path)
        else:
            yield path
    except SourceError as error:
        failures.append(error)


def _frames(path: Path) -> Iterator[Frame]:
    with path_source(path) as source:
        yield from source.frames()


def _line(result: FrameResult, *, name: str) -> EstimateLine:
    return EstimateLine(source=name, **msgspec.structs.asdict(result.message))


def _annotate(result: FrameResult, path: Path, folder: Path, keypoint_threshold: float) -> None:
    import cv2

    from edgepose.imaging.draw import draw_poses

    picture = draw_poses(result.frame.image, result.tracked.poses, keypoint_threshold)
    suffix = "" if images.is_image(path) else f"-{result.frame.sequence:06d}"
    target = folder / f"{path.stem}{suffix}.jpg"
    if not cv2.imwrite(str(target), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise SourceError(f"{target}: the annotated picture cannot be written")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot make the folder: {error.strerror}") from error


def _rows(line: EstimateLine) -> list[tuple[str, ...]]:
    start = (line.source, str(line.sequence))
    if not line.poses:
        return [(*start, "-", "-", "-", "-")]
    return [
        (
            *start,
            str(pose.id),
            f"{pose.score:.2f}",
            " ".join(f"{side:.2f}" for side in pose.box),
            f"{sum(keypoint is not None for keypoint in pose.keypoints)}/17",
        )
        for pose in line.poses
    ]


def _print_table(rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("source", "frame", "id", "score", "box", "keypoints")
    for row in rows:
        table.add_row(*row)
    # A pipe has no width of its own; a table that is cut off at 80 columns is no data.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
