"""Image files with faults, made of one photograph, beside a developer's checkout."""

from pathlib import Path

import numpy as np
import pytest

from edgepose.datatypes import Frame
from edgepose.errors import SourceError
from edgepose.sources.images import read_image
from tests.builders import load_model, pipeline_of


def nose_of(path: Path) -> tuple[float, ...]:
    image = read_image(path)
    poses = pipeline_of(load_model("movenet-lightning-int8")).process(
        Frame(image, 1, 0, still=True)
    )
    (keypoints,) = poses.tracked.poses.keypoints
    return tuple(keypoints[0] / image.shape[1::-1])


@pytest.mark.parametrize("name", ["upright.jpg", "exif6.webp", "complete_without_eoi.jpg"])
def test_nose_in_a_whole_photograph(shared_data: Path, name: str) -> None:
    """Orientation in a WebP file and a missing end marker change nothing."""
    assert np.allclose(nose_of(shared_data / "faults" / name), (0.432, 0.234), atol=0.003)


def test_image_that_declares_too_many_pixels(shared_data: Path) -> None:
    """35 bytes are refused before they are decoded."""
    with pytest.raises(SourceError, match="the image is too large"):
        read_image(shared_data / "faults" / "bomb_35_bytes.gif")
