"""The frames that the daemon gets in a benchmark: from memory, or from any other source."""

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from msgspec.structs import replace

from edgepose.build import source_opener
from edgepose.clock import boottime_ns
from edgepose.config.schema import CameraConfig
from edgepose.config.source_uri import parse_source_uri
from edgepose.datatypes import Frame
from edgepose.protocols import FrameSource, FrameStream
from edgepose.sources.images import find_images
from edgepose.sources.synthetic import SyntheticSource
from edgepose.util.text import printable, valid_text

MEMORY: Final = "memory"
"""Name of the default source in reports: frames of the synthetic source, rendered before."""
SIZE_WH: Final = (640, 480)
FPS: Final = 30.0
LIVE_KINDS: Final = ("picamera", "v4l2", "rtsp")

_IMAGES: Final = 8
"""Number of images in memory: as with a camera, whose frame was written a moment ago, they fit the
processor's last cache. Played forth and back, so that the motion has no jump."""

Opener = Callable[[], FrameSource]


@dataclass(frozen=True, slots=True)
class FrameFeed:
    """What opens the source: `back_to_back` as fast as frames are taken, `paced` at its frame rate.

    `back_to_back` is None for a live source.
    """

    name: str
    back_to_back: Opener | None
    paced: Opener


def frame_feed(source: str | None) -> FrameFeed:
    """Return the feed of a source URI, None for images in memory; raises UsageError."""
    if source is None:
        rendered = SyntheticSource(size_wh=SIZE_WH, live=False)
        images = list(itertools.islice(rendered.frames(), _IMAGES))
        return FrameFeed(
            MEMORY, lambda: InMemorySource(images), lambda: InMemorySource(images, live=True)
        )
    uri = parse_source_uri(source)
    if uri.kind in LIVE_KINDS:
        # A report contains neither the address of a network camera nor a password.
        name = uri.kind if uri.kind == "rtsp" else str(uri)
        return FrameFeed(name, None, source_opener(CameraConfig(source=source)))
    path = Path(uri.target).absolute()
    name = printable(valid_text(path.name)) if uri.kind == "path" else str(uri)
    # A video has its own frame rate.
    fps = FPS if uri.kind == "path" and find_images(path) else None
    camera = CameraConfig(source=source, fps=fps)
    return FrameFeed(
        name,
        source_opener(camera, loop=True, realtime=False),
        source_opener(camera, loop=True, realtime=True),
    )


class LimitedSource:
    """The first `count` frames of a source; their size and timestamps are known afterwards.

    Images stand for the frames of a camera: one inference each, as in the bare loop.
    """

    def __init__(self, source: FrameSource, count: int) -> None:
        self.live = source.live
        self.description = source.description
        self.timestamps_ns: list[int] = []
        self.size_wh = SIZE_WH
        self._source = source
        self._count = count

    @property
    def fps(self) -> float:
        """Frame rate by the timestamps."""
        return float(1e9 / np.median(np.diff(self.timestamps_ns)))

    def frames(self) -> FrameStream:
        """Yield the frames of the source."""
        with closing(self._source.frames()) as frames:
            for frame in itertools.islice(frames, self._count):
                self.size_wh = frame.size_wh
                self.timestamps_ns.append(frame.timestamp_ns)
                yield replace(frame, still=False)


@dataclass(slots=True)
class InMemorySource:
    """Images from memory without end; a live source shows them at FPS, as a camera does.

    A live frame has the time at which it is shown: a late timer is no latency of the daemon, and
    the bare loop does not count it either. Otherwise timestamps are those of a recording at FPS.
    """

    images: Sequence[Frame]
    live: bool = False
    description: str = field(default=MEMORY, init=False)

    def frames(self) -> FrameStream:
        """Yield frames without end."""
        start_ns = boottime_ns()
        for sequence, frame in enumerate(itertools.cycle([*self.images, *self.images[-2:0:-1]])):
            timestamp_ns = start_ns + round(sequence * 1e9 / FPS)
            if self.live:
                time.sleep(max(0, timestamp_ns - boottime_ns()) / 1e9)
                timestamp_ns = boottime_ns()
            yield Frame(frame.image, timestamp_ns, sequence)
