"""The command group, error messages and exit codes."""

import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final

import click

from edgepose import __version__
from edgepose.cli._terminal import discard, flush_or_discard, print_error, print_on_stderr
from edgepose.errors import EdgeposeError

SUBCOMMANDS: Final = {
    "run": "Run the daemon in the foreground.",
    "estimate": "Estimate the poses in images, folders and videos.",
    "benchmark": "Measure speed and accuracy of models on this machine.",
    "models": "List, inspect, download, check and build models.",
    "config": "Check and show the configuration.",
    "replay": "Publish a recording on MQTT.",
    "dashboard": "Serve a page with live skeletons and states.",
    "setup": "Ask for camera and broker, and write a configuration.",
    "doctor": "Check what is there and what is missing, with the remedy.",
    "demo": "Run without configuration, with the live page.",
}
_SETTINGS: Final = {"help_option_names": ["-h", "--help"], "show_default": True}


class _LazyGroup(click.Group):
    """Imports the module of a subcommand on demand: all of them take half a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the help."""
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a subcommand; None for an unknown name."""
        if cmd_name not in SUBCOMMANDS:
            return None
        command: click.Command = importlib.import_module(f"edgepose.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="edgepose")
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
@click.pass_context
def cli(context: click.Context, *, debug: bool) -> None:
    """Turn camera frames into pose messages over MQTT."""
    context.obj = debug


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 wrong usage or config.

    An error is one line on stderr, with a traceback only if --debug is given.
    """
    _open_standard_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    # --debug is accepted at any position: it is usually appended after a failure.
    words = [*(["--debug"] if debug else []), *(word for word in words if word != "--debug")]
    try:
        # Not cli.main, which exits with 1 if the reader closes stdout.
        with cli.make_context("edgepose", words) as root:
            cli.invoke(root)
        return 0
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _print_error("interrupted", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        print_on_stderr(error.format_message())
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"; see `{context.command_path} --help`" if context is not None else ""
        return _print_error(error.format_message().rstrip(".") + hint, 2)
    except Exception as error:  # noqa: BLE001 - all are printed, none with a password
        if isinstance(error, BrokenPipeError) and not isinstance(error, EdgeposeError):
            # The reader closed stdout, as `head` does.
            discard(sys.stdout)
            return 0
        if isinstance(error, OSError):
            flush_or_discard(sys.stdout)
        if debug:
            print_on_stderr("".join(traceback.format_exception(error)).rstrip())
            return getattr(error, "exit_code", 1)
        return _print_error(_message(error), getattr(error, "exit_code", 1))


def _open_standard_streams() -> None:
    """Open descriptors 0 to 2 that are closed: the next file opened would take their place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    # UTF-8 in any locale, as JSON demands. On stdout, names of files keep the bytes they have.
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)


def _message(error: Exception) -> str:
    if isinstance(error, EdgeposeError):
        return str(error)
    if isinstance(error, FileNotFoundError) and error.filename is None:
        # From `os.getcwd`; all others have a name.
        return "the current directory was deleted; change to another one"
    if isinstance(error, OSError):
        # Only an open file has no name here, which is stdout nearly always.
        place = error.filename or "cannot write to stdout or another open file"
        return f"{place}: {error.strerror or error}"
    return (
        f"internal error in edgepose ({type(error).__name__}: {error}): run the same command with "
        "--debug for a traceback to report"
    )


def _print_error(text: str, exit_code: int) -> int:
    print_error(text)
    return exit_code
