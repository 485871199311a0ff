"""Signals as flags that the main loop reads."""

import signal
from types import FrameType
from typing import Any, Final, Self

NUMBERS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def hold_signals() -> None:
    """Keep signals pending until `Signals` takes them; by default they would end the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)


class Signals:
    """SIGTERM and SIGINT ask to stop, SIGHUP to reload, while the `with` block runs.

    While `starting`, a request to stop exits at once, since there is nothing to close yet.
    """

    def __init__(self, *, starting: bool = False) -> None:
        self.starting = starting
        self.stop_requested = False
        self.reload_requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Install the handlers, and take the signals that were held."""
        for number in NUMBERS:
            self._previous[number] = signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, NUMBERS)
        return self

    def __exit__(self, *_error: object) -> None:
        """Restore the handlers that were there before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reload_requested = True
            return
        self.stop_requested = True
        if self.starting:
            raise SystemExit(0)
