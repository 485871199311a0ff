"""Work in background threads: one call, or writing behind a bounded queue."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Final, Generic, TypeVar

from edgepose.errors import EdgeposeError

IDLE_S: Final = 1.0

T = TypeVar("T")


def run_in_background(name: str, call: Callable[[], T]) -> Future[T]:
    """Call a function in a thread that the exit of the process does not wait for."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - `result` raises it
            future.set_exception(error)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        future.set_exception(EdgeposeError(f"{name}: no thread can be started ({error})"))
    return future


class BackgroundWriter(Generic[T]):
    """Calls `write` for each item, in order, in a background thread.

    A blocked disk or pipe delays no caller of `submit`: at most `max_pending` items wait, further
    ones are dropped. `on_idle` is called after a second without an item, and `on_end` last, if
    there was an item at all. What `write` raises ends the thread and is kept in `failure`; later
    items are dropped.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[T], None],
        *,
        max_pending: int,
        on_idle: Callable[[], None] | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.failure: Exception | None = None
        self._write = write
        self._on_idle = on_idle
        self._on_end = on_end
        self._max_pending = max_pending
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def submit(self, item: T) -> bool:
        """Queue an item; return False if it was dropped."""
        with self._changed:
            if self._closing or self.failure or len(self._items) >= self._max_pending:
                return False
            if self._thread.ident is None:
                try:
                    self._thread.start()
                except RuntimeError:
                    # The limit of tasks is reached; the next item tries again.
                    return False
            self._items.append(item)
            self._changed.notify()
            return True

    def close(self, timeout_s: float) -> bool:
        """Accept no more items and wait for the queued ones; return False if some are left."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                stack.callback(self._on_end)
                while (item := self._next()) is not None:
                    self._write(item)
        except Exception as error:  # noqa: BLE001 - the next `submit` reports it
            self.failure = error

    def _next(self) -> T | None:
        """Return the next item, or None at the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._closing, IDLE_S)
                if self._items:
                    return self._items.popleft()
                if self._closing:
                    return None
            if self._on_idle is not None:
                self._on_idle()
