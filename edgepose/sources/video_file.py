"""Video files."""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import av

from edgepose.datatypes import Frame
from edgepose.errors import SourceError
from edgepose.protocols import FrameStream
from edgepose.sources._base import DamageCounter, Pacer, check_file
from edgepose.sources._video import MAX_PIXELS, Video, open_video

log = logging.getLogger(__name__)

MAX_STEP_NS: Final = 7_200_000_000_000
"""A larger step between two timestamps of a file is damage, or another clock."""
MAX_WAIT_NS: Final = 4_000_000_000
"""Played in real time, a longer gap would look like a camera that stalled."""
COMPLETE: Final = 0.95
"""A file with less than this share of its declared frames and duration is cut short."""

# FFmpeg's names of the formats that contain their video themselves: a playlist or a description of
# a stream would make it open other files and addresses. Not FLV, of which FFmpeg decodes a frame of
# any size when it is opened.
_FORMATS: Final = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,vvc,mjpeg,obu,ivf,asf,ogg,mxf,"
    "dv,nut,rm,wtv,yuv4mpegpipe,3gp,jpeg_pipe"
)
_OPTIONS: Final = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}


class VideoFileSource:
    """Plays a video file without losing frames.

    Timestamps are media time counted from the moment the file was opened, so later stages see the
    frame rate of the recording however fast it is read: the steps are the file's own, also over a
    gap, and one frame interval if its clock was set back. `loop` starts again at the end, with
    timestamps continuing. A `live` source paces the frames by the clock, and those that are not
    taken in time are dropped. `fps` is the frame rate of a file without times, such as raw H.264.
    """

    def __init__(
        self, path: Path, *, live: bool = False, loop: bool = False, fps: float | None = None
    ) -> None:
        self.live = live
        self.description = str(path)
        self._path = path
        self._loop = loop
        self._fps = fps

    def frames(self) -> FrameStream:
        """Yield every frame; raises SourceError if none can be decoded."""
        pacer = Pacer(MAX_WAIT_NS)
        sequence = media_ns = 0
        with closing(DamageCounter(self.description, live=self.live or self._loop)) as damage:
            while True:
                first = sequence
                # Opened for each pass instead of seeking, which not every container supports.
                with self._open() as video:
                    interval_ns = round(1e9 / self._fps) if self._fps else video.interval_ns
                    previous_ns = None
                    for image, mirrored, time_ns in video.images(damage.add):
                        if sequence:
                            media_ns += _step_ns(previous_ns, time_ns) or interval_ns
                        previous_ns = time_ns
                        if self.live:
                            pacer.wait_for(media_ns)
                        yield Frame(
                            image,
                            pacer.start_ns + media_ns,
                            sequence,
                            path=str(self._path),
                            mirrored=mirrored,
                        )
                        # The consumer alone holds the frame while the next one is decoded.
                        del image
                        sequence += 1
                    if sequence == first:
                        raise SourceError(
                            f"{self._path}: expected a video of at most "
                            f"{MAX_PIXELS // 1_000_000} megapixels, no frame in it decodes (codec "
                            f"{video.codec})"
                        )
                    if first == 0:
                        self._warn_if_cut_short(video, media_ns + interval_ns)
                if not self._loop:
                    return

    @contextmanager
    def _open(self) -> Iterator[Video]:
        check_file(self._path, "a video")
        try:
            # Absolute, since FFmpeg takes `name:` at the beginning of a path for a protocol.
            with open_video(
                str(self._path.absolute()), self.description, options=_OPTIONS
            ) as video:
                if self._fps and not video.untimed:
                    raise SourceError(
                        f"{self._path}: fps is for images and videos without times (raw H.264); "
                        "this video has its own, leave fps out"
                    )
                yield video
        except av.FFmpegError as error:
            raise SourceError(
                f"{self._path}: expected an image or a video that FFmpeg can read, got another "
                "kind of file, such as a playlist, or one that is damaged or cut short"
            ) from error

    def _warn_if_cut_short(self, video: Video, length_ns: int) -> None:
        """Log a warning if the video is shorter than its file declares."""
        enough = video.packets >= COMPLETE * video.declared_count > 0
        if video.error or (length_ns < COMPLETE * video.declared_ns and not enough):
            log.warning(
                "%s: the video ends too early, after %.1f s; the file is damaged or cut short",
                self._path,
                length_ns / 1e9,
            )


def _step_ns(previous_ns: int | None, time_ns: int | None) -> int | None:
    """Return the time between two frames, at least 1 ns; None if it is unknown."""
    if previous_ns is None or time_ns is None or not 0 <= time_ns - previous_ns <= MAX_STEP_NS:
        return None
    return max(1, time_ns - previous_ns)
