"""Video files and RTSP streams, through OpenCV's FFmpeg."""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from edgepose.clock import boottime_ns
from edgepose.datatypes import Frame
from edgepose.errors import SourceError, SourceNotFoundError, SourceStalledError
from edgepose.sources._base import OpenableSource

log = logging.getLogger(__name__)

DEFAULT_FPS: Final = 30.0
OPEN_TIMEOUT_MS: Final = 8_000
READ_TIMEOUT_MS: Final = 5_000

# FFmpeg writes to stderr what it thinks of damaged files; our own sentence says it once.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")


class VideoFileSource(OpenableSource):
    """Plays a video file, losing no frame.

    Frames carry media time from the moment the file was opened, so what follows sees the rate of
    the recording however fast it is read; `realtime` also waits for it. `loop` starts again at the
    end, with time running on. With `realtime` the source is live: it drops what nobody takes.
    """

    def __init__(self, path: Path, *, realtime: bool = False, loop: bool = False) -> None:
        self.live = realtime
        self.description = str(path)
        self._path = path
        self._loop = loop
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> None:
        """Open the file; raises SourceNotFoundError or SourceError."""
        path = self._path
        if not path.exists():
            raise SourceNotFoundError(f"{path}: no such file")
        if path.is_file() and path.stat().st_size == 0:
            raise SourceError(f"{path}: expected a video, the file is empty")
        self._capture = capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            self.close()
            raise SourceError(
                f"{path}: expected a picture or a video that FFmpeg can read, got another kind of "
                "file or a damaged one"
            )

    def close(self) -> None:
        """Close the file."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def frames(self) -> Iterator[Frame]:
        """Yield every frame; raises SourceError where the file holds none."""
        capture = self._opened()
        fps = capture.get(cv2.CAP_PROP_FPS)
        interval_ns = round(1e9 / fps) if 0.1 <= fps <= 1000 else round(1e9 / DEFAULT_FPS)
        expected = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        start_ns = boottime_ns()
        media_ns = -interval_ns
        loop_start_ns = 0
        sequence = in_pass = 0
        while True:
            read, image = capture.read()
            if not read or image is None:
                if in_pass == 0:
                    raise SourceError(f"{self._path}: expected a video, no frame in it decodes")
                if sequence == in_pass and in_pass + 2 < expected:
                    log.warning(
                        "%s: the file names %d frames but ends after %d; it may be damaged",
                        self._path,
                        expected,
                        in_pass,
                    )
                if not self._loop:
                    return
                self.close()
                self.open()
                capture = self._opened()
                in_pass = 0
                loop_start_ns = media_ns + interval_ns
                continue
            # Some containers leave the position at 0.
            told_ns = loop_start_ns + round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
            media_ns = told_ns if told_ns > media_ns else media_ns + interval_ns
            timestamp_ns = start_ns + media_ns
            if self.live:
                time.sleep(max(0, timestamp_ns - boottime_ns()) / 1e9)
            # In place: a second buffer of this size costs more than the exchange itself.
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
            yield Frame(
                image.astype(np.uint8, copy=False), timestamp_ns, sequence, path=str(self._path)
            )
            sequence += 1
            in_pass += 1

    def _opened(self) -> cv2.VideoCapture:
        if self._capture is None:
            raise SourceError(f"{self._path}: read before it was opened")
        return self._capture


class RtspSource(OpenableSource):
    """Reads an RTSP stream over TCP; every wait is bounded."""

    live = True

    def __init__(self, url: str, *, description: str) -> None:
        self.description = description
        self._url = url
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> None:
        """Connect; raises SourceError where the stream does not start in time."""
        # The only way to choose FFmpeg's transport through OpenCV; UDP loses whole frames on Wi-Fi.
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
        self._capture = cv2.VideoCapture(
            self._url,
            cv2.CAP_FFMPEG,
            [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
                OPEN_TIMEOUT_MS,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC,
                READ_TIMEOUT_MS,
            ],
        )
        if not self._capture.isOpened():
            self.close()
            raise SourceError(
                f"{self.description}: expected an RTSP stream within {OPEN_TIMEOUT_MS / 1000:.0f} s"
                ", got none; check the address, user and password with `ffprobe` or VLC"
            )

    def close(self) -> None:
        """Disconnect."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def frames(self) -> Iterator[Frame]:
        """Yield frames as they arrive; raises SourceStalledError where the stream falls silent."""
        sequence = 0
        while self._capture is not None:
            asked_ns = boottime_ns()
            read, image = self._capture.read()
            timestamp_ns = boottime_ns()
            if not read or image is None:
                waited_s = (timestamp_ns - asked_ns) / 1e9
                kind = SourceStalledError if waited_s > READ_TIMEOUT_MS / 2000 else SourceError
                raise kind(f"{self.description}: the stream stopped delivering frames")
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
            yield Frame(image.astype(np.uint8, copy=False), timestamp_ns, sequence)
            sequence += 1
