"""The command group, its errors and exit codes."""

import errno
import os
import sys
from collections.abc import Sequence
from typing import ClassVar

import click

from edgepose import __version__
from edgepose.cli._lazy import LazyGroup
from edgepose.errors import EdgeposeError


class _Edgepose(LazyGroup):
    package = "edgepose.cli"
    subcommands: ClassVar = {
        "run": "Run the daemon in the foreground.",
        "estimate": "Estimate the poses of pictures, folders and videos.",
        "benchmark": "Measure how fast and how accurate models are here.",
        "models": "List, inspect, fetch, check and build models.",
        "config": "Check and show the configuration.",
        "replay": "Publish a recording on MQTT again.",
        "demo": "Show poses arriving at a subscriber, with nothing configured.",
    }


@click.group(cls=_Edgepose, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgepose")
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
@click.pass_context
def cli(context: click.Context, *, debug: bool) -> None:
    """Turn camera frames into pose messages over MQTT."""
    context.obj = debug


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 wrong usage or config.

    Errors are one sentence on stderr; a traceback only with --debug.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    # --debug is understood wherever it stands, since it is added when something went wrong.
    words = [*(["--debug"] if debug else []), *(word for word in words if word != "--debug")]
    try:
        # Not cli.main: that ends with 1 where the reader of stdout leaves.
        with cli.make_context("edgepose", words) as root:
            cli.invoke(root)
        return 0
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.Abort:
        return _complain("interrupted", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return 2
    except click.ClickException as error:
        # click's own words for usage errors, with the command they belong to.
        context = getattr(error, "ctx", None)
        hint = f"; see `{context.command_path} --help`" if context is not None else ""
        return _complain(error.format_message().rstrip(".") + hint, 2)
    except EdgeposeError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            return _broken_pipe()
        if debug:
            raise
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:
        return _broken_pipe()
    except OSError as error:
        if error.errno == errno.EPIPE:
            return _broken_pipe()
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{error.strerror or error}", 1)
    except Exception as error:
        # A bug still owes the user a sentence.
        if debug:
            raise
        return _complain(
            f"unexpected {type(error).__name__}: {error}; this is a mistake in edgepose, "
            "run the same command with --debug for the details to report",
            1,
        )


def _complain(text: str, exit_code: int) -> int:
    print(f"edgepose: {text}", file=sys.stderr)
    return exit_code


def _broken_pipe() -> int:
    """End quietly when the reader of stdout left, as `head` does."""
    # Python flushes stdout once more at exit, which would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
