"""Whether somebody is there, and how many, without flicker."""

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OccupancyChange:
    """What is new: the `count` from now on, and `present` or None where that stays as it was."""

    timestamp_ns: int
    present: bool | None
    count: int


class OccupancyDetector:
    """A debounced head count; present is a count above zero, always.

    The count rises once more people were seen for `on_delay_ms`, counted from the first frame that
    saw them; the time before a frame that missed them then counts against it by half. So a ghost in
    one frame raises nothing, at any frame rate, and a missed detection only slows the rise. It
    falls once no frame saw as many for `off_delay_ms`, to the most that one did see, so people do
    not vanish with a missed detection.
    Between two counts of people who are there, at least `count_interval_ms` pass.

    Time comes from the caller and may stand still but not run back: an earlier timestamp counts as
    the latest one. Each call takes the same short time whatever the delays.
    """

    def __init__(
        self,
        *,
        on_delay_ms: float = 300,
        off_delay_ms: float = 1000,
        count_interval_ms: float = 1000,
    ) -> None:
        if not count_interval_ms >= 0:
            raise ValueError(f"expected a count interval of 0 ms or more, got {count_interval_ms}")
        self.set_delays(on_delay_ms=on_delay_ms, off_delay_ms=off_delay_ms)
        self._count_interval_ns = round(count_interval_ms * 1e6)
        self._count = 0
        self._changed_at_ns: int | None = None
        self._now_ns = 0
        self._frame_at_ns = 0
        self._seen = 0
        self._more_for_ns = 0
        self._fewest_of_more = 0
        # Falling counts, each higher than all frames after it, with the time of the first frame
        # that saw fewer; the last one is what the newest frame saw.
        self._peaks: deque[tuple[int, int | None]] = deque()

    def set_delays(self, *, on_delay_ms: float, off_delay_ms: float) -> None:
        """Change the delays; presence and count stay. Raises ValueError for a negative one."""
        if not (on_delay_ms >= 0 and off_delay_ms >= 0):
            raise ValueError(
                f"expected presence delays of 0 ms or more, got {on_delay_ms} and {off_delay_ms}"
            )
        self._on_delay_ns = round(on_delay_ms * 1e6)
        self._off_delay_ns = round(off_delay_ms * 1e6)

    @property
    def present(self) -> bool:
        """Whether somebody is there."""
        return self._count > 0

    @property
    def count(self) -> int:
        """How many are there."""
        return self._count

    def update(self, count: int, timestamp_ns: int) -> OccupancyChange | None:
        """Take in how many poses the next frame has."""
        if count < 0:
            raise ValueError(f"a frame has 0 or more poses, got {count}")
        now_ns = self._advance(timestamp_ns)
        self._weigh(count, now_ns)
        self._remember(count, now_ns)
        if count > self._count and self._more_for_ns >= self._on_delay_ns:
            return self._become(self._fewest_of_more, now_ns)
        return self._fall(now_ns)

    def tick(self, timestamp_ns: int) -> OccupancyChange | None:
        """Let time pass without a frame: the count may fall, but only a frame can raise it."""
        return self._fall(self._advance(timestamp_ns))

    def lost(self, timestamp_ns: int) -> OccupancyChange | None:
        """Forget everybody at once: the camera is closed or gone, and nothing is known any more."""
        now_ns = self._advance(timestamp_ns)
        self._peaks.clear()
        self._seen = self._more_for_ns = 0
        return self._become(0, now_ns) if self._count else None

    def _advance(self, timestamp_ns: int) -> int:
        self._now_ns = max(self._now_ns, timestamp_ns)
        return self._now_ns

    def _weigh(self, count: int, now_ns: int) -> None:
        """Gather what speaks for more people than are said to be there."""
        since_ns = now_ns - self._frame_at_ns
        saw_more = self._seen > self._count
        self._frame_at_ns = now_ns
        self._seen = count
        if count <= self._count:
            self._more_for_ns = max(0, self._more_for_ns - since_ns // 2)
        elif saw_more or self._more_for_ns:
            self._more_for_ns = min(self._on_delay_ns, self._more_for_ns + since_ns)
            self._fewest_of_more = min(self._fewest_of_more, count)
        else:
            self._fewest_of_more = count

    def _remember(self, count: int, now_ns: int) -> None:
        peaks = self._peaks
        while peaks and peaks[-1][0] <= count:
            peaks.pop()
        if peaks and peaks[-1][1] is None:
            peaks[-1] = (peaks[-1][0], now_ns)
        peaks.append((count, None))

    def _fall(self, now_ns: int) -> OccupancyChange | None:
        peaks = self._peaks
        while peaks:
            highest, over_at_ns = peaks[0]
            if over_at_ns is None or now_ns - over_at_ns < self._off_delay_ns:
                return self._become(highest, now_ns) if highest < self._count else None
            peaks.popleft()
        return None

    def _become(self, count: int, now_ns: int) -> OccupancyChange | None:
        before = self._count
        if (
            before
            and count
            and self._changed_at_ns is not None
            and now_ns - self._changed_at_ns < self._count_interval_ns
        ):
            return None
        self._count = count
        self._changed_at_ns = now_ns
        self._more_for_ns = 0
        # What the newest frame saw beyond the new count is where the next rise begins.
        self._fewest_of_more = self._seen
        return OccupancyChange(now_ns, bool(count) if bool(count) != bool(before) else None, count)
