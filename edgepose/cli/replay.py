"""`edgepose replay`: publish a recording on MQTT."""

import secrets
from contextlib import closing
from pathlib import Path

import click

from edgepose.cli._options import set_up_logging
from edgepose.cli._terminal import print_on_stderr
from edgepose.config.schema import MqttConfig, TlsConfig
from edgepose.errors import SourceError, UsageError
from edgepose.mqtt.replay import Recording, replay
from edgepose.mqtt.topics import check_base
from edgepose.util.secrets import MQTT_VARIABLE


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--mqtt",
    metavar="URL",
    default="mqtt://localhost:1883",
    help="mqtt://[user@]host:port of the broker, or mqtts:// for TLS.",
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0),
    default=1.0,
    help="Factor of the recorded speed; 0 publishes without waiting.",
)
@click.option("--base-topic", default="edgepose", help="Prefix of the topics.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"File with the broker's password; default: the environment variable {MQTT_VARIABLE}.",
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

    FILE may be a pipe. A pause is cut to 30 s; where the clock was set back, there is none.

    The topics are those of the recording, <base>/<node>/<camera>/poses. Stop the node itself
    meanwhile, or subscribers receive the messages of both.
    """
    # Imported on demand: paho takes 0.1 s, which `--help` should not need.
    from edgepose.sinks.mqtt import MqttPublisher

    set_up_logging("warning")
    recording = Recording(file)
    check_base(base_topic)
    config = MqttConfig(url=mqtt, password_file=password_file, tls=TlsConfig(ca_file=ca_file))
    for conflict in config.conflicts():
        raise UsageError(f"--mqtt: {conflict}")
    # Not the id of the node, which the broker would disconnect.
    options = config.connect_options(f"edgepose-replay-{secrets.token_hex(4)}")
    with closing(MqttPublisher(options)) as publisher:
        published = replay(recording, publisher.send, speed=speed, base=base_topic)
    published -= publisher.dropped
    done = f"{published} messages published"
    if recording.skipped or publisher.dropped:
        raise SourceError(
            f"{file}: {done}, {recording.skipped} invalid lines skipped, {publisher.dropped} "
            "messages lost with the connection"
        )
    print_on_stderr(f"replay: {done}")
