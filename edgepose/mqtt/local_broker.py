"""A broker for the benchmark and the demonstration, in another process: mosquitto, else amqtt.

A packet of any client, which the broker keeps in memory as a whole, has MAX_PACKET_BYTES at most.
"""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgepose.errors import BrokerError
from edgepose.mqtt.options import Protocol
from edgepose.util.process import main_command, tied_command

MAX_PACKET_BYTES: Final = 128 * 1024
_START_S: Final = 30.0
# Started by root, mosquitto would become a user who cannot read the folder; otherwise `user` has no
# effect. A broker that waits to fill its packets would add up to 40 ms to a message.
_MOSQUITTO: Final = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_packet_size {max_packet}
set_tcp_nodelay true
user root
"""
_AMQTT: Final = """\
listeners: {{default: {{type: tcp, bind: '127.0.0.1:{port}'}}}}
plugins: {{amqtt.plugins.authentication.AnonymousAuthPlugin: {{allow_anonymous: true}}}}
"""


class LocalBroker(NamedTuple):
    """A running broker; `name` has its version."""

    url: str
    protocol: Protocol
    name: str


def free_port() -> int:
    """Return a TCP port of the loopback interface on which nothing listens now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def local_broker() -> Iterator[LocalBroker]:
    """Start a broker on a free port of the loopback interface, without a login, and stop it.

    Raises BrokerError if neither mosquitto nor amqtt is installed, or it does not start.
    """
    port, mosquitto = free_port(), find_mosquitto()
    if mosquitto is not None:
        command, template = [mosquitto], _MOSQUITTO
    elif importlib.util.find_spec("amqtt") is not None:
        command, template = main_command(__name__), _AMQTT
    else:
        raise BrokerError(
            "an MQTT broker is needed, and none is installed: install mosquitto (Debian: apt "
            'install mosquitto), or pip install "edgepose[demo]"'
        )
    with tempfile.TemporaryDirectory(prefix="edgepose-broker-") as folder:
        config, log = Path(folder) / "broker.conf", Path(folder) / "log"
        config.write_text(template.format(port=port, max_packet=MAX_PACKET_BYTES))
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - a fixed command
                tied_command([*command, "-c", str(config)]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C must not stop it before the daemon has disconnected.
                start_new_session=True,
            )
        try:
            _wait_until_it_listens(process, port, log)
            url = f"mqtt://127.0.0.1:{port}"
            if mosquitto is None:
                yield LocalBroker(url, "3.1.1", f"amqtt {version('amqtt')}")
            else:
                # Its first line is `1700000000: mosquitto version 2.0.11 starting`.
                found = re.search(r"mosquitto version \S+", log.read_text(errors="replace"))
                name = found[0].replace(" version", "") if found else "mosquitto"
                yield LocalBroker(url, "5", name)
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Run amqtt, which has no limit for packets, with one: an end of the connection."""
    from amqtt.mqtt.packet import MQTTFixedHeader
    from amqtt.scripts import broker_script

    read_header = MQTTFixedHeader.from_stream

    async def read_bounded_header(reader: Any) -> Any:
        header = await read_header(reader)
        too_large = header is not None and header.remaining_length > MAX_PACKET_BYTES
        return None if too_large else header

    MQTTFixedHeader.from_stream = read_bounded_header
    broker_script.main()


def find_mosquitto() -> str | None:
    """Return the path of mosquitto, None if it is not installed."""
    # Debian installs it in a folder that only root's PATH has.
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    return shutil.which("mosquitto", path=path)


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    last_line = ["no output", *log.read_text(errors="replace").splitlines()][-1]
    raise BrokerError(
        f"the broker that was started does not listen on 127.0.0.1:{port} ({last_line}); start one "
        "on this machine yourself"
    )
