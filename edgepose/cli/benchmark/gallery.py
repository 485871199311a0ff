"""`edgepose benchmark gallery`: one table of the results that people sent."""

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default="docs/results")
@click.option("--check", is_flag=True, help="Write nothing; fail where the table is out of date.")
def command(folder: Path, *, check: bool) -> None:
    """Check every result in DIR (docs/results) and make its README.md, a table of them all."""
    # Late: NumPy, which a wrong command line need not wait for.
    from edgepose.benchmark import gallery

    gallery.update(folder, check=check)
