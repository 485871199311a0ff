"""How processes end."""

import contextlib
import signal


def exit_description(code: int) -> str:
    """Return how a process ended, after its name: `ended with code 3`, `was ended by SIGABRT`."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
