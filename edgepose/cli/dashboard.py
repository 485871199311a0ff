"""`edgepose dashboard`: live skeletons in a browser, from MQTT only."""

from pathlib import Path

import click

from edgepose.cli._options import config_option, set_up_logging
from edgepose.cli._terminal import print_on_stderr
from edgepose.config.loader import find_config_file, load_config
from edgepose.dashboard.process import serve


@click.command()
@config_option
@click.option("--mqtt", "url", metavar="URL", help="The broker, instead of the configured one.")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Address of the page; default: that of the configuration, else 127.0.0.1:8080.",
)
@click.option(
    "--token-file",
    metavar="FILE",
    help="A file with the token that opens the page; required if others can reach the address.",
)
def command(
    *, config_path: Path | None, url: str | None, listen: str | None, token_file: str | None
) -> None:
    """Serve a page with the live skeletons and states of every node on the broker.

    It needs no camera and runs on any machine. Ctrl-C stops it.
    """
    overrides = {"mqtt.url": url, "dashboard.listen": listen, "dashboard.token_file": token_file}
    config = load_config(find_config_file(config_path), overrides)
    set_up_logging("warning")
    serve(config, lambda address: print_on_stderr(f"dashboard: {address}"))
