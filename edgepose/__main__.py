"""The `edgepose` command."""

import sys

from edgepose.daemon.signals import hold_signals


def main() -> None:
    """Run the command line and exit with its code."""
    if next((word for word in sys.argv[1:] if not word.startswith("-")), "") == "run":
        # First of all: the imports take up to seconds, and SIGHUP would end the process.
        hold_signals()
    from edgepose.cli.main import run_command

    sys.exit(run_command())


if __name__ == "__main__":
    main()
