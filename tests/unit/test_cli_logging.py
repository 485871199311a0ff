"""A record is one line of the log, and an unread stderr delays no other thread."""

import logging
import os

import pytest

from edgepose.cli import _options
from edgepose.cli._options import BackgroundHandler, SingleLineFormatter
from edgepose.inference.runtime import redirect_native_stderr


def shown(text: str) -> str:
    record = logging.LogRecord("edgepose", logging.WARNING, "", 0, "%s", (text,), None)
    return SingleLineFormatter("%(levelname)s %(message)s").format(record)


def test_single_line_formatter_printable_text() -> None:
    """Printable text is unchanged."""
    assert shown("camera Küche: délivre à nouveau") == "WARNING camera Küche: délivre à nouveau"


def test_single_line_formatter_control_characters() -> None:
    """Text from outside can neither start a log line nor move the cursor."""
    assert shown("bad\r\nERROR all is lost\x1b[2J") == (
        "WARNING bad\\r\n  ERROR all is lost\\x1b[2J"
    )


def record_of(text: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("edgepose", logging.INFO, "", 0, text, arguments, None)


def test_background_handler_while_a_model_loads(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """What a runtime prints is logged for debugging; the log itself is not redirected."""
    caplog.set_level(logging.DEBUG)
    handler = BackgroundHandler(2)
    with redirect_native_stderr():
        os.write(2, b"INFO: printed by the runtime\n")
        handler.handle(record_of("camera main: switched off"))
        assert handler.finish()
    assert capfd.readouterr().err == "camera main: switched off\n"
    assert caplog.messages == ["runtime: INFO: printed by the runtime"]


def test_background_handler_writes_in_order() -> None:
    """What was logged before the end is written, in any encoding."""
    reader, writer = os.pipe()
    handler = BackgroundHandler(writer)
    texts = [*map(str, range(100)), "Küche", "\udcff"]
    for text in texts:
        handler.handle(record_of(text))
    assert handler.finish()
    os.close(writer)
    with os.fdopen(reader, "rb") as lines:
        assert lines.read() == "\n".join([*texts[:-1], "\\udcff", ""]).encode()


def test_background_handler_stderr_that_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are dropped; the first line after them has their number."""
    monkeypatch.setattr(_options, "MAX_PENDING_LINES", 2)
    reader, writer = os.pipe()
    handler = BackgroundHandler(writer)
    with os.fdopen(reader, "rb") as stderr:
        # Larger than pipe and buffer: it is still being written after its first byte was read.
        handler.handle(record_of("x" * 1_000_000))
        assert stderr.read(1) == b"x"
        for text in ("first", "second", "lost", "lost", "lost"):
            handler.handle(record_of(text))
        stderr.readline()
        assert stderr.readline() == b"first\n"
        assert stderr.readline() == b"second\n"
        handler.handle(record_of("after"))
        assert stderr.readline() == b"WARNING 3 log lines were dropped: stderr is not read\n"
        assert stderr.readline() == b"after\n"
        assert handler.finish()
    os.close(writer)


def test_background_handler_end_while_stderr_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_options, "FLUSH_TIMEOUT_S", 0.05)
    reader, writer = os.pipe()
    handler = BackgroundHandler(writer)
    handler.handle(record_of("x" * 1_000_000))
    assert not handler.finish()
    os.close(reader)
    os.close(writer)


def test_background_handler_survives_a_closed_stderr_and_a_bug() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    handler = BackgroundHandler(writer)
    handler.handle(record_of("into nothing"))
    handler.handle(record_of("%d", "no number"))
    assert handler.finish()
    os.close(writer)
