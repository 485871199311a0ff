"""What an RTSP source makes of what FFmpeg hands out, on a clock of the test's own."""

import numpy as np
import pytest

from edgepose.errors import SourceStalledError
from edgepose.sources import stream
from edgepose.sources.stream import READ_TIMEOUT_MS, RtspSource


class Capture:
    """Takes OpenCV's place, as far as it is asked."""

    def get(self, _property: int) -> float:
        return 0.0

    def release(self) -> None: ...


def test_a_frame_that_comes_with_the_timeout_is_as_old_as_the_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FFmpeg's decoder keeps one back; taken for news, it doubled the time until a stall showed."""
    now_ns = 1_000_000_000
    waits_ms = [40, READ_TIMEOUT_MS + 10]

    def read(_capture: object) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        nonlocal now_ns
        now_ns += waits_ms.pop(0) * 1_000_000
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(stream, "read_rgb", read)
    monkeypatch.setattr(stream, "boottime_ns", lambda: now_ns)
    source = RtspSource("rtsp://camera/live", description="rtsp://camera/live")
    source._capture = Capture()  # type: ignore[assignment]
    frames = source.frames()
    assert next(frames).sequence == 0
    with pytest.raises(SourceStalledError, match="silent since 4 s"):
        next(frames)
