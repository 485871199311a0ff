"""The clock of frames, and its conversion to the time of day.

Timestamps are CLOCK_BOOTTIME nanoseconds, the clock of libcamera's SensorTimestamp. It does not
jump when the time of day is set, nor stop in suspend.
"""

import time
from datetime import UTC, datetime
from functools import lru_cache


def boottime_ns() -> int:
    """Return CLOCK_BOOTTIME in nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class RealtimeOffset:
    """The difference of CLOCK_REALTIME and CLOCK_BOOTTIME, read again for every timestamp.

    A Pi has no battery-backed clock, and the time of day is set from the network while the daemon
    runs. The clocks cannot be read at the same instant, so a reading gives a range: the offset of
    before is kept while it is inside. Otherwise two timestamps could change their order, and one
    converted while the thread was preempted would be wrong by milliseconds.
    """

    def __init__(self) -> None:
        self._offset_ns = 0

    def read_ns(self) -> int:
        """Return the offset in nanoseconds."""
        before_ns = boottime_ns()
        now_ns = time.time_ns()
        after_ns = boottime_ns()
        lowest_ns, highest_ns = now_ns - after_ns, now_ns - before_ns
        if not lowest_ns <= self._offset_ns <= highest_ns:
            self._offset_ns = lowest_ns if self._offset_ns < lowest_ns else highest_ns
        return self._offset_ns


_offset = RealtimeOffset()


def utc_of_boottime(timestamp_ns: int) -> str:
    """Return the time of day of a CLOCK_BOOTTIME timestamp, as `isoformat_utc` does."""
    return isoformat_utc(timestamp_ns + _offset.read_ns())


def isoformat_utc(realtime_ns: int) -> str:
    """Return nanoseconds since 1970 as `2026-01-31T12:00:00.123456Z`."""
    seconds, nanoseconds = divmod(realtime_ns, 1_000_000_000)
    # With a digit before, for leading zeros: `:06d` takes four times as long.
    return f"{_second(seconds)}.{str(1_000_000 + nanoseconds // 1000)[1:]}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    # Cached for a second: it takes 0.05 ms between two invocations of a model, which evict
    # `datetime` from the CPU caches.
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").removesuffix("+00:00")
