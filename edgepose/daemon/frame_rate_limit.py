"""Which frames of a camera are processed, so that there are not more than so many a second."""

from typing import Final

_TOLERANCE: Final = 0.25
"""Of the interval: frames of a camera come somewhat early and late."""
_LONG_AGO_NS: Final = -(10**18)


class FrameRateLimit:
    """Accepts at most `max_fps` frames a second, evenly spread; 0 is no limit.

    `max_fps` may be changed by another thread than the one that asks.
    """

    def __init__(self, max_fps: float = 0.0) -> None:
        self.max_fps = max_fps
        self._slot_ns = _LONG_AGO_NS
        """When the last frame that was accepted was due."""

    def accepts(self, timestamp_ns: int) -> bool:
        """Return whether the next frame is processed."""
        max_fps = self.max_fps
        if not max_fps:
            return True
        interval_ns = round(1e9 / max_fps)
        since_ns = timestamp_ns - self._slot_ns
        # A clock that goes back has begun again.
        if -interval_ns < since_ns < interval_ns * (1 - _TOLERANCE):
            return False
        # A late frame does not lower the rate, and a pause is not caught up on.
        in_time = 0 < since_ns < 2 * interval_ns
        self._slot_ns = self._slot_ns + interval_ns if in_time else timestamp_ns
        return True
