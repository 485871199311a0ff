"""Whether somebody is there, and how many, without flicker."""

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """What is new: `present` and `count` are None where they stay as they were."""

    timestamp_ns: int
    present: bool | None
    count: int | None


class Presence:
    """A debounced head count; present is a count above zero, always.

    The count rises to the number that every frame of the last `on_delay_ms` saw, so a ghost in one
    frame raises nothing, and falls to the most that any frame of the last `off_delay_ms` saw, so a
    missed detection lowers nothing. Between two counts of people who are there, at least
    `count_interval_ms` pass. Time comes from the caller and may stand still but not run back: an
    earlier timestamp counts as the latest one.
    """

    def __init__(
        self,
        *,
        on_delay_ms: float = 300,
        off_delay_ms: float = 1000,
        count_interval_ms: float = 1000,
    ) -> None:
        if not (on_delay_ms >= 0 and off_delay_ms >= 0 and count_interval_ms >= 0):
            raise ValueError(
                "presence delays are 0 ms or more, got "
                f"{on_delay_ms}, {off_delay_ms} and {count_interval_ms}"
            )
        self._on_delay_ns = round(on_delay_ms * 1e6)
        self._off_delay_ns = round(off_delay_ms * 1e6)
        self._count_interval_ns = round(count_interval_ms * 1e6)
        self._count = 0
        self._changed_at_ns: int | None = None
        self._now_ns = 0
        # When each stretch of frames with the same count began; the first one may be cut short.
        self._stretches: deque[tuple[int, int]] = deque()

    @property
    def present(self) -> bool:
        """Whether somebody is there."""
        return self._count > 0

    @property
    def count(self) -> int:
        """How many are there."""
        return self._count

    def update(self, count: int, timestamp_ns: int) -> PresenceChange | None:
        """Take in how many poses the next frame has."""
        if count < 0:
            raise ValueError(f"a frame has 0 or more poses, got {count}")
        now_ns = self._advance(timestamp_ns)
        if not self._stretches or self._stretches[-1][1] != count:
            self._stretches.append((now_ns, count))
        self._forget_before(now_ns - max(self._on_delay_ns, self._off_delay_ns))
        lowest = min(self._counts_since(now_ns - self._on_delay_ns))
        if lowest > self._count:
            return self._become(lowest, now_ns)
        return self._fall(now_ns)

    def tick(self, timestamp_ns: int) -> PresenceChange | None:
        """Let time pass without a frame: the count may fall, but only a frame can raise it."""
        return self._fall(self._advance(timestamp_ns))

    def lost(self, timestamp_ns: int) -> PresenceChange | None:
        """Forget everybody at once: the camera is closed or gone, and nothing is known any more."""
        now_ns = self._advance(timestamp_ns)
        self._stretches.clear()
        return self._become(0, now_ns) if self._count else None

    def _advance(self, timestamp_ns: int) -> int:
        self._now_ns = max(self._now_ns, timestamp_ns)
        return self._now_ns

    def _fall(self, now_ns: int) -> PresenceChange | None:
        if not self._stretches:
            return None
        highest = max(self._counts_since(now_ns - self._off_delay_ns))
        return self._become(highest, now_ns) if highest < self._count else None

    def _become(self, count: int, now_ns: int) -> PresenceChange | None:
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
        return PresenceChange(now_ns, bool(count) if bool(count) != bool(before) else None, count)

    def _counts_since(self, start_ns: int) -> list[int]:
        """Return the counts that held at or after `start_ns`; before the first frame, nobody."""
        counts = []
        for began_ns, count in reversed(self._stretches):
            counts.append(count)
            if began_ns <= start_ns:
                return counts
        return [*counts, 0]

    def _forget_before(self, start_ns: int) -> None:
        stretches = self._stretches
        while len(stretches) > 1 and stretches[1][0] <= start_ns:
            stretches.popleft()
