"""OpenCV's captures, quiet and in RGB."""

import os
from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np

from edgepose.datatypes import Image

SELECT_TIMEOUT_S: Final = 3

# Read by OpenCV when it first opens a capture. What FFmpeg writes to stderr about damaged files our
# own sentence says once; OpenCV waits 10 s for a silent V4L2 camera, longer than users should.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(SELECT_TIMEOUT_S))
_LOG_ERRORS: Final = 2

# OpenCV's pool makes one frame's colours a little faster and takes five times the processor for it,
# which the model needs: with one thread the line keeps 3% more of a bare loop's speed at 720p.
cv2.setNumThreads(1)


def open_capture(target: str, backend: int, parameters: Sequence[int]) -> cv2.VideoCapture:
    """Open a capture; `isOpened` says whether it could be."""
    if "OPENCV_LOG_LEVEL" not in os.environ:
        # OpenCV 5 moved it into another module.
        utilities: Any = cv2.utils
        place = cv2 if hasattr(cv2, "setLogLevel") else utilities.logging
        place.setLogLevel(_LOG_ERRORS)
    return cv2.VideoCapture(target, backend, parameters)


def read_rgb(capture: cv2.VideoCapture) -> Image | None:
    """Return the next image, uint8 (height, width, 3) RGB, or None where there is none."""
    read, image = capture.read()
    if not read or image is None:
        return None
    return to_rgb(image.astype(np.uint8, copy=False))


def to_rgb(bgr: Image) -> Image:
    """Return a BGR image as RGB.

    Into a new array: in place, OpenCV copies first, and 1280x720 MJPEG frames arrived at 334 a
    second instead of 651 (two x86-64 cores).
    """
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
