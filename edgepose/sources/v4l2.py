"""USB cameras, through Video4Linux."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from edgepose.clock import boottime_ns
from edgepose.datatypes import Frame
from edgepose.errors import (
    SourceBusyError,
    SourceError,
    SourceNotFoundError,
    SourceStalledError,
)
from edgepose.sources._base import OpenableSource

OPEN_TIMEOUT_MS: Final = 5_000
READ_TIMEOUT_MS: Final = 2_000


class UsbCameraSource(OpenableSource):
    """Reads a USB camera; size and rate are wishes that the camera may answer with others."""

    live = True

    def __init__(
        self, device: str, *, size_wh: tuple[int, int] = (640, 480), fps: float | None = None
    ) -> None:
        self.description = device
        self._device = device
        self._size_wh = size_wh
        self._fps = fps
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> None:
        """Open the camera; raises SourceError with the reason and the remedy."""
        self._probe()
        wishes = [cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")]
        wishes += [cv2.CAP_PROP_FRAME_WIDTH, self._size_wh[0]]
        wishes += [cv2.CAP_PROP_FRAME_HEIGHT, self._size_wh[1]]
        if self._fps:
            wishes += [cv2.CAP_PROP_FPS, round(self._fps)]
        self._capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2, wishes)
        if not self._capture.isOpened():
            # Some cameras refuse the wishes together and then take them one by one.
            self._capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2)
            for wish, value in zip(wishes[::2], wishes[1::2], strict=True):
                self._capture.set(wish, value)
        if not self._capture.isOpened():
            self.close()
            raise SourceError(
                f"{self._device}: expected a camera that delivers pictures, got a device that does "
                "not (a camera often has a second node for metadata; try the other /dev/video*) or "
                "one that another program holds"
            )

    def close(self) -> None:
        """Release the camera."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def frames(self) -> Iterator[Frame]:
        """Yield frames; raises SourceStalledError in silence and SourceError when unplugged."""
        sequence = 0
        while self._capture is not None:
            read, image = self._capture.read()
            timestamp_ns = boottime_ns()
            if not read or image is None:
                if not Path(self._device).exists():
                    raise SourceNotFoundError(f"{self._device}: the camera was unplugged")
                raise SourceStalledError(f"{self._device}: the camera delivers no frames")
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
            yield Frame(image.astype(np.uint8, copy=False), timestamp_ns, sequence)
            sequence += 1

    def _probe(self) -> None:
        """Open and close the node once, since OpenCV does not tell why it could not."""
        device = self._device
        try:
            os.close(os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
                found = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*")))
                raise SourceNotFoundError(
                    f"{device}: no such camera; is it plugged in? "
                    f"{'there are ' + found if found else 'there is no /dev/video* at all'}"
                ) from error
            if error.errno in {errno.EACCES, errno.EPERM}:
                raise SourceError(
                    f"{device}: no permission; add this user to the group video "
                    "(`sudo usermod -aG video $USER`) and log in again"
                ) from error
            if error.errno == errno.EBUSY:
                raise SourceBusyError(
                    f"{device}: another program holds the camera; `fuser -v {device}` names it"
                ) from error
            raise SourceError(f"{device}: cannot open the camera: {error.strerror}") from error
