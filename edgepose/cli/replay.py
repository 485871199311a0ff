"""`edgepose replay`: a recording back onto MQTT."""

import os
import sys
from pathlib import Path

import click

from edgepose.cli._options import debug_of, set_up_logging
from edgepose.mqtt.replay import check_recording, replay
from edgepose.mqtt.topics import check_base
from edgepose.mqtt.url import PASSWORD_VARIABLE, TlsFiles, parse_broker_url, read_password


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
    type=float,
    default=1.0,
    show_default=True,
    help="How many times as fast as recorded; 0 is without waiting.",
)
@click.option(
    "--base-topic", default="edgepose", show_default=True, help="What the topics begin with."
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The broker's password; without it the environment variable {PASSWORD_VARIABLE}.",
)
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Who signed the broker's certificate; without it the system's authorities.",
)
@click.pass_context
def command(
    context: click.Context,
    *,
    file: Path,
    mqtt: str,
    speed: float,
    base_topic: str,
    password_file: Path | None,
    ca_file: Path | None,
) -> None:
    """Publish the pose messages of FILE on MQTT again, with the timing they were recorded with.

    The topics are those of the recording, <base>/<node>/<camera>/poses; stop the node itself
    meanwhile, or subscribers see both.
    """
    # Late: paho takes a tenth of a second, which `--help` should not cost.
    from edgepose.sinks.mqtt import MqttPublisher

    set_up_logging("warning", debug=debug_of(context))
    check_recording(file, speed=speed)
    check_base(base_topic)
    address = parse_broker_url(mqtt)
    password = None
    if password_file is not None:
        password = read_password(file=password_file)
    elif os.environ.get(PASSWORD_VARIABLE):
        password = read_password(variable=PASSWORD_VARIABLE)
    publisher = MqttPublisher(
        address=address,
        # Not the node's own id, which would throw the node out.
        client_id=f"edgepose-replay-{os.getpid()}",
        password=password,
        tls=TlsFiles(ca_file=ca_file),
    )
    with publisher:
        summary = replay(file, publisher.send, speed=speed, base=base_topic)
    skipped = f", {summary.skipped} damaged lines skipped" if summary.skipped else ""
    print(f"replay: {summary.published} messages published{skipped}", file=sys.stderr)
