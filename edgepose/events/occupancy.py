"""Presence and head count, without flicker."""

from collections import deque
from typing import Final

COUNT_INTERVAL_NS: Final = 1_000_000_000
"""The minimum time between two changes of a count above zero."""


class OccupancyDetector:
    """A debounced head count; present means a count above zero.

    The count rises once more poses were seen for `on_delay_ms`, counted from the first frame with
    them; the time before a frame without them then counts against it by half. So a false positive
    in one frame raises nothing at any frame rate, and a missed detection only delays the rise. The
    count falls once no frame had as many poses for `off_delay_ms`, to the most that any frame had,
    so people do not vanish with a missed detection.

    Timestamps are passed in and may repeat; one that goes back counts as the latest one. Each call
    takes the same short time whatever the delays.
    """

    def __init__(self, *, on_delay_ms: float = 300, off_delay_ms: float = 1000) -> None:
        self.set_delays(on_delay_ms=on_delay_ms, off_delay_ms=off_delay_ms)
        self.count = 0
        self._changed_at_ns = 0
        self._now_ns = 0
        self._frame_at_ns = 0
        self._frame_count = 0
        # How long, in effect, frames had more poses than the count, and the fewest of them.
        self._higher_count_ns = 0
        self._min_higher_count = 0
        # Decreasing pose counts, each higher than in all frames after it, with the time of the
        # first frame that had fewer; the last one is that of the newest frame.
        self._peaks: deque[tuple[int, int | None]] = deque()

    def set_delays(self, *, on_delay_ms: float, off_delay_ms: float) -> None:
        """Change the delays; presence and count stay."""
        self._on_delay_ns = round(on_delay_ms * 1e6)
        self._off_delay_ns = round(off_delay_ms * 1e6)

    @property
    def present(self) -> bool:
        """Whether the count is above zero."""
        return self.count > 0

    def update(self, poses: int, timestamp_ns: int) -> bool:
        """Add the next frame, with the number of its poses; return whether the count changed."""
        now_ns = self._advance(timestamp_ns)
        self._accumulate(poses, now_ns)
        self._push_peak(poses, now_ns)
        if poses > self.count and self._higher_count_ns >= self._on_delay_ns:
            return self._set_count(self._min_higher_count, now_ns)
        return self._apply_decrease(now_ns)

    def tick(self, timestamp_ns: int) -> bool:
        """Advance the time without a frame: the count may fall, but only a frame can raise it."""
        return self._apply_decrease(self._advance(timestamp_ns))

    def lost(self, timestamp_ns: int) -> bool:
        """Set the count to zero at once: the camera is closed or failed."""
        now_ns = self._advance(timestamp_ns)
        self._peaks.clear()
        self._frame_count = self._higher_count_ns = 0
        return self.present and self._set_count(0, now_ns)

    def _advance(self, timestamp_ns: int) -> int:
        self._now_ns = max(self._now_ns, timestamp_ns)
        return self._now_ns

    def _accumulate(self, poses: int, now_ns: int) -> None:
        """Update the time and the minimum of a higher count."""
        elapsed_ns = now_ns - self._frame_at_ns
        was_higher = self._frame_count > self.count
        self._frame_at_ns = now_ns
        self._frame_count = poses
        if poses <= self.count:
            self._higher_count_ns = max(0, self._higher_count_ns - elapsed_ns // 2)
        elif was_higher or self._higher_count_ns:
            self._higher_count_ns = min(self._on_delay_ns, self._higher_count_ns + elapsed_ns)
            self._min_higher_count = min(self._min_higher_count, poses)
        else:
            self._min_higher_count = poses

    def _push_peak(self, poses: int, now_ns: int) -> None:
        peaks = self._peaks
        while peaks and peaks[-1][0] <= poses:
            peaks.pop()
        if peaks and peaks[-1][1] is None:
            peaks[-1] = (peaks[-1][0], now_ns)
        peaks.append((poses, None))

    def _apply_decrease(self, now_ns: int) -> bool:
        while self._peaks:
            highest, over_at_ns = self._peaks[0]
            if over_at_ns is None or now_ns - over_at_ns < self._off_delay_ns:
                return highest < self.count and self._set_count(highest, now_ns)
            self._peaks.popleft()
        return False

    def _set_count(self, count: int, now_ns: int) -> bool:
        """Change the count; False if that must wait until COUNT_INTERVAL_NS has passed."""
        if self.count and count and now_ns - self._changed_at_ns < COUNT_INTERVAL_NS:
            return False
        self.count = count
        self._changed_at_ns = now_ns
        self._higher_count_ns = 0
        # The next rise starts with the poses that the newest frame has beyond the new count.
        self._min_higher_count = self._frame_count
        return True
