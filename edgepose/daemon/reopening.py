"""How long to wait before a camera is opened again, and which of its failures are logged."""

import random
from typing import Final

from edgepose.errors import SourceError, SourceLoginError

FIRST_PAUSE_NS: Final = 1_000_000_000
LAST_PAUSE_NS: Final = 3_000_000_000
"""Opening an absent camera costs little, and one that is back is to be online within 5 s."""
STABLE_NS: Final = 30_000_000_000
MAX_UNSTABLE: Final = 3
LAST_UNSTABLE_PAUSE_NS: Final = 60_000_000_000
FIRST_LOGIN_PAUSE_NS: Final = 60_000_000_000
"""Cameras lock an account after a few refused logins."""
LAST_LOGIN_PAUSE_NS: Final = 300_000_000_000
MAX_LOGGED: Final = 16


class Reopening:
    """Pauses that double, and failures that are logged once, until the camera was online for 30 s.

    They end at 3 s, at 5 minutes if the camera refuses the login, and at a minute if it was online
    for less than 30 s more than three times in a row: one that comes and goes every second would
    flood logs and subscribers.
    """

    def __init__(self) -> None:
        self._next_ns = FIRST_PAUSE_NS
        self._online_since_ns: int | None = None
        self._unstable = 0
        self._logged: set[str] = set()

    def online(self, now_ns: int) -> None:
        """Note that the camera delivers frames."""
        self._online_since_ns = now_ns

    def failed(self, now_ns: int) -> bool:
        """Note a failure; return whether the camera has become an unstable one with it."""
        since_ns, self._online_since_ns = self._online_since_ns, None
        if since_ns is None:
            return False
        if now_ns - since_ns >= STABLE_NS:
            self._next_ns, self._unstable = FIRST_PAUSE_NS, 0
            self._logged.clear()
            return False
        self._unstable += 1
        return self._unstable == MAX_UNSTABLE + 1

    def is_new(self, error: SourceError) -> bool:
        """Return whether to log a failure."""
        text = str(error)
        if text in self._logged or len(self._logged) >= MAX_LOGGED:
            return False
        self._logged.add(text)
        return True

    def pause_ns(self, error: SourceError) -> int:
        """Return how long to wait after a failure, and lengthen the next pause."""
        first_ns, last_ns = FIRST_PAUSE_NS, LAST_PAUSE_NS
        if isinstance(error, SourceLoginError):
            first_ns, last_ns = FIRST_LOGIN_PAUSE_NS, LAST_LOGIN_PAUSE_NS
        elif self._unstable > MAX_UNSTABLE:
            last_ns = LAST_UNSTABLE_PAUSE_NS
        pause_ns = max(first_ns, min(self._next_ns, last_ns))
        self._next_ns = 2 * pause_ns
        # Jitter keeps several cameras on one hub from being opened at the same instant.
        return round(pause_ns * random.uniform(0.8, 1.2))  # noqa: S311
