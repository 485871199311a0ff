"""Warnings about what others send: a few are said, a flood of them is only counted."""

import logging
from collections.abc import Callable
from typing import Final

_WINDOW_S: Final = 60.0
_MOST: Final = 10


class RateLimitedLogger:
    """Logs ten warnings a minute at most, and with the next one how many were left out.

    Anyone who may write to a topic could otherwise fill the disk with our log. Not thread-safe.
    """

    def __init__(self, log: logging.Logger, monotonic: Callable[[], float]) -> None:
        self._log = log
        self._monotonic = monotonic
        self._ends_s = float("-inf")
        self._said = 0
        self._left_out = 0

    def say(self, text: str, *arguments: object) -> None:
        """Log a warning, or count it."""
        now_s = self._monotonic()
        if now_s >= self._ends_s:
            if self._left_out:
                self._log.warning("%d more such orders were not logged", self._left_out)
            self._ends_s = now_s + _WINDOW_S
            self._said = self._left_out = 0
        if self._said < _MOST:
            self._said += 1
            self._log.warning(text, *arguments)
        else:
            self._left_out += 1
