"""Warnings about what others send: a few are logged, the rest of a flood is counted."""

import logging
from collections.abc import Callable
from typing import Final

_WINDOW_S: Final = 60.0
_MOST: Final = 10


class RateLimitedLogger:
    """Logs at most ten warnings a minute, and how many were left out with the next one.

    Any client that may write to a topic could otherwise fill the disk with our log. Not
    thread-safe.
    """

    def __init__(self, log: logging.Logger, monotonic: Callable[[], float]) -> None:
        self._log = log
        self._monotonic = monotonic
        self._ends_s = float("-inf")
        self._logged = 0
        self._left_out = 0

    def warning(self, text: str, *arguments: object) -> None:
        """Log a warning, or count it."""
        now_s = self._monotonic()
        if now_s >= self._ends_s:
            if self._left_out:
                self._log.warning("%d more invalid commands were not logged", self._left_out)
            self._ends_s = now_s + _WINDOW_S
            self._logged = self._left_out = 0
        if self._logged < _MOST:
            self._logged += 1
            self._log.warning(text, *arguments)
        else:
            self._left_out += 1
