"""RtspSource with a fake video, on an injected clock."""

from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext

import numpy as np
import pytest

from edgepose.errors import SourceStalledError
from edgepose.sources import _base, rtsp
from edgepose.sources._video import VideoImage
from edgepose.sources.rtsp import READ_TIMEOUT_S, RtspSource


def test_rtsp_source_frame_after_timeout_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg returns a frame it had kept; it counts as a stall, not as a new frame."""
    now_ns = 1_000_000_000

    class Video:
        def images(self, _count_damaged: Callable[[], None]) -> Iterator[VideoImage]:
            nonlocal now_ns
            for wait_s in (0.04, READ_TIMEOUT_S + 0.01):
                now_ns += round(wait_s * 1e9)
                yield VideoImage(np.zeros((4, 4, 3), np.uint8), mirrored=False, time_ns=None)

    for module in (_base, rtsp):
        monkeypatch.setattr(module, "boottime_ns", lambda: now_ns)
    monkeypatch.setattr(rtsp, "open_video", lambda *_, **__: nullcontext(Video()))
    source = RtspSource("rtsp://camera/live", description="rtsp://camera/live")
    with closing(source.frames()) as frames:
        assert next(frames).sequence == 0
        with pytest.raises(SourceStalledError, match="silent since 4 s"):
            next(frames)
