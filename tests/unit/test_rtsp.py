"""RtspSource with a fake FFmpeg capture, on an injected clock."""

from contextlib import closing, nullcontext

import numpy as np
import pytest

from edgepose.errors import SourceStalledError
from edgepose.sources import rtsp
from edgepose.sources.rtsp import READ_TIMEOUT_MS, RtspSource


class Capture:
    """An OpenCV capture that is open."""

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, _property: int) -> float:
        return 0.0


def test_rtsp_source_frame_after_timeout_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg returns a frame its decoder had kept; it counts as a stall, not as a new frame."""
    now_ns = 1_000_000_000
    waits_ms = [40, READ_TIMEOUT_MS + 10]

    def read(_capture: object) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        nonlocal now_ns
        now_ns += waits_ms.pop(0) * 1_000_000
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(rtsp, "read_rgb", read)
    monkeypatch.setattr(rtsp, "boottime_ns", lambda: now_ns)
    monkeypatch.setattr(rtsp, "open_capture", lambda *_: nullcontext(Capture()))
    source = RtspSource("rtsp://camera/live", description="rtsp://camera/live")
    with closing(source.frames()) as frames:
        assert next(frames).sequence == 0
        with pytest.raises(SourceStalledError, match="silent since 4 s"):
            next(frames)
