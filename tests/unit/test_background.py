"""Writing on a background thread, behind a bounded queue."""

import threading

from edgepose.util.background import BackgroundWriter

PATIENCE_S = 10.0


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
