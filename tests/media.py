"""Images and videos made by the tests of the sources."""

import shutil
import subprocess
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepose.sources.synthetic import SyntheticSource
from tests.requirements import missing

Image = NDArray[np.uint8]
RED, GREEN, BLUE, GREY = (220, 30, 20), (20, 200, 40), (30, 40, 210), (128, 128, 128)


def quarters(width: int = 64, height: int = 48) -> Image:
    """Return an RGB image: red, green; blue, grey, so that any rotation or mirroring is visible."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = RED
    image[: height // 2, width // 2 :] = GREEN
    image[height // 2 :, : width // 2] = BLUE
    image[height // 2 :, width // 2 :] = GREY
    return image


def corners(image: Image) -> list[tuple[int, ...]]:
    """Return the colours of the four quarters, row by row."""
    height, width = image.shape[:2]
    return [
        tuple(int(value) for value in image[y, x])
        for y in (height // 4, 3 * height // 4)
        for x in (width // 4, 3 * width // 4)
    ]


def assert_colours(image: Image, expected: list[tuple[int, int, int]], tolerance: int = 12) -> None:
    assert np.abs(np.array(corners(image)) - np.array(expected)).max() <= tolerance, corners(image)


def save(path: Path, rgb: Image) -> Path:
    """Write an RGB image in the format of the suffix."""
    assert cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return path


def numbered(count: int, width: int = 64, height: int = 48) -> list[Image]:
    """Return images whose grey level is their number (see `number_of`)."""
    return [np.full((height, width, 3), 10 + 4 * number, np.uint8) for number in range(count)]


def number_of(image: Image) -> int:
    return round((float(image.mean()) - 10) / 4)


def write_video(
    path: Path, images: Iterable[Image], fps: float = 25.0, fourcc: str = "MJPG"
) -> Path:
    """Write a video of RGB images with OpenCV, by default as Motion JPEG."""
    writer: cv2.VideoWriter | None = None
    for image in images:
        if writer is None:
            size = (image.shape[1], image.shape[0])
            writer = cv2.VideoWriter(
                str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*fourcc), fps, size
            )
            assert writer.isOpened()
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert writer is not None
    writer.release()
    return path


def make_clip(path: Path, *, frames: int) -> Path:
    """Write an MPEG-4 clip of the synthetic source."""
    source = SyntheticSource(live=False)
    images = (frame.image for frame in islice(source.frames(), frames))
    return write_video(path, images, 30, "mp4v")


def ffmpeg(*arguments: str | Path) -> None:
    """Run ffmpeg; a test whose clip needs it fails in CI without it."""
    if shutil.which("ffmpeg") is None:
        missing("ffmpeg is not installed: sudo apt install ffmpeg")
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, timeout=60)
