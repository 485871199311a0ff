"""Video files, through OpenCV's FFmpeg."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import cv2

from edgepose.datatypes import Frame
from edgepose.errors import SourceError
from edgepose.protocols import FrameStream
from edgepose.sources._base import Pacer, check_file
from edgepose.sources._opencv import open_capture, read_rgb

log = logging.getLogger(__name__)

DEFAULT_FPS: Final = 30.0
MAX_STEP_NS: Final = 60_000_000_000
"""A larger step between two timestamps of a file is damage."""
COMPLETE: Final = 0.95
"""A file with less than this share of its declared frames and duration is cut short."""


class VideoFileSource:
    """Plays a video file without losing frames.

    Timestamps are media time counted from the moment the file was opened, so later stages see the
    frame rate of the recording however fast it is read. `loop` starts again at the end, with
    timestamps continuing. A `live` source paces the frames by the clock, and those that are not
    taken in time are dropped. A rotation in the file's metadata is applied.
    """

    def __init__(self, path: Path, *, live: bool = False, loop: bool = False) -> None:
        self.live = live
        self.description = str(path)
        self._path = path
        self._loop = loop

    def frames(self) -> FrameStream:
        """Yield every frame; raises SourceError if none can be decoded."""
        pacer = Pacer()
        sequence = next_ns = 0
        while True:
            first = sequence
            # Opened for each pass instead of seeking, which not every container supports.
            with self._open() as capture:
                fps = capture.get(cv2.CAP_PROP_FPS)
                interval_ns = round(1e9 / (fps if 0.1 <= fps <= 1000 else DEFAULT_FPS))
                base_ns = 0
                while (image := read_rgb(capture)) is not None:
                    position_ns = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
                    if sequence == first:
                        base_ns = position_ns - next_ns
                    media_ns = position_ns - base_ns
                    # In some containers the position does not advance; in damaged ones it jumps.
                    if not 0 < media_ns - (next_ns - interval_ns) <= MAX_STEP_NS:
                        media_ns = next_ns
                    if self.live:
                        pacer.wait_for(media_ns)
                    yield Frame(image, pacer.start_ns + media_ns, sequence, path=str(self._path))
                    # The consumer alone holds the frame while the next one is decoded.
                    del image
                    sequence += 1
                    next_ns = media_ns + interval_ns
                if sequence == first:
                    raise SourceError(f"{self._path}: expected a video, no frame in it decodes")
                if first == 0:
                    self._warn_if_cut_short(capture, sequence, next_ns)
            if not self._loop:
                return

    @contextmanager
    def _open(self) -> Iterator[cv2.VideoCapture]:
        check_file(self._path, "a video")
        # Absolute, since FFmpeg takes `name:` at the beginning of a path for a protocol.
        with open_capture(str(self._path.absolute()), cv2.CAP_FFMPEG) as capture:
            if not capture.isOpened():
                raise SourceError(
                    f"{self._path}: expected an image or a video that FFmpeg can read, got another "
                    "kind of file or one that is damaged or cut short"
                )
            # Off by default in OpenCV 4.11, and rejected among the parameters.
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
            yield capture

    def _warn_if_cut_short(self, capture: cv2.VideoCapture, count: int, length_ns: int) -> None:
        """Log a warning if both the frame count and the duration are less than declared."""
        declared_count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        fps = capture.get(cv2.CAP_PROP_FPS)
        declared_ns = declared_count / fps * 1e9 if fps > 0 else 0.0
        if count < COMPLETE * declared_count and length_ns < COMPLETE * declared_ns:
            log.warning(
                "%s: the video should have about %d frames but ends after %d; the file is damaged "
                "or cut short",
                self._path,
                declared_count,
                count,
            )
