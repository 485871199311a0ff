"""Which number of CPU threads is best for a model, from the times of frames at their own pace."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Final

ROUNDS: Final = 3
FRAMES: Final = 10
"""In a row with one number of threads; a round has as many with each number."""
SKIPPED: Final = 2
"""Frames after a change of threads, whose caches and threads are cold, that do not count."""
HOPELESS: Final = 1.5
"""A number of threads so much slower than the fastest one in a round is not tried further."""
TOLERANCE: Final = 1.1
BUSY: Final = 0.8


class ThreadTrial:
    """Tries numbers of threads in turn, in blocks of frames, and collects their times.

    Rounds alternate in direction, so that a change of load or clock affects all numbers alike. The
    largest number, which ran before, is the first.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = sorted(counts, reverse=True)
        self._blocks = list(self._counts)
        self._rounds_left = ROUNDS
        self._invoke_ns: dict[int, list[int]] = {count: [] for count in self._counts}
        self._interval_ns: dict[int, list[int]] = {count: [] for count in self._counts}
        self._frames = 0
        self._previous_ns = 0

    @property
    def count(self) -> int:
        """The number of threads for the next frame."""
        return self._blocks[0]

    @property
    def finished(self) -> bool:
        """Whether every number has been tried often enough."""
        return not self._blocks

    @property
    def invoke_ns(self) -> dict[int, float]:
        """The median time of an inference by number of threads."""
        return {count: statistics.median(self._invoke_ns[count]) for count in sorted(self._counts)}

    @property
    def interval_ns(self) -> float:
        """The mean time between two frames, with the number of threads that had most frames."""
        return min(statistics.mean(self._interval_ns[count]) for count in self._counts)

    def add(self, started_ns: int, ended_ns: int) -> None:
        """Add the times of an inference with `count` threads."""
        count = self.count
        self._frames += 1
        if self._frames > SKIPPED:
            self._invoke_ns[count].append(ended_ns - started_ns)
            self._interval_ns[count].append(started_ns - self._previous_ns)
        self._previous_ns = started_ns
        if self._frames == FRAMES:
            self._frames = 0
            del self._blocks[0]
            if not self._blocks:
                self._next_round()

    def _next_round(self) -> None:
        medians = self.invoke_ns
        fastest = min(medians.values())
        self._rounds_left -= 1
        left = [count for count in self._counts if medians[count] <= HOPELESS * fastest]
        if self._rounds_left and len(left) > 1:
            self._blocks = left[::-1] if self._rounds_left % 2 == 0 else left


def fewest_threads(invoke_ns: Mapping[int, float], interval_ns: float) -> int:
    """Return the fewest threads that are at most a tenth slower than the fastest number.

    `invoke_ns` is the median time of an inference by number of threads, `interval_ns` the time
    between two frames. A number with which inference takes more than four fifths of it may not keep
    up, and is passed over if another one takes less.
    """
    keeping_up = [count for count, ns in invoke_ns.items() if ns <= BUSY * interval_ns]
    slowest_ns = TOLERANCE * min(invoke_ns.values())
    return min(count for count in keeping_up or invoke_ns if invoke_ns[count] <= slowest_ns)
