"""The `edgepose` command."""

import sys

from edgepose.cli.main import run_command


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run_command())


if __name__ == "__main__":
    main()
