"""How long to wait before the next try."""

from collections.abc import Callable


class Backoff:
    """Waits that double from `minimum_s` to `maximum_s`, each shortened by chance to 50-100 %.

    The chance keeps a house full of nodes from knocking at a restarted broker all at once.
    `random` returns 0..1.
    """

    def __init__(self, minimum_s: float, maximum_s: float, random: Callable[[], float]) -> None:
        if not 0 < minimum_s <= maximum_s:
            raise ValueError(
                f"expected 0 < minimum <= maximum seconds, got {minimum_s} and {maximum_s}"
            )
        self.maximum_s = maximum_s
        self._minimum_s = minimum_s
        self._next_s = minimum_s
        self._random = random

    def next_s(self) -> float:
        """Return the next wait in seconds and make the one after it longer."""
        wait_s = self._next_s * (0.5 + 0.5 * self._random())
        self._next_s = min(self.maximum_s, self._next_s * 2)
        return wait_s

    def reset(self) -> None:
        """Begin again with the shortest wait."""
        self._next_s = self._minimum_s
