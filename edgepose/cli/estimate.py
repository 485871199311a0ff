"""`edgepose estimate`: the poses in images, folders and videos."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from edgepose import messages
from edgepose.build import build_model, build_smoother, build_tracker, path_source
from edgepose.cli._options import config_option, model_option, set_up_logging
from edgepose.config import Config, find_config_file, load_config
from edgepose.datatypes import Frame
from edgepose.errors import EdgeposeError, SourceError, SourceNotFoundError, UsageError
from edgepose.inference.failover import SingleModel
from edgepose.messages import EstimateLine
from edgepose.pipeline import FrameResult, Pipeline
from edgepose.protocols import LoadedModel, Smoother, Tracker
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
    help="Write a copy of every frame with the skeletons drawn on it into this folder.",
)
@click.option(
    "--mode",
    type=click.Choice(["image", "video"]),
    help="Independent images or a sequence of frames; default: the type of the file.",
)
@click.option("--no-crop", is_flag=True, help="Use the whole frame as the model input.")
@click.option("--no-smooth", is_flag=True, help="Do not smooth keypoints.")
@click.option("--no-track", is_flag=True, help="Do not track; ids start at 1 in every frame.")
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
    """Print the poses in images, folders of images and videos, frame by frame.

    Inputs that cannot be read are reported on stderr at the end; the exit code is then 1.
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

    def results() -> Iterator[EstimateLine]:
        with _progress() as count_frame:
            for path in (path for name in inputs for path in _files(Path(name), failures)):
                sequence = mode == "video" or (mode is None and not images.is_image(path))
                pipeline = _pipeline(config, loaded, track=sequence and not no_track)
                try:
                    for frame in _frames(path):
                        result = pipeline.process(frame, confirm_in_crop=not sequence)
                        if annotate is not None:
                            _annotate(result, path, annotate, config.pose.keypoint_threshold)
                        values = msgspec.structs.asdict(result.message)
                        yield EstimateLine(source=str(path), **values)
                        count_frame(path.name)
                        if not sequence:
                            pipeline.reset()
                except SourceError as error:
                    failures.append(error)

    _print_lines(results(), output_format)
    for failure in failures:
        print(f"edgepose: {failure}", file=sys.stderr)
    if failures:
        raise click.exceptions.Exit(1)


def _print_lines(lines: Iterable[EstimateLine], output_format: str) -> None:
    """Print results as they come; a table at the end."""
    if output_format == "table":
        _print_table([row for line in lines for row in _rows(line)])
    elif output_format == "json":
        separator = "["
        for line in lines:
            sys.stdout.write(f"{separator}\n {messages.encode(line).decode()}")
            separator = ","
        sys.stdout.write("[]\n" if separator == "[" else "\n]\n")
    else:
        for line in lines:
            print(messages.encode(line).decode(), flush=True)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Yield a function that counts a frame of a file; on a terminal it shows a progress bar."""
    if not sys.stderr.isatty():
        yield lambda _name: None
        return
    # Imported on demand: rich takes 50 ms.
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (*Progress.get_default_columns()[:-1], TextColumn("{task.completed:.0f} frames"))
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda name: bar.update(task, description=name, advance=1)


def _pipeline(config: Config, loaded: LoadedModel, *, track: bool) -> Pipeline:
    # Without track ids there is no history to filter.
    tracker: Tracker = build_tracker(config) if track else NoTracker()
    smoother: Smoother = build_smoother(config.smoothing) if track else NoSmoother()
    return Pipeline(
        SingleModel(loaded),
        tracker,
        smoother,
        (),
        node=config.node_name,
        camera=config.cameras[0].name,
    )


def _files(path: Path, failures: list[EdgeposeError]) -> Iterator[Path]:
    """Yield the files of an input; an error is appended to `failures`."""
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


def _annotate(result: FrameResult, path: Path, folder: Path, keypoint_threshold: float) -> None:
    import cv2

    from edgepose.imaging.draw import draw_poses

    image = draw_poses(result.frame.image, result.tracked.poses, keypoint_threshold)
    suffix = "" if images.is_image(path) else f"-{result.frame.sequence:06d}"
    target = folder / f"{path.stem}{suffix}.jpg"
    if not cv2.imwrite(str(target), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise SourceError(f"{target}: the annotated image cannot be written; check the disk")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: the folder cannot be created ({error.strerror})") from error


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
    # In a pipe, rich would cut the table off at 80 columns.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
