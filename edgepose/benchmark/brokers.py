"""A broker in another process, started for the benchmark: mosquitto, else amqtt."""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

from edgepose.config.schema import MqttConfig
from edgepose.errors import BrokerError
from edgepose.util.net import free_port

_START_S: Final = 10.0
# Started by root, mosquitto would become a user who cannot read the folder; otherwise `user` has no
# effect. A broker that waits to fill its packets would add up to 40 ms to a message.
_MOSQUITTO: Final = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
set_tcp_nodelay true
user root
"""
_AMQTT: Final = """\
listeners: {{default: {{type: tcp, bind: '127.0.0.1:{port}'}}}}
plugins: {{amqtt.plugins.authentication.AnonymousAuthPlugin: {{allow_anonymous: true}}}}
"""


@contextmanager
def own_broker() -> Iterator[tuple[MqttConfig, str]]:
    """Start a broker on the loopback interface, and stop it.

    Yields how to connect to it, and its description. Raises BrokerError if neither mosquitto nor
    amqtt is installed, or it does not start.
    """
    port = free_port()
    if (mosquitto := find_mosquitto()) is not None:
        command, template = [mosquitto], _MOSQUITTO
    elif importlib.util.find_spec("amqtt") is not None:
        command, template = [sys.executable, "-m", "amqtt.scripts.broker_script"], _AMQTT
    else:
        raise BrokerError(
            "--pipeline needs an MQTT broker, and none is installed: install mosquitto (Debian: "
            'apt install mosquitto), or pip install "edgepose[demo]", or name a running one with '
            "--mqtt"
        )
    with tempfile.TemporaryDirectory(prefix="edgepose-benchmark-") as folder:
        config, log = Path(folder) / "broker.conf", Path(folder) / "log"
        config.write_text(template.format(port=port))
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - a fixed command
                [*command, "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C must not stop it before the daemon has disconnected.
                start_new_session=True,
            )
        try:
            _wait_until_it_listens(process, port, log)
            # Its first line is `1700000000: mosquitto version 2.0.11 starting`.
            found = re.search(r"mosquitto version (\S+)", log.read_text(errors="replace"))
            name = f"mosquitto {found[1]}" if found else f"amqtt {version('amqtt')}"
            # amqtt knows no MQTT 5.
            mqtt = MqttConfig(
                url=f"mqtt://127.0.0.1:{port}", protocol="5" if mosquitto else "3.1.1"
            )
            yield mqtt, f"{name}, started by the benchmark"
        finally:
            process.kill()
            process.wait()


def find_mosquitto() -> str | None:
    """Return the path of mosquitto, None if it is not installed."""
    # Debian installs it where only root's PATH leads.
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
        f"the broker that the benchmark started does not listen ({last_line}); name a running one "
        "with --mqtt"
    )
