"""`edgepose estimate`: the poses in images, folders and videos."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click
import msgspec

from edgepose import messages
from edgepose.build import (
    PathSource,
    build_model,
    build_smoother,
    build_tracker,
    image_sequence,
    verifier_adder,
)
from edgepose.build_events import build_postures
from edgepose.cli._options import config_option, format_option, model_option, set_up_logging
from edgepose.cli._terminal import exit_if_failed, print_table, progress_bar
from edgepose.config.loader import find_config_file, load_config
from edgepose.config.schema import Config
from edgepose.errors import SourceError
from edgepose.imaging.crop import WHOLE
from edgepose.inference.failover import SingleModel
from edgepose.messages import EstimateLine
from edgepose.pipeline import Pipeline
from edgepose.protocols import FrameSource, LoadedModel
from edgepose.smoothing.no_smoother import NoSmoother
from edgepose.sources import images
from edgepose.tracking.no_tracker import NoTracker
from edgepose.util.text import valid_text

SEQUENCE_FPS: Final = 30.0
"""The frame rate of a folder of images that is a sequence: such images are usually of a video."""


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@config_option
@model_option
@format_option("ndjson", "json", "table")
@click.option(
    "--annotate",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write a copy of every frame into this folder, with the skeletons, and the zones of the "
    "first camera of the configuration, drawn on it.",
)
@click.option(
    "--mode",
    type=click.Choice(["image", "video"]),
    help="Independent images or a sequence of frames; default: the content of the file.",
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

    The formats are one JSON object a line (ndjson), one JSON list, and a table.
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
    copies = None
    if annotate is not None:
        # Imported on demand: only this option draws.
        from edgepose.cli._annotate import AnnotatedCopies

        annotate.mkdir(parents=True, exist_ok=True)
        copies = AnnotatedCopies(
            annotate,
            map(Path, inputs),
            config.pose.keypoint_threshold,
            config.cameras[0].zones,
        )
    loaded = verifier_adder(config)(build_model(config))
    failures: list[SourceError] = []

    def lines() -> Iterator[EstimateLine]:
        for source, subfolder in _sources(inputs, mode, failures):
            stills, sequence = (_pipeline(config, loaded, track=t) for t in (False, not no_track))
            try:
                for read in source.frames():
                    frame = (
                        read
                        if mode is None
                        else msgspec.structs.replace(read, still=mode == "image")
                    )
                    result = (stills if frame.still else sequence).process(frame)
                    if copies is not None:
                        copies.write(result, subfolder, None if read.still else read.sequence)
                    yield EstimateLine(
                        source=str(frame.path), **msgspec.structs.asdict(result.message)
                    )
            except SourceError as error:
                failures.append(error)

    results: list[EstimateLine] = []
    with progress_bar("frames") as progress:
        for count, line in enumerate(lines(), 1):
            progress(count, line.source)
            if output_format == "ndjson":
                print(_json(line), flush=True)
            else:
                results.append(line)
    if output_format == "json":
        print("[" + ",\n ".join(map(_json, results)) + "]")
    elif output_format == "table":
        rows = [row for line in results for row in _rows(line)]
        print_table(("source", "frame", "id", "score", "box", "keypoints"), rows)
    exit_if_failed(failures)


def _sources(
    inputs: Sequence[str], mode: str | None, failures: list[SourceError]
) -> Iterator[tuple[FrameSource, str]]:
    """Yield a source for each input, or each image of a folder, and a subfolder for its copies.

    As a video, a folder is one source, and so are inputs that all are images. Copies of several
    folders are in subfolders named after them. A folder that cannot be listed is appended to
    `failures`.
    """
    paths = [Path(text) for text in inputs]
    if mode == "video" and all(map(images.is_image, paths)):
        yield image_sequence(paths, SEQUENCE_FPS), ""
        return
    for path in paths:
        is_folder = os.path.isdir(path)  # noqa: PTH112 - Path.is_dir may raise
        subfolder = path.resolve().name if is_folder and len(inputs) > 1 else ""
        try:
            files = images.list_images(path) if is_folder and mode != "video" else [path]
        except SourceError as error:
            failures.append(error)
        else:
            yield from ((PathSource(file, image_fps=SEQUENCE_FPS), subfolder) for file in files)


def _pipeline(config: Config, loaded: LoadedModel, *, track: bool) -> Pipeline:
    # Without track ids there is no history to filter.
    return Pipeline(
        SingleModel(loaded),
        build_tracker(config) if track else NoTracker(),
        build_smoother(config.smoothing) if track else NoSmoother(),
        (),
        node=config.node_name,
        camera=config.cameras[0].name,
        publish_raw=config.publish.raw,
        publish_angles=config.publish.angles,
        postures=build_postures(config, average=track),
        region=config.cameras[0].region or WHOLE,
    )


def _json(line: EstimateLine) -> str:
    line = msgspec.structs.replace(line, source=valid_text(line.source))
    return messages.encode(line).decode()


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
