"""How long to wait before the next attempt."""

from collections.abc import Callable


class Backoff:
    """Waits that double from `minimum_s` to `maximum_s`, each shortened at random to 50-100 %.

    The randomness keeps many nodes from connecting to a restarted broker at the same time.
    `random` returns 0..1.
    """

    def __init__(self, minimum_s: float, maximum_s: float, random: Callable[[], float]) -> None:
        self.maximum_s = maximum_s
        self._minimum_s = minimum_s
        self._next_s = minimum_s
        self._random = random

    def next_s(self) -> float:
        """Return the next wait in seconds and lengthen the one after it."""
        wait_s = self._next_s * (0.5 + 0.5 * self._random())
        self._next_s = min(self.maximum_s, self._next_s * 2)
        return wait_s

    def reset(self) -> None:
        """Begin again with the shortest wait."""
        self._next_s = self._minimum_s
