"""`edgepose replay`: publish a recording on MQTT."""

import logging
import secrets
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Final

import click

from edgepose.cli._options import set_up_logging
from edgepose.cli._terminal import print_on_stderr, print_warning
from edgepose.config.schema import MqttConfig, TlsConfig
from edgepose.errors import SourceError, UsageError
from edgepose.mqtt.replay import Recording, replay
from edgepose.mqtt.topics import check_base
from edgepose.util.secrets import MQTT_VARIABLE

MAX_NODES: Final = 900
"""`select` takes file descriptors below 1024 only, and each node has one."""
_MAX_LATE_S: Final = 1.0


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
    "--nodes",
    type=click.IntRange(1, MAX_NODES),
    metavar="N",
    help=f"Play FILE as N nodes at once, {MAX_NODES} at most; default: messages only, no node.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="With --nodes: their ids are NAME-0001, NAME-0002, ...; default: the node of FILE.",
)
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
    nodes: int | None,
    name: str | None,
    password_file: Path | None,
    ca_file: Path | None,
) -> None:
    """Publish the pose messages of FILE on MQTT with the recorded timing.

    FILE may be a pipe. A pause is cut to 30 s; where the clock was set back, there is none.

    The topics are those of the recording, <base>/<node>/<camera>/poses. Stop the node itself
    meanwhile, or subscribers receive the messages of both.

    With --nodes, each node has a connection, a last will and retained states like a real one, and
    begins at a random moment.
    """
    # Imported on demand: paho takes 0.1 s, which `--help` should not need.
    from edgepose.sinks.mqtt import MqttPublisher

    set_up_logging("warning")
    recording = Recording(file)
    check_base(base_topic)
    config = MqttConfig(url=mqtt, password_file=password_file, tls=TlsConfig(ca_file=ca_file))
    for conflict in config.conflicts():
        raise UsageError(f"--mqtt: {conflict}")
    if nodes is not None:
        _replay_nodes(recording, config, base_topic, nodes, name, speed)
        return
    if name is not None:
        raise UsageError("--name is the name of many nodes; give --nodes too")
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


def _replay_nodes(
    recording: Recording, config: MqttConfig, base: str, count: int, name: str | None, speed: float
) -> None:
    """Play a recording as many nodes."""
    from edgepose.sinks import fleet

    if not speed:
        raise UsageError("--speed 0 does not wait, as no node does; give one above 0 with --nodes")
    logging.getLogger("edgepose.mqtt").addFilter(_OncePerFailure())
    play = fleet.read_play(recording)
    options = config.connect_options("")
    ids = fleet.node_ids(name or play.node, count)
    nodes = [fleet.ReplayedNode(node, options, base, play) for node in ids]
    starts = Random()  # noqa: S311 - when nodes start is no secret
    try:
        # The reason why none can connect is that of the first one.
        nodes[0].connect()
        print_on_stderr(f"replay: {count} nodes, {ids[0]} to {ids[-1]}; Ctrl-C ends them")
        late_s = fleet.play_nodes(nodes, play.steps, speed=speed, random=starts)
    finally:
        fleet.close_nodes(nodes)
    lost = sum(node.lost for node in nodes)
    published = count * len(play.steps) - lost
    if late_s > _MAX_LATE_S:
        print_warning(
            f"messages were up to {late_s:.1f} s late: this machine is too slow for {count} nodes; "
            "use fewer, or several machines, each with its own --name"
        )
    done = f"{published} messages of {count} nodes published"
    if recording.skipped or lost:
        raise SourceError(
            f"{recording.path}: {done}, {recording.skipped} invalid lines skipped, {lost} messages "
            "lost because the broker was away or too slow"
        )
    print_on_stderr(f"replay: {done}")


class _OncePerFailure(logging.Filter):
    """Keeps the first line of each kind of failure: all nodes lose their connections at once.

    Of other lines it keeps the first one of each text.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        what = getattr(record, "failure", None) or record.getMessage()
        new = what not in self._seen
        self._seen.add(what)
        return new
