"""What every source does the same way."""

import time
from typing import Final

from edgepose.clock import boottime_ns

MAX_AGE_NS: Final = 2_000_000_000
"""A driver's timestamp older than this, on arrival, is of a clock that we do not know."""
MAX_LATENESS_NS: Final = 1_000_000_000
"""A recording played in real time that is later than this goes on from now."""


class CaptureClock:
    """Turns what a driver says of the moment of a frame into strictly rising CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self._last_ns = 0

    def stamp(self, told_ns: int | None = None) -> int:
        """Return the moment of a frame that arrived now.

        `told_ns` is CLOCK_MONOTONIC or CLOCK_BOOTTIME, which drivers do not say: they differ by the
        time spent in suspend. Where it is neither, the frame's moment is its arrival.
        """
        now_ns = boottime_ns()
        timestamp_ns = now_ns
        if told_ns:
            for since_ns in (now_ns, time.monotonic_ns()):
                if 0 <= since_ns - told_ns <= MAX_AGE_NS:
                    timestamp_ns = now_ns - (since_ns - told_ns)
                    break
        self._last_ns = max(timestamp_ns, self._last_ns + 1)
        return self._last_ns


class Pacer:
    """Waits until it is time for the next frame of something played in real time."""

    def __init__(self) -> None:
        self.start_ns = boottime_ns()

    def wait_for(self, elapsed_ns: int) -> None:
        """Sleep until `elapsed_ns` after the start, which moves where we are hopelessly late."""
        late_ns = boottime_ns() - self.start_ns - elapsed_ns
        if late_ns < 0:
            time.sleep(-late_ns / 1e9)
        elif late_ns > MAX_LATENESS_NS:
            # After a suspend, or on a machine that cannot keep up: frames must not look old.
            self.start_ns += late_ns
