"""A real mosquitto on free ports of this machine, and a subscriber."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edgepose.mqtt.local_broker import free_port
from tests.requirements import missing
from tests.resource import Resource

USERNAME = "pose"
PASSWORD = "s3cret-täst"
PATIENCE_S = 60.0


def require(program: str) -> str:
    """Return the path of a program; without it, fail in CI and skip elsewhere."""
    # Debian installs daemons in folders that only root's PATH has.
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        missing(f"{program} is not installed (apt install mosquitto openssl)")
    return path


def wait_for(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Poll until a condition holds; fail with `what` after `patience_s`."""
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {patience_s:g} s in vain for {what}")
        time.sleep(0.01)


class Certificates:
    """A certificate authority, a server certificate for localhost, and an unrelated authority."""

    def __init__(self, directory: Path) -> None:
        openssl = require("openssl")
        self.authority = directory / "ca.crt"
        self.unrelated = directory / "unrelated.crt"
        self.server = directory / "server.crt"
        self.server_key = directory / "server.key"
        self.client = directory / "client.crt"
        self.client_key = directory / "client.key"

        def run(*arguments: str | Path) -> None:
            subprocess.run([openssl, *map(str, arguments)], check=True, capture_output=True)

        for authority in (self.authority, self.unrelated):
            run(
                *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"),
                *("-keyout", authority.with_suffix(".key"), "-out", authority),
                *("-subj", f"/CN={authority.stem}"),
                *("-addext", "basicConstraints=critical,CA:TRUE"),
            )
        for certificate, key, name in (
            (self.server, self.server_key, "localhost"),
            (self.client, self.client_key, "node"),
        ):
            request = directory / "request.csr"
            extensions = directory / "extensions"
            extensions.write_text(f"subjectAltName=DNS:{name}\n")
            run(
                *("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request),
                *("-subj", f"/CN={name}"),
            )
            run(
                *("x509", "-req", "-in", request, "-CA", self.authority, "-days", "30"),
                *("-CAkey", self.authority.with_suffix(".key"), "-CAcreateserial"),
                *("-extfile", extensions, "-out", certificate),
            )


class Mosquitto(Resource):
    """A broker with one plain listener, or one with TLS; it keeps no state over a restart."""

    def __init__(
        self,
        directory: Path,
        *,
        password: bool = False,
        certificates: Certificates | None = None,
        require_certificate: bool = False,
        acl: str | None = None,
        settings: Sequence[str] = (),
    ) -> None:
        self._program = require("mosquitto")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._password = password
        self._certificates = certificates
        self._log = directory / f"mosquitto-{self.port}.log"
        self._config = directory / f"mosquitto-{self.port}.conf"
        lines = [
            "persistence false",
            "max_queued_messages 0",
            "set_tcp_nodelay true",
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {'false' if password else 'true'}",
            *settings,
        ]
        if os.geteuid() == 0:
            # It would become another user, who cannot read the folders of a test.
            lines.append("user root")
        if password:
            passwords = directory / f"passwords-{self.port}"
            subprocess.run(
                [require("mosquitto_passwd"), "-b", "-c", str(passwords), USERNAME, PASSWORD],
                check=True,
                capture_output=True,
            )
            lines.append(f"password_file {passwords}")
        if certificates is not None:
            lines += [
                f"cafile {certificates.authority}",
                f"certfile {certificates.server}",
                f"keyfile {certificates.server_key}",
                f"require_certificate {'true' if require_certificate else 'false'}",
            ]
        if acl is not None:
            rights = directory / f"acl-{self.port}"
            rights.write_text(acl)
            lines.append(f"acl_file {rights}")
        self._config.write_text("\n".join(lines) + "\n")

    def open(self) -> None:
        self.start()

    def close(self) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """The address without a user."""
        return f"{'mqtt' if self._certificates is None else 'mqtts'}://localhost:{self.port}"

    def start(self) -> None:
        """Start and wait until connections are accepted."""
        with self._log.open("ab") as log:
            self._process = process = subprocess.Popen(
                [self._program, "-c", str(self._config)], stdout=log, stderr=log
            )

        def listens() -> bool:
            assert process.poll() is None, self._log.read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                return False
            return True

        wait_for(listens, "mosquitto to listen")

    def kill(self) -> None:
        """Kill the process, as a power cut does; all connections break."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Stop with SIGTERM, as systemctl does."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Pause the process with all connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue after `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def listener(self, topic: str = "#") -> "Listener":
        """Return a subscriber that is subscribed."""
        return Listener(self, topic, self._password, self._certificates)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        """Publish as another client."""
        with self.listener("nothing") as listener:
            listener.client.publish(topic, payload, qos, retain).wait_for_publish(PATIENCE_S)


@dataclass(frozen=True)
class Received:
    """A message as the broker sent it."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


class Listener(Resource):
    """A subscriber that keeps the received messages in order and reconnects."""

    def __init__(
        self,
        broker: Mosquitto,
        topic: str,
        password: bool,
        certificates: Certificates | None,
    ) -> None:
        self.received: list[Received] = []
        self._subscribed = False
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        if password:
            self.client.username_pw_set(USERNAME, PASSWORD)
        if certificates is not None:
            self.client.tls_set(str(certificates.authority))
        self.client.reconnect_delay_set(1, 1)

        def on_connect(*_: object) -> None:
            self.client.subscribe(topic, 1)

        def on_disconnect(*_: object) -> None:
            self._subscribed = False

        def on_subscribe(*_: object) -> None:
            self._subscribed = True

        def on_message(_client: object, _userdata: object, message: paho.MQTTMessage) -> None:
            self.received.append(
                Received(message.topic, bytes(message.payload), message.qos, message.retain)
            )

        self.client.on_connect = on_connect
        self.client.on_disconnect = on_disconnect
        self.client.on_subscribe = on_subscribe
        self.client.on_message = on_message
        self.client.connect("localhost", broker.port)
        self.client.loop_start()
        self.wait_subscribed()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def wait_subscribed(self) -> None:
        """Wait until the subscription is active."""
        wait_for(lambda: self._subscribed, "the listener to be subscribed")

    def topics(self) -> list[str]:
        """Return the topics of all messages, in order of arrival."""
        return [message.topic for message in list(self.received)]

    def payloads(self, topic: str) -> list[bytes]:
        """Return what arrived on a topic, in order."""
        return [message.payload for message in list(self.received) if message.topic == topic]

    def wait_for(self, topic: str, payload: bytes | None = None) -> Received:
        """Wait for a message on a topic and return the first one."""

        def matches(message: Received) -> bool:
            return message.topic == topic and payload in (None, message.payload)

        wait_for(
            lambda: any(map(matches, list(self.received))),
            f"{payload!r} on {topic}; received {self.topics()}",
        )
        return next(filter(matches, list(self.received)))
