"""Options and logging that several subcommands share."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

config_option = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Configuration file; default: the user's, the system's, else the built-in defaults.",
)
model_option = click.option("--model", metavar="NAME", help="Model name, or a path to a .tflite.")
accelerator_option = click.option(
    "--accelerator",
    type=click.Choice(["auto", "cpu", "edgetpu", "replay"]),
    help="Accelerator of the model.",
)


def format_option(*formats: str) -> Callable[[Any], Any]:
    """Return the option `--format`; its default is the first format."""
    return click.option("--format", "output_format", type=click.Choice(formats), default=formats[0])


class SingleLineFormatter(logging.Formatter):
    """Escapes control characters: text from outside cannot start a log line or move the cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Return the record without control characters, with further lines indented."""
        return "\n  ".join(
            "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
            for line in super().formatMessage(record).split("\n")
        )


def set_up_logging(level: str) -> None:
    """Log to stderr, one line a record, at debug level if the command has --debug."""
    # The journal of systemd adds the time.
    style = "%(asctime)s %(message)s" if sys.stderr.isatty() else "%(levelname)s %(message)s"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SingleLineFormatter(style, "%H:%M:%S"))
    if click.get_current_context().find_root().obj:
        level = "debug"
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
