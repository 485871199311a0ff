"""Video files and streams, decoded by FFmpeg through PyAV."""

import logging
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, NamedTuple

import av
import av.logging
import cv2
import numpy as np
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from edgepose.datatypes import Image
from edgepose.errors import SourceError

MAX_PIXELS: Final = 89_478_485
"""As for still images; the decoder of a larger video takes gigabytes."""
DEFAULT_FPS: Final = 25.0
_GENERATE_TIMES: Final = 0x1  # AVFMT_FLAG_GENPTS of libavformat/avformat.h
_NO_TIMESTAMPS: Final = 0x80  # AVFMT_NOTIMESTAMPS
_MATRIX: Final = struct.Struct("=9i")
_UPRIGHT: Final = _MATRIX.pack(1, 0, 0, 0, 1, 0, 0, 0, 1)
_MAX_ASPECT: Final = 4.0
"""A larger ratio of a pixel's sides is damage."""


@cache
def _configure_ffmpeg() -> None:
    """Let FFmpeg's errors reach `av.logging.Capture`, and nothing else."""
    logging.getLogger("libav").setLevel(logging.CRITICAL + 1)
    av.logging.set_level(av.logging.ERROR)


@contextmanager
def open_video(
    target: str,
    description: str,
    *,
    options: Mapping[str, str],
    threads: int = 0,
    timeouts_s: tuple[float, float] | None = None,
) -> Iterator["Video"]:
    """Open the video of a file or stream, and close it at the end.

    `options` are FFmpeg's; `threads` of 0 is one for each core; `timeouts_s` are for opening and
    for each read. Raises av.FFmpegError, or SourceError for what opens but cannot be decoded.
    """
    _configure_ffmpeg()
    # The first limit is for opening, which decodes a frame of some files.
    options = {**options, "max_pixels": str(MAX_PIXELS)}
    with av.open(
        target, options=options, timeout=timeouts_s, metadata_errors="replace"
    ) as container:
        # What FFmpeg makes up for an AVI with B-frames jumps forth and back.
        container.flags &= ~_GENERATE_TIMES
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream):
            raise SourceError(f"{description}: expected a video, it has only sound or other data")
        context = stream.codec_context
        if context is None:
            raise SourceError(
                f"{description}: FFmpeg has no decoder for its codec, {_codec(container)}; convert "
                "it to H.264"
            )
        # Only one thread's errors can be assigned to a source; damage in MJPEG is known by them.
        context.thread_count = 1 if context.name == "mjpeg" else threads
        context.thread_type = "AUTO"
        context.options["max_pixels"] = str(MAX_PIXELS)
        try:
            yield Video(container, stream, description)
        finally:
            # PyAV frees the decoder with the GIL, and a decoding thread needs it to log.
            context.flush_buffers()


class VideoImage(NamedTuple):
    """An image of a video: uint8 (height, width, 3) RGB, and its time in ns if it has one.

    `mirrored` means that the file or stream asks for it to be shown as by a mirror.
    """

    image: Image
    mirrored: bool
    time_ns: int | None


class Video:
    """An open video.

    `interval_ns` is the usual time between frames, `untimed` a file without times (raw H.264).
    `declared_count` and `declared_ns` are the length of the video itself, 0 if the file does not
    contain it; `packets` is how many of its packets were read, and `error` why no more could be.
    """

    def __init__(
        self, container: av.container.InputContainer, stream: VideoStream, description: str
    ) -> None:
        fps = float(stream.guessed_rate or stream.average_rate or 0)
        self.interval_ns = round(1e9 / (fps if 0.1 <= fps <= 1000 else DEFAULT_FPS))
        self.untimed = bool(container.format.flags & _NO_TIMESTAMPS)
        self.declared_count = stream.frames
        self.declared_ns = _declared_ns(container, stream)
        self.codec = stream.codec_context.name
        self.packets = 0
        self.error: av.FFmpegError | None = None
        self._container = container
        self._stream = stream
        self._description = description
        # The container's aspect counts more than the codec's, unless the latter changes on the way.
        self._coded_aspect = stream.codec_context.sample_aspect_ratio or 1
        self._pixel_aspect = stream.sample_aspect_ratio or 1
        self._reformatter = VideoReformatter()
        self._shape = (0, 0, 0)
        self._matrix = _UPRIGHT
        self._check_size(stream.codec_context.width, stream.codec_context.height)

    def images(self, count_damaged: Callable[[], None]) -> Iterator[VideoImage]:
        """Yield the images, upright, with square pixels, in sizes that may change.

        `count_damaged` is called for each damaged frame; one that is lost is skipped. Raises
        SourceError for too large a frame.
        """
        context, base = self._stream.codec_context, self._stream.time_base or 1
        packets = self._container.demux(self._stream)
        while packet := self._next(packets):
            self.packets += packet.size > 0
            frames, damaged = _decode(context, packet)
            if damaged:
                # A frame may be lost because it is too large.
                self._check_size(context.width, context.height)
                count_damaged()
            for frame in frames:
                ticks = frame.dts if frame.pts is None else frame.pts
                time_ns = None if ticks is None else round(ticks * base * 1_000_000_000)
                yield self._shown(frame, None if self.untimed else time_ns)

    def _next(self, packets: "Iterator[Packet[VideoStream]]") -> "Packet[VideoStream] | None":
        try:
            return next(packets, None)
        except av.FFmpegError as error:
            self.error = error
            return None

    def _shown(self, frame: VideoFrame, time_ns: int | None) -> VideoImage:
        aspect = self._stream.codec_context.sample_aspect_ratio or 1
        if aspect == self._coded_aspect:
            aspect = self._pixel_aspect
        if not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT:
            aspect = 1
        width = round(frame.width * aspect)
        self._check_size(width, frame.height)
        image = _to_rgb(self._reformatter, frame, width)
        shape = (frame.rotation, frame.width, frame.height)
        if shape != self._shape:
            # Not for each frame: PyAV's container of side data keeps it until garbage collection.
            matrix = frame.side_data.get("DISPLAYMATRIX")
            self._matrix = bytes(matrix) if isinstance(matrix, SideData) else _UPRIGHT
            self._shape = shape
        return VideoImage(*_displayed(image, self._matrix), time_ns)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            raise SourceError(
                f"{self._description}: its frames of {width}x{height} are too large, expected at "
                f"most {MAX_PIXELS // 1_000_000} megapixels"
            )


class JpegDecoder:
    """Decodes the JPEG images of a camera, which may differ in size."""

    def __init__(self) -> None:
        _configure_ffmpeg()
        context = av.CodecContext.create("mjpeg", "r")
        assert isinstance(context, VideoCodecContext)
        context.thread_count = 1
        context.options["max_pixels"] = str(MAX_PIXELS)
        self._context = context
        self._reformatter = VideoReformatter()

    def decode(self, jpeg: bytes) -> tuple[Image | None, bool]:
        """Return the image as uint8 (height, width, 3) RGB, and whether it is damaged.

        There is none if too much of it is missing.
        """
        frames, damaged = _decode(self._context, av.Packet(jpeg))
        if not frames:
            return None, damaged
        return _to_rgb(self._reformatter, frames[0], frames[0].width), damaged


def _decode(context: VideoCodecContext, packet: "Packet[Any]") -> tuple[list[VideoFrame], bool]:
    """Return the frames that a packet completes, and whether one is damaged or lost."""
    with av.logging.Capture() as errors:
        try:
            frames = context.decode(packet)
        except av.FFmpegError:
            return [], True
    # There is no other sign of damage in JPEG; other decoders' errors may be harmless.
    damaged = bool(errors) and context.name == "mjpeg"
    return frames, damaged or any(frame.is_corrupt for frame in frames)


def _to_rgb(reformatter: VideoReformatter, frame: VideoFrame, width: int) -> Image:
    rgb = reformatter.reformat(frame, width, format="rgb24", threads=1)
    return rgb.to_ndarray().astype(np.uint8, copy=False)


def _displayed(image: Image, matrix: bytes) -> tuple[Image, bool]:
    """Apply a display matrix, 9 int32, to the nearest quarter turn; return whether it mirrors."""
    x_from_x, y_from_x, _, x_from_y, y_from_y, *_ = _MATRIX.unpack(matrix)
    transposed = abs(y_from_x) > abs(x_from_x)
    if transposed:
        x_from_x, y_from_y = x_from_y, y_from_x
        image = cv2.transpose(image).astype(np.uint8, copy=False)
    flip_x, flip_y = x_from_x < 0, y_from_y < 0
    if flip_x or flip_y:
        code = -1 if flip_x and flip_y else int(flip_x)
        image = cv2.flip(image, code).astype(np.uint8, copy=False)
    return image, transposed ^ flip_x ^ flip_y


def _declared_ns(container: av.container.InputContainer, stream: VideoStream) -> int:
    """Return how long the video itself is by its file, in ns; sound may be longer."""
    if stream.duration and stream.time_base:
        return round(stream.duration * stream.time_base * 1_000_000_000)
    # Matroska has the length of a stream only as a tag.
    tag = re.fullmatch(r"(\d+):(\d+):(\d+)\.(\d{9})", stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, seconds, ns = map(int, tag.groups())
        return ((hours * 60 + minutes) * 60 + seconds) * 1_000_000_000 + ns
    return (container.duration or 0) * 1000 if len(container.streams) == 1 else 0


def _codec(container: av.container.InputContainer) -> str:
    """Return the name of a video's codec, which PyAV has only for those it can decode."""
    av.logging.set_level(av.logging.INFO)
    # It is not in the stubs of PyAV.
    text = container.dumps_format()  # type: ignore[attr-defined]
    av.logging.set_level(av.logging.ERROR)
    found = re.search(r"Video: (?:none \()?([\w-]+)", text)
    return found[1] if found else "an unknown one"
