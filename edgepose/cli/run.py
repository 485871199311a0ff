"""`edgepose run`: the daemon in the foreground."""

import faulthandler
import os
from pathlib import Path

import click

from edgepose.cli._options import (
    accelerator_option,
    background_logging,
    config_option,
    model_option,
    source_option,
)
from edgepose.cli._terminal import print_warning
from edgepose.config.exposure import exposed_secrets
from edgepose.config.loader import find_config_file, load_config
from edgepose.daemon.app import launch
from edgepose.util.process import limit_memory_arenas
from edgepose.util.redact import masked_url


@click.command()
@config_option
@source_option("picamera:0, /dev/video0, rtsp://..., synthetic:, an image, video or folder.")
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
    # Not on descriptor 2, which is redirected while a model loads.
    faulthandler.enable(os.dup(2))
    limit_memory_arenas()
    overrides: dict[str, object] = {
        "cameras.0.source": source,
        "model.name": model,
        "accelerator": accelerator,
        "mqtt.url": mqtt,
    }
    path = find_config_file(config_path)
    config = load_config(path, overrides)
    # The option itself has warned of a password that is not in the file.
    in_file = source is None or masked_url(source) == source
    for warning in exposed_secrets(config, path if in_file else None):
        print_warning(warning)
    with background_logging(config.log.level):
        launch(lambda: load_config(path, overrides), config_file=path)
