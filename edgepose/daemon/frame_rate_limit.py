"""Which frames of a camera are processed: not too many a second, few while no person is there."""

from collections.abc import Callable
from typing import Final

from edgepose.clock import boottime_ns

MAX_CONFIRMING_NS: Final = 1_000_000_000
"""A candidate that is not confirmed for longer, frame by frame, is none."""
_TOLERANCE: Final = 0.25
"""Of the interval: frames of a camera come somewhat early and late."""
_LONG_AGO_NS: Final = -(10**18)


class FrameRateLimit:
    """Accepts at most `max_fps` frames a second, evenly spread; 0 is no limit.

    If `set_idle` was called, it accepts fewer once no pose was detected for some time. A pose ends
    that. A candidate that is not confirmed yet gets the next frame at once, for as long as it takes
    to confirm one: false ones, which many empty rooms have, leave the camera idle.

    The main thread sets limits, the inference thread reports, the capture thread asks. No attribute
    depends on another one's change.
    """

    def __init__(self, max_fps: float = 0.0, *, clock: Callable[[], int] = boottime_ns) -> None:
        self.max_fps = max_fps
        self._clock = clock
        self.idle_fps = 0.0
        self._idle_after_ns = 0
        self._awake_ns = self._accepted_ns = self._candidate_ns = clock()
        self._candidate_since_ns = 0
        self._slot_ns = _LONG_AGO_NS
        """When the last frame that was accepted was due."""

    def set_idle(self, *, fps: float, after_s: float) -> None:
        """Accept so many frames a second after a time without a pose; 0 is never."""
        self._idle_after_ns = round(after_s * 1e9)
        self.idle_fps = fps

    def wake(self) -> None:
        """Take the time without a pose from now on."""
        self._awake_ns = self._clock()

    def detected(self, *, pose: bool, candidate: bool) -> None:
        """Take whether a frame has a pose, and whether it has one that is to be confirmed."""
        if pose:
            self.wake()
        if not candidate:
            self._candidate_since_ns = 0
            return
        now_ns = self._clock()
        self._candidate_since_ns = self._candidate_since_ns or now_ns
        if now_ns - self._candidate_since_ns < MAX_CONFIRMING_NS:
            self._candidate_ns = now_ns

    @property
    def idle(self) -> bool:
        """Whether no pose was detected for so long that fewer frames are accepted."""
        return self.idle_fps > 0 and self._clock() - self._awake_ns >= self._idle_after_ns

    @property
    def interval_ns(self) -> int:
        """The time between two frames that are accepted; 0 if all are."""
        fps = self.max_fps
        if self.idle and self._candidate_ns <= self._accepted_ns:
            fps = min(fps or self.idle_fps, self.idle_fps)
        return round(1e9 / fps) if fps else 0

    def wanted(self) -> bool:
        """Return whether a frame that arrives now is accepted."""
        return self._is_due(self._clock(), self.interval_ns)

    def accepts(self, now_ns: int) -> bool:
        """Return whether a frame is processed that arrived now."""
        interval_ns = self.interval_ns
        if interval_ns:
            if not self._is_due(now_ns, interval_ns):
                return False
            # A late frame does not lower the rate, and a pause is not caught up on.
            in_time = 0 < now_ns - self._slot_ns < 2 * interval_ns
            self._slot_ns = self._slot_ns + interval_ns if in_time else now_ns
        self._accepted_ns = self._clock()
        return True

    def _is_due(self, now_ns: int, interval_ns: int) -> bool:
        since_ns = now_ns - self._slot_ns
        # A clock that goes back has begun again.
        return not (interval_ns and -interval_ns < since_ns < interval_ns * (1 - _TOLERANCE))
