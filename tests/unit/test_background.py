"""Writing on a background thread, behind a bounded queue."""

import threading
from collections.abc import Callable
from threading import current_thread

import pytest

from edgepose.errors import EdgeposeError
from edgepose.util.background import BackgroundWriter, run_in_background

PATIENCE_S = 60.0


class SlowWriter:
    """Writes into a list, and blocks until the test sets `go_on`."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, item: int) -> None:
        self.entered.set()
        assert self.go_on.wait(PATIENCE_S)
        self.written.append(item)


def test_background_writer_keeps_the_order() -> None:
    written: list[int] = []
    writer = BackgroundWriter("test", written.append, max_pending=100)
    assert all(writer.submit(number) for number in range(100))
    assert writer.close(PATIENCE_S)
    assert written == list(range(100))


def test_background_writer_drops_when_full() -> None:
    slow = SlowWriter()
    writer = BackgroundWriter("test", slow, max_pending=2)
    writer.submit(0)
    assert slow.entered.wait(PATIENCE_S)
    assert [writer.submit(number) for number in (1, 2, 3, 4)] == [True, True, False, False]
    assert not writer.close(0.05), "it is blocked, and close does not wait for it"
    slow.go_on.set()
    assert writer.close(PATIENCE_S)
    assert slow.written == [0, 1, 2]
    assert not writer.submit(5)


def test_background_writer_keeps_its_failure() -> None:
    error = OSError("disk full")

    def fail(_item: int) -> None:
        raise error

    writer = BackgroundWriter("test", fail, max_pending=5)
    writer.submit(0)
    assert writer.close(PATIENCE_S)
    assert writer.failure is error
    assert not writer.submit(1)


def test_background_writer_calls_on_idle() -> None:
    idle = threading.Event()
    writer: BackgroundWriter[int] = BackgroundWriter(
        "test", lambda _item: None, max_pending=5, on_idle=idle.set
    )
    writer.submit(0)
    assert idle.wait(PATIENCE_S)
    assert writer.close(PATIENCE_S)


def test_background_writer_close_without_items() -> None:
    writer: BackgroundWriter[int] = BackgroundWriter("test", lambda _: None, max_pending=1)
    assert writer.close(0)


def test_background_writer_calls_on_end_in_its_thread() -> None:
    """After the last item, and after a failure; without an item there is nothing to end."""
    ended: list[str] = []

    def writer(write: Callable[[int], None]) -> BackgroundWriter[int]:
        return BackgroundWriter(
            "test", write, max_pending=5, on_end=lambda: ended.append(current_thread().name)
        )

    def fail(_item: int) -> None:
        raise OSError("disk full")

    assert writer(fail).close(PATIENCE_S)
    assert ended == []
    for write in (lambda _item: None, fail):
        failing = writer(write)
        failing.submit(0)
        assert failing.close(PATIENCE_S)
    assert ended == ["test", "test"]


def test_background_writer_without_a_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """The item is dropped, the next one tries again."""
    written: list[int] = []
    writer = BackgroundWriter("test", written.append, max_pending=5)

    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert not writer.submit(0)
    assert writer.submit(1)
    assert writer.close(PATIENCE_S)
    assert written == [1]


def test_run_in_background_returns_what_the_call_returns_or_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    assert run_in_background("test", lambda: current_thread().name).result(PATIENCE_S) == "test"
    with pytest.raises(ZeroDivisionError):
        run_in_background("test", lambda: 1 // 0).result(PATIENCE_S)
    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(EdgeposeError, match="no thread can be started"):
        run_in_background("test", lambda: None).result(PATIENCE_S)
