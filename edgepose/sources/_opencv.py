"""OpenCV video captures with RGB output, set up once for this process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import cv2
import numpy as np

from edgepose.datatypes import Image

SELECT_TIMEOUT_S: Final = 3
_LOG_ERRORS: Final = 2


@cache
def configure_opencv() -> None:
    """Set OpenCV's threads and the environment it reads when it opens its first capture."""
    # OpenCV's thread pool makes colour conversion a little faster for five times the processor
    # time, which the model needs: with one thread the pipeline reaches 3% more of a bare loop's
    # rate at 720p.
    cv2.setNumThreads(1)
    # OpenCV waits 10 s for a silent V4L2 camera, which is longer than a user should wait.
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(SELECT_TIMEOUT_S))


@contextmanager
def open_capture(target: str, backend: int) -> Iterator[cv2.VideoCapture]:
    """Open a capture, and release it at the end; its `isOpened` returns whether that succeeded."""
    configure_opencv()
    if "OPENCV_LOG_LEVEL" not in os.environ:
        # OpenCV 5 moved the function into another module.
        utils: Any = cv2.utils
        module = cv2 if hasattr(cv2, "setLogLevel") else utils.logging
        module.setLogLevel(_LOG_ERRORS)
    capture = cv2.VideoCapture(target, backend)
    try:
        yield capture
    finally:
        capture.release()


def to_rgb(bgr: Image) -> Image:
    """Return a BGR image as RGB.

    Into a new array: in place, OpenCV copies first, and 1280x720 MJPEG frames arrived at 334 a
    second instead of 651 (two x86-64 cores).
    """
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
