"""`edgepose config`: check and show the configuration, print a sample and the JSON Schema."""

from pathlib import Path

import click
import yaml

from edgepose.cli._options import config_option, format_option
from edgepose.cli._terminal import print_json, print_warning
from edgepose.config.exposure import exposed_secrets
from edgepose.config.loader import find_config_file, load_config


@click.group()
def command() -> None:
    """Check and show the configuration.

    Without -c it is the user's ($XDG_CONFIG_HOME/edgepose/config.yaml), else the system's
    (/etc/edgepose/config.yaml), else the built-in defaults.
    """


@command.command()
@config_option
def check(*, config_path: Path | None) -> None:
    """Report all errors with line, key and suggestion; exit with 2 if there is one.

    Also warn of secrets that every user of this machine may read.
    """
    path = find_config_file(config_path)
    for warning in exposed_secrets(load_config(path), path):
        print_warning(warning)
    click.echo(f"{path or 'built-in defaults'}: no errors", err=True)


@command.command()
@config_option
@format_option("yaml", "json")
def show(*, config_path: Path | None, output_format: str) -> None:
    """Print the configuration in effect, with defaults and derived values, secrets masked."""
    path = find_config_file(config_path)
    config = load_config(path)
    values = config.masked_values()
    values["node"] = config.node_name
    values["mqtt"]["client_id"] = config.client_id
    values["mqtt"]["username"] = config.mqtt.address.username
    values["state_directory"] = str(config.state_path)
    click.echo(f"# {path or 'built-in defaults'}", err=True)
    if output_format == "json":
        print_json(values)
    else:
        click.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)


@command.command()
def sample() -> None:
    """Print a configuration with every key, its default and its meaning."""
    from edgepose.config.reference import sample_text

    click.echo(sample_text(), nl=False)


@command.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from edgepose.config.reference import json_schema

    print_json(json_schema())
