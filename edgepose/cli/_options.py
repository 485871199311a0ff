"""Options and logging that several subcommands share."""

import logging
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import click

from edgepose.cli._terminal import discard, print_warning
from edgepose.config.loader import find_config_file, hidden_config_file
from edgepose.util.background import BackgroundWriter
from edgepose.util.redact import masked_text, masked_url
from edgepose.util.secrets import CAMERA_VARIABLE
from edgepose.util.text import printable, valid_text

MAX_PENDING_LINES: Final = 1000
FLUSH_TIMEOUT_S: Final = 2.0


def _warn_of_hidden_file(
    _context: click.Context, _parameter: click.Parameter, path: Path | None
) -> Path | None:
    if path is None and find_config_file() is None and (hidden := hidden_config_file()):
        print_warning(
            f"{hidden} is not readable for this user, so the built-in defaults are used; use sudo, "
            "or give another file with -c"
        )
    return path


config_option = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    callback=_warn_of_hidden_file,
    help="Configuration file; default: the user's, the system's, else the built-in defaults.",
)
model_option = click.option("--model", metavar="NAME", help="Model name, or a path to a .tflite.")
accelerator_option = click.option(
    "--accelerator",
    type=click.Choice(["auto", "cpu", "edgetpu", "replay"]),
    help="Accelerator of the model.",
)


def source_option(help_text: str) -> Callable[[Any], Any]:
    """Return the option `--source`, which warns of a password in it."""
    return click.option("--source", metavar="URI", callback=_warn_of_password, help=help_text)


def _warn_of_password(
    _context: click.Context, _parameter: click.Parameter, source: str | None
) -> str | None:
    if source is not None and masked_url(source) != source:
        print_warning(
            "--source contains a password, which lists of processes and shell histories show; "
            f"set the environment variable {CAMERA_VARIABLE} instead, or `password_file` of the "
            "camera in a configuration"
        )
    return source


def format_option(*formats: str) -> Callable[[Any], Any]:
    """Return the option `--format`; its default is the first format."""
    return click.option("--format", "output_format", type=click.Choice(formats), default=formats[0])


class SingleLineFormatter(logging.Formatter):
    """Escapes control characters: text from outside cannot start a log line or move the cursor.

    Passwords in URLs are masked, also in tracebacks, where libraries quote them.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record and its traceback without passwords."""
        return masked_text(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Return the record without control characters, with further lines indented."""
        lines = valid_text(super().formatMessage(record)).split("\n")
        return "\n  ".join(map(printable, lines))


class BackgroundHandler(logging.Handler):
    """Writes lines to a descriptor in a background thread: a journal that hangs delays no other.

    Lines that find the queue full are dropped, which the next line reports. The descriptor is
    duplicated, since stderr is redirected while a model loads.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = os.dup(descriptor)
        self._dropped = 0
        self._writer = BackgroundWriter(
            "log",
            self._write,
            max_pending=MAX_PENDING_LINES,
            on_end=lambda: os.close(self._descriptor),
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line of a record."""
        try:
            text = self.format(record) + "\n"
        except Exception:  # noqa: BLE001 - as in the handlers of logging
            self.handleError(record)
            return
        if self._dropped:
            text = f"WARNING {self._dropped} log lines were dropped: stderr is not read\n{text}"
        self._dropped = 0 if self._writer.submit(text) else self._dropped + 1

    def finish(self) -> bool:
        """Wait for the queued lines, 2 s at most, and return whether all are written."""
        return self._writer.close(FLUSH_TIMEOUT_S)

    def _write(self, text: str) -> None:
        data = text.encode(errors="backslashreplace")
        with suppress(OSError):
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:
                    select.select([], [self._descriptor], [])


@contextmanager
def background_logging(level: str) -> Iterator[None]:
    """Log to stderr, which delays no other thread; at the end, wait for it at most 2 s."""
    handler = BackgroundHandler(sys.stderr.fileno())
    set_up_logging(level, handler)
    try:
        yield
    finally:
        if not handler.finish():
            discard(sys.stderr)


def set_up_logging(level: str, handler: logging.Handler | None = None) -> None:
    """Log to stderr, one line a record, at debug level if the command has --debug."""
    # The journal of systemd adds the time.
    style = "%(asctime)s %(message)s" if sys.stderr.isatty() else "%(levelname)s %(message)s"
    handler = handler or logging.StreamHandler(sys.stderr)
    handler.setFormatter(SingleLineFormatter(style, "%H:%M:%S"))
    if click.get_current_context().find_root().obj:
        level = "debug"
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Each error of it is also raised, and its debug messages are about every chunk of a file.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
