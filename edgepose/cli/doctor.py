"""`edgepose doctor`: what is there, what is missing, and the one remedy."""

from pathlib import Path

import click
import msgspec

from edgepose.cli._options import config_option, format_option
from edgepose.cli._terminal import print_json
from edgepose.diagnostics.report import Report
from edgepose.diagnostics.runner import run_checks
from edgepose.util.text import printable


@click.command()
@config_option
@format_option("table", "json")
def command(*, config_path: Path | None, output_format: str) -> None:
    """Check camera, model, Edge TPU, broker, disk, clock and service; takes at most 10 s.

    Each check is ok, a warning, an error (the configured pipeline cannot run), or skipped. The exit
    code is 1 if there is an error.
    """
    report = run_checks(config_path)
    if output_format == "json":
        print_json(msgspec.to_builtins(report))
    else:
        _print(report)
    if not report.ok:
        raise click.exceptions.Exit(1)


def _print(report: Report) -> None:
    width = max(len(check.name) for check in report.checks)
    for check in report.checks:
        lines = check.message.split("\n")
        click.echo(f"{check.status:8} {check.name:{width}}  {printable(lines[0])}")
        for line in (*lines[1:], *([f"-> {check.remedy}"] if check.remedy else [])):
            click.echo(f"{'':{width + 11}}{printable(line.strip())}")
