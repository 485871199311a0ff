"""Options that several subcommands share."""

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
    help="Configuration file; without it the user's, the machine's, else the defaults.",
)
model_option = click.option("--model", metavar="NAME", help="Model name, or a path to a .tflite.")
accelerator_option = click.option(
    "--accelerator", type=click.Choice(["auto", "cpu", "edgetpu"]), help="What runs the model."
)


def set_up_logging(level: str, *, debug: bool = False) -> None:
    """Log to stderr, one line an event; systemd's journal adds the time itself."""
    under_systemd = not sys.stderr.isatty()
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if debug else level.upper(),
        format="%(levelname)s %(message)s" if under_systemd else "%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )


def debug_of(context: click.Context) -> bool:
    """Whether --debug stands on the command line."""
    root: Any = context.find_root().obj
    return bool(root)
