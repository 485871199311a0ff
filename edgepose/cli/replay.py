"""`edgepose replay`: publish a recording on MQTT."""

import os
import sys
from pathlib import Path

import click

from edgepose.cli._options import set_up_logging
from edgepose.mqtt.options import ConnectOptions, TlsFiles
from edgepose.mqtt.replay import read_recording, replay
from edgepose.mqtt.topics import check_base
from edgepose.mqtt.url import PASSWORD_VARIABLE, Secret, parse_broker_url, read_password_file


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--mqtt",
    metavar="URL",
    default="mqtt://localhost:1883",
    show_default=True,
    help="mqtt://[user@]host:port of the broker, or mqtts:// for TLS.",
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Factor of the recorded speed; 0 publishes without waiting.",
)
@click.option("--base-topic", default="edgepose", show_default=True, help="Prefix of the topics.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"File with the broker's password; default: the environment variable {PASSWORD_VARIABLE}.",
)
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Certificate authority of the broker; default: those of the system.",
)
def command(
    *,
    file: Path,
    mqtt: str,
    speed: float,
    base_topic: str,
    password_file: Path | None,
    ca_file: Path | None,
) -> None:
    """Publish the pose messages of FILE on MQTT with the recorded timing.

    The topics are those of the recording, <base>/<node>/<camera>/poses. Stop the node itself
    meanwhile, or subscribers receive the messages of both.
    """
    # Imported on demand: paho takes 0.1 s, which `--help` should not need.
    from edgepose.sinks.mqtt import MqttPublisher

    set_up_logging("warning")
    # An error here comes before the connection.
    next(read_recording(file, lambda _problem: None))
    check_base(base_topic)
    address = parse_broker_url(mqtt)
    password = None
    if password_file is not None:
        password = read_password_file(password_file)
    elif variable := os.environ.get(PASSWORD_VARIABLE):
        password = Secret(variable)
    # Not the id of the node, which the broker would disconnect.
    client_id = f"edgepose-replay-{os.getpid()}"
    options = ConnectOptions(address, client_id, password, TlsFiles(ca_file=ca_file))
    with MqttPublisher(options) as publisher:
        published, skipped = replay(file, publisher.send, speed=speed, base=base_topic)
    invalid = f", {skipped} invalid lines skipped" if skipped else ""
    print(f"replay: {published} messages published{invalid}", file=sys.stderr)
