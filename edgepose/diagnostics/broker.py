"""The broker: name, TCP, TLS, login, packet limit, and the access rights."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from edgepose.config.schema import Config
from edgepose.diagnostics.report import Check, Status
from edgepose.diagnostics.system import daemon_pid
from edgepose.errors import EdgeposeError
from edgepose.mqtt import diagnostics, topics
from edgepose.mqtt.commands import CommandReceiver
from edgepose.mqtt.connection import MqttConnection, Outgoing
from edgepose.mqtt.diagnostics import Failure
from edgepose.mqtt.options import ConnectOptions, MqttTimeouts, Protocol
from edgepose.mqtt.topics import DiscoveryTopics, Topics

_TIMEOUTS: Final = MqttTimeouts(connect_s=2.0, answer_s=2.5)
_ACKNOWLEDGE_S: Final = 2.0
_END_S: Final = 0.1
"""A broker that acknowledges a message and then ends the connection does so within it."""
BYTES_OF_A_POSE: Final = 800
"""A pose with 17 keypoints in a message, and its share of the rest."""
BYTES_OF_INFO: Final = 12_000
"""The largest message: it contains the schema of the others."""


def check_broker(config: Config) -> Iterator[Check]:
    """Log in, subscribe to the commands, and publish what is true while edgepose does not run."""
    mqtt = config.mqtt
    if not mqtt.enabled:
        yield Check("broker", "skipped", "mqtt.enabled is false")
        return
    options = replace(mqtt.connect_options(f"{config.client_id}-doctor"), timeouts=_TIMEOUTS)
    try:
        connection, protocol = _connect(options, config)
    except Failure as failure:
        yield Check("broker", "error", *_explained(config, failure))
        return
    except EdgeposeError as error:
        message, _, remedy = str(error).partition("; ")
        yield Check("broker", "error", message, remedy or "check the file and its permissions")
        return
    try:
        yield Check("broker", "ok", f"{mqtt.address.netloc}: logged in with MQTT {protocol}")
        yield _packet_size(config, connection)
        yield from _access(config, connection, protocol)
    finally:
        connection.disconnect()
        connection.close()


def _connect(options: ConnectOptions, config: Config) -> tuple[MqttConnection, Protocol]:
    """Return a connection, with MQTT 3.1.1 if the broker may not know 5; raises Failure."""
    cameras = [camera.name for camera in config.cameras]
    receiver = CommandReceiver(_topics(config), cameras, lambda _command: None)
    protocol: Protocol = options.protocol
    while True:
        connection = MqttConnection(options, protocol, receiver, threading.Condition(), clean=True)
        try:
            connection.connect(threading.Event())
        except Failure as failure:
            connection.close()
            kinds = (diagnostics.VERSION, diagnostics.NO_MQTT)
            if protocol == "3.1.1" or failure.kind not in kinds:
                raise
            protocol = "3.1.1"
        else:
            return connection, protocol


def _packet_size(config: Config, connection: MqttConnection) -> Check:
    name, limit = "broker packet size", connection.max_packet_bytes
    if limit is None:
        return Check(name, "ok", "the broker states no limit")
    poses = config.model.max_poses * BYTES_OF_A_POSE
    if limit >= max(poses, BYTES_OF_INFO):
        return Check(name, "ok", f"up to {limit:,} bytes")
    missing = "pose messages" if limit < poses else "the info message"
    status: Status = "error" if limit < poses else "warning"
    return Check(
        name,
        status,
        f"the broker takes packets of at most {limit:,} bytes, too few for {missing}",
        f"raise it to at least {max(poses, BYTES_OF_INFO):,} (max_packet_size in mosquitto)",
    )


def _access(config: Config, connection: MqttConnection, protocol: Protocol) -> Iterator[Check]:
    """Publish on the topics, and report the first that is denied; MQTT 3.1.1 has no answer."""
    name = "broker access"
    problems = (_publish(config, connection, message) for message in _messages(config))
    problem = next(filter(None, problems), None)
    if problem is not None:
        yield Check(name, "error", *problem)
    else:
        allowed = f"may publish and subscribe below {_topics(config).root}"
        yield _allowed(name, allowed, protocol)
    if problem is None or connection.refused:
        # Otherwise the connection has ended.
        yield _discovery_access(config, connection, protocol)


def _discovery_access(config: Config, connection: MqttConnection, protocol: Protocol) -> Check:
    """Publish beside the discovery messages, since Home Assistant would take one of those."""
    name, given = "broker discovery", config.homeassistant
    if not given.enabled:
        return Check(name, "skipped", "homeassistant.enabled is false")
    folder = DiscoveryTopics(config.node_name, given.discovery_prefix).folder
    problem = _publish(config, connection, Outgoing(f"{folder}/doctor", b"ok", 1))
    if problem is None:
        return _allowed(name, f"may publish below {folder}", protocol)
    return Check(
        name,
        "warning",
        f"Home Assistant cannot find this node: {problem[0]}",
        f"give this client read and write access to {folder}/#, or set homeassistant.enabled to "
        "false if there is no Home Assistant",
    )


def _allowed(name: str, message: str, protocol: Protocol) -> Check:
    if protocol == "5":
        return Check(name, "ok", message)
    return Check(name, "skipped", "MQTT 3.1.1 does not report what is denied")


def _publish(
    config: Config, connection: MqttConnection, message: Outgoing
) -> tuple[str, str] | None:
    """Publish a message; return what is wrong and its remedy, None if it is acknowledged."""
    refused, broker = len(connection.refused), f"the MQTT broker {config.mqtt.address.netloc}"
    try:
        connection.publish(message)
        acknowledged = _wait(connection)
    except Failure:
        # mosquitto 2.0 ends the connection.
        return (
            f"{broker} ends the connection at a message on {message.topic}",
            "give this client write access to it; the broker's log has the reason",
        )
    if len(connection.refused) > refused:
        return _explained(config, connection.refused[refused])
    if not acknowledged:
        late = diagnostics.unacknowledged(f"a message on {message.topic}", _ACKNOWLEDGE_S)
        return _explained(config, late)
    return None


def _wait(connection: MqttConnection) -> bool:
    """Wait until everything is acknowledged, and a little longer; raises Failure."""
    done_by = time.monotonic() + _ACKNOWLEDGE_S
    while not connection.idle:
        if time.monotonic() > done_by:
            return False
        connection.serve(0.05)
    connection.serve(_END_S)
    return True


def _messages(config: Config) -> Iterator[Outgoing]:
    """Yield messages that change nothing: the states of a node that does not run, not retained."""
    names = _topics(config)
    yield Outgoing(f"{names.root}/doctor", b"ok", 1)
    if daemon_pid(config) is not None:
        # It publishes its states itself, and logs what is denied.
        return
    yield Outgoing(names.availability, topics.OFFLINE, 1)
    for camera in config.cameras:
        yield Outgoing(names.status(camera.name), topics.OFFLINE, 1)
        yield Outgoing(names.presence(camera.name), topics.OFF, 1)
        yield Outgoing(names.count(camera.name), b"0", 1)


def _explained(config: Config, failure: Failure) -> tuple[str, str]:
    """Return what is wrong, and the remedy."""
    message, _, remedy = str(failure).partition(": ")
    text = f"the MQTT broker {config.mqtt.address.netloc} {message}"
    return text, remedy or "see the broker's log"


def _topics(config: Config) -> Topics:
    return Topics(node=config.node_name, base=config.mqtt.base_topic)
