"""`edgepose run`: the daemon in the foreground."""

import faulthandler
from pathlib import Path

import click

from edgepose.cli._options import (
    accelerator_option,
    background_logging,
    config_option,
    model_option,
)
from edgepose.config.loader import find_config_file, load_config
from edgepose.daemon.app import launch


@click.command()
@config_option
@click.option(
    "--source",
    metavar="URI",
    help="picamera:0, /dev/video0, rtsp://..., synthetic:, an image, video or folder.",
)
@model_option
@accelerator_option
@click.option("--mqtt", metavar="URL", help="mqtt://[user@]host:port of the broker.")
def command(
    *,
    config_path: Path | None,
    source: str | None,
    model: str | None,
    accelerator: str | None,
    mqtt: str | None,
) -> None:
    """Run the daemon in the foreground until SIGTERM, SIGINT or the end of every file.

    Flags override the configuration file. SIGHUP reloads the file and keeps the MQTT connection.
    """
    # On SIGABRT, which the watchdog of systemd sends, the journal gets the stack of each thread.
    faulthandler.enable(2)
    overrides: dict[str, object] = {
        "cameras.0.source": source,
        "model.name": model,
        "accelerator": accelerator,
        "mqtt.url": mqtt,
    }
    path = find_config_file(config_path)
    with background_logging(load_config(path, overrides).log.level):
        launch(lambda: load_config(path, overrides), config_file=path)
