"""The configurations of mosquitto in docs/fleet.md, in real brokers with real nodes."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edgepose.util.secrets import MQTT_VARIABLE
from tests.daemon import Daemon, running
from tests.documents import blocks
from tests.mosquitto import PASSWORD, USERNAME, Certificates, Mosquitto, Received, require, wait_for

SECRET = "s3cret"


def block(first_line: str) -> str:
    """Return the text of the block of docs/fleet.md that begins so."""
    (found,) = (
        one.text
        for one in blocks("")
        if one.document.name == "fleet.md" and one.text.startswith(f"# {first_line}\n")
    )
    return found


def settings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@contextmanager
def guarded(folder: Path, *users: str) -> Iterator[Mosquitto]:
    """Run a broker with the access control of the document and these users."""
    rights, passwords = folder / "acl", folder / "passwords"
    rights.write_text(block("/etc/mosquitto/acl"))
    for number, user in enumerate(users):
        create = () if number else ("-c",)
        words = [require("mosquitto_passwd"), "-b", *create, passwords, user, SECRET]
        subprocess.run(words, check=True, capture_output=True)
    lines = settings(block("/etc/mosquitto/conf.d/edgepose.conf"))
    lines = [line.replace("/etc/mosquitto", str(folder)) for line in lines]
    assert f"acl_file {rights}" in lines
    # The last value of a key counts.
    with Mosquitto(folder, settings=lines) as broker:
        yield broker


class User:
    """A client with a name, that subscribes to everything."""

    def __init__(self, broker: Mosquitto, name: str) -> None:
        self.received: list[Received] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self.client.username_pw_set(name, SECRET)
        self.client.on_message = lambda _client, _data, message: self.received.append(
            Received(message.topic, bytes(message.payload), message.qos, message.retain)
        )
        self.client.connect("localhost", broker.port)
        self.client.loop_start()
        self.client.subscribe("edgepose/#", 1)
        wait_for(self.client.is_connected, "the connection")

    def topics(self) -> set[str]:
        return {message.topic for message in list(self.received)}

    def end(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def publish(broker: Mosquitto, user: str, topic: str, payload: str) -> None:
    """Publish on a connection that is not used again: mosquitto 2.0 may end it."""
    login = ("-p", str(broker.port), "-u", user, "-P", SECRET)
    words = [require("mosquitto_pub"), "-h", "127.0.0.1", *login, "-t", topic, "-m", payload]
    subprocess.run(words, check=True, capture_output=True)


def test_fleet_rights_let_a_node_publish_and_be_switched(tmp_path: Path) -> None:
    """All that a real daemon sends and subscribes to is allowed, and logs nothing."""
    with guarded(tmp_path, "gym", "homeassistant", "storage") as broker:
        storage = User(broker, "storage")
        url = broker.url.replace("//", "//gym@")
        environment = {MQTT_VARIABLE: SECRET}
        daemon = Daemon(
            tmp_path, "--source", "synthetic:", "--mqtt", url, node="gym", environment=environment
        )
        try:
            wait_for(lambda: "edgepose/gym/main/poses" in storage.topics(), "poses")
            publish(broker, "homeassistant", "edgepose/gym/main/enabled/set", "OFF")
            wait_for(
                lambda: (
                    b"OFF" in [m.payload for m in storage.received if m.topic[-7:] == "enabled"]
                ),
                "the camera to be off",
            )
            # What may only read cannot switch it on again.
            publish(broker, "storage", "edgepose/gym/main/enabled/set", "ON")
            publish(broker, "homeassistant", "edgepose/gym/smoothing/set", "off")
            wait_for(
                lambda: b"off" in [m.payload for m in storage.received if "smoothing" in m.topic],
                "the smoothing to be off",
            )
        finally:
            code, _, errors = daemon.end()
            storage.end()
        assert code == 0
        assert "refuses" not in errors, errors
        assert [m.payload for m in storage.received if m.topic[-7:] == "enabled"][-1] == b"OFF"


def test_fleet_rights_keep_nodes_apart(tmp_path: Path) -> None:
    """A node neither publishes as another one nor receives what that publishes."""
    with guarded(tmp_path, "gym", "hall", "storage") as broker:
        storage, gym, hall = (User(broker, name) for name in ("storage", "gym", "hall"))
        for topic in ("edgepose/hall/main/poses", "edgepose/hall/main/enabled/set", "other"):
            publish(broker, "gym", topic, "of another")
        publish(broker, "hall", "edgepose/hall/main/poses", "own")
        publish(broker, "gym", "edgepose/gym/main/poses", "last")
        wait_for(lambda: "edgepose/gym/main/poses" in storage.topics(), "the last message")
        wait_for(lambda: gym.topics() == {"edgepose/gym/main/poses"}, "the own message")
        assert [message.payload for message in storage.received] == [b"own", b"last"]
        assert hall.topics() == {"edgepose/hall/main/poses"}
        for user in (storage, gym, hall):
            user.end()


def test_fleet_bridge_passes_states_up_and_commands_down(
    tmp_path: Path, certificates: Certificates
) -> None:
    """Two brokers, with TLS and a password between them; poses stay at the site."""
    folders = [tmp_path / name for name in ("central", "site", "node")]
    for folder in folders:
        folder.mkdir()
    text = block("/etc/mosquitto/conf.d/central.conf")
    with Mosquitto(folders[0], password=True, certificates=certificates) as central:
        for pattern, value in (
            ("address .*", f"address localhost:{central.port}"),
            ("bridge_cafile .*", f"bridge_cafile {certificates.authority}"),
            ("remote_username .*", f"remote_username {USERNAME}"),
            ("remote_password .*", f"remote_password {PASSWORD}"),
        ):
            text, count = re.subn(pattern, value, text)
            assert count == 1
        with (
            Mosquitto(folders[1], settings=settings(text)) as site,
            central.listener("edgepose/#") as above,
            site.listener("edgepose/#") as below,
            running(folders[2], site, node="oslo-gym") as daemon,
        ):
            node = "edgepose/oslo-gym"
            for name in ("availability", "info", "stats", "accelerator", "main/status"):
                above.wait_for(f"{node}/{name}")
            for name in ("main/presence", "main/count", "main/enabled", "main/event"):
                above.wait_for(f"{node}/{name}")
            assert above.wait_for(f"{node}/main/event").qos == 1
            below.wait_for(f"{node}/main/poses")
            central.publish(f"{node}/main/enabled/set", b"OFF")
            above.wait_for(f"{node}/main/enabled", b"OFF")
            above.wait_for(f"{node}/main/status", b"offline")
            daemon.process.kill()
            # The last will of the node.
            above.wait_for(f"{node}/availability", b"offline")
            assert f"{node}/main/poses" not in above.topics()


def test_fleet_shared_subscription_divides_the_messages(tmp_path: Path) -> None:
    """Each message arrives at one of the subscribers."""
    (line,) = (one.text for one in blocks("") if "$share/store" in one.text)
    found = re.search(r"-t '(\$share/[^']+)'", line)
    assert found is not None
    with (
        Mosquitto(tmp_path) as broker,
        broker.listener(found[1]) as first,
        broker.listener(found[1]) as second,
    ):
        for number in range(40):
            broker_topic = f"edgepose/n{number % 4}/main/poses"
            first.client.publish(broker_topic, b"%d" % number, 1).wait_for_publish(20)
        wait_for(lambda: len(first.received) + len(second.received) == 40, "all messages")
        payloads = [message.payload for message in (*first.received, *second.received)]
        assert sorted(map(int, payloads)) == list(range(40))
        assert first.received
        assert second.received
