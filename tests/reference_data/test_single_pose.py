"""Single-pose models find people, also those of whom a part is visible, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepose.datatypes import Frame, Image
from edgepose.sources.images import read_image
from tests.builders import SECOND_NS, load_model, pipeline_of
from tests.quality.ghosts import run_clip
from tests.quality.images import images_with_pose, photographs

LIGHTNING = "movenet-lightning-int8"


@pytest.mark.usefixtures("shared_data")
@pytest.mark.parametrize(("name", "share"), [(LIGHTNING, 0.72), ("movenet-thunder-int8", 0.80)])
def test_pipeline_finds_people_in_images(name: str, share: float) -> None:
    """At least that share of the images with people, and at most 2% of those without."""
    model = load_model(name)
    assert images_with_pose(model, people=True) >= share * len(photographs(people=True))
    assert images_with_pose(model, people=False) <= 0.02 * len(photographs(people=False))


@pytest.mark.usefixtures("shared_data")
@pytest.mark.parametrize(
    ("clip", "step"), [("negatives/bigbuckbunny.mp4", 1), ("negatives/bottle-detection.mp4", 3)]
)
def test_pipeline_clip_without_people(clip: str, step: int) -> None:
    """At most two frames a minute have a pose, and presence is never on."""
    run = run_clip(load_model(LIGHTNING), clip, step=step)
    assert run.empty.found <= 2 / 60 * run.frames / run.fps
    assert run.empty.present == 0


def test_pipeline_annotated_clip(shared_data: Path) -> None:
    """No pose without a person, one in 97% of the frames half a second after they enter."""
    del shared_data
    run = run_clip(load_model(LIGHTNING), "video/one_by_one_A.mp4")
    assert run.empty.found == 0
    assert run.occupied.found >= 0.97 * run.occupied.frames


def pan(image: Image, frames: int, step_px: int) -> Iterator[Frame]:
    """Yield frames of a camera that pans over an image, at 10 frames a second."""
    width = image.shape[1] - frames * step_px
    for number in range(frames):
        left = number * step_px
        part = image[:, left : left + width].copy()
        yield Frame(part, (1 + number) * SECOND_NS // 10, number)


@pytest.mark.parametrize("name", [LIGHTNING, "movenet-thunder-int8"])
@pytest.mark.parametrize("image", ["three_people.jpg", "pilots.jpg"])
def test_pipeline_three_people_side_by_side(shared_data: Path, name: str, image: str) -> None:
    """One of them is found, of men cut at the belt, whose hips are not visible, and of others."""
    pixels = read_image(shared_data / "stills" / image)
    pipeline = pipeline_of(load_model(name))
    found = [len(pipeline.process(frame).tracked) for frame in pan(pixels, 41, 4)]
    assert sum(found) >= 38
