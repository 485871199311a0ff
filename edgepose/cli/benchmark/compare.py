"""`edgepose benchmark compare`: two results beside each other."""

import sys
from pathlib import Path

import click

from edgepose.cli.benchmark._files import check_writable


@click.command()
@click.argument("first", metavar="A.json", type=click.Path(path_type=Path))
@click.argument("second", metavar="B.json", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json", "markdown"]),
    default="table",
    show_default=True,
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the comparison there instead of to stdout.",
)
def command(first: Path, second: Path, output_format: str, output: Path | None) -> None:
    """Compare two files of `edgepose benchmark --format json`: devices, or versions.

    Says of each row whether B is faster or slower than A by more than the rounds of both disagree,
    which rows are in one file only, and what differs between the machines.
    """
    check_writable(output, "--output")

    # Late: NumPy, which a wrong command line need not wait for.
    from edgepose.benchmark import compare

    text = compare.rendered(compare.compare_files(first, second), output_format)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")
