"""Options and logging that several subcommands share."""

import logging
import sys
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


class SingleLineFormatter(logging.Formatter):
    """Escapes control characters: text from outside cannot start a log line or move the cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Return the record without control characters, with further lines indented."""
        text = super().formatMessage(record)
        if text.isprintable():
            return text
        return "\n  ".join(
            "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
            for line in text.split("\n")
        )


def set_up_logging(level: str, *, debug: bool = False) -> None:
    """Log to stderr, one line a record; the journal of systemd adds the time."""
    under_systemd = not sys.stderr.isatty()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        SingleLineFormatter(
            "%(levelname)s %(message)s" if under_systemd else "%(asctime)s %(message)s", "%H:%M:%S"
        )
    )
    logging.basicConfig(
        level=logging.DEBUG if debug else level.upper(), handlers=[handler], force=True
    )


def debug_of(context: click.Context) -> bool:
    """Whether --debug was given."""
    root: Any = context.find_root().obj
    return bool(root)
