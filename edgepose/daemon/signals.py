"""Signals as flags that the main loop reads."""

import signal
from types import FrameType
from typing import Any, Self


class Signals:
    """SIGTERM and SIGINT ask to stop, SIGHUP to reload, while the `with` block runs."""

    def __init__(self) -> None:
        self.stop_requested = False
        self.reload_requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Install the handlers."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_error: object) -> None:
        """Restore the handlers that were there before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reload_requested = True
        else:
            self.stop_requested = True
