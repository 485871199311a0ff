"""How many persons are there, without flicker."""

from collections import deque
from typing import Final

COUNT_INTERVAL_NS: Final = 1_000_000_000
"""The minimum time between two changes of a count above zero."""


class HeadCount:
    """The most persons in any frame of the last `off_delay_ns`.

    So a person does not vanish with a missed detection, and one who is found again under another
    track id counts once, since no frame has both. The time of a frame lasts until the next one: a
    gap without frames does not mean that a person left. Between two changes above zero is at least
    COUNT_INTERVAL_NS. Times do not go back; each call takes the same short time whatever the delay.
    """

    def __init__(self, off_delay_ns: int) -> None:
        self.off_delay_ns = off_delay_ns
        self.value = 0
        self._changed_at_ns = 0
        # Decreasing numbers of persons, each higher than in all frames after it, with the time of
        # the first frame that had fewer; the last one is that of the newest frame.
        self._peaks: deque[tuple[int, int | None]] = deque()

    def update(self, persons: int, now_ns: int) -> None:
        """Add the next frame, with the number of persons in it."""
        peaks = self._peaks
        while peaks and peaks[-1][0] <= persons:
            peaks.pop()
        if peaks and peaks[-1][1] is None:
            peaks[-1] = (peaks[-1][0], now_ns)
        peaks.append((persons, None))
        self.tick(now_ns)
        if persons > self.value:
            self._set(persons, now_ns)

    def tick(self, now_ns: int) -> None:
        """Advance the time without a frame: the count may fall, but only a frame can raise it."""
        while self._peaks:
            highest, over_at_ns = self._peaks[0]
            if over_at_ns is None or now_ns - over_at_ns < self.off_delay_ns:
                if highest < self.value:
                    self._set(highest, now_ns)
                return
            self._peaks.popleft()

    def clear(self) -> None:
        """Set the count to zero, and forget all frames."""
        self._peaks.clear()
        self.value = 0

    def _set(self, value: int, now_ns: int) -> None:
        if self.value and value and now_ns - self._changed_at_ns < COUNT_INTERVAL_NS:
            return
        self.value = value
        self._changed_at_ns = now_ns
