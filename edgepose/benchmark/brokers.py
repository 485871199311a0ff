"""A broker in another process, started for the benchmark: mosquitto, else amqtt."""

import importlib.util
import os
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

from edgepose.errors import BrokerError
from edgepose.util.net import free_port

_HOST: Final = "127.0.0.1"
_START_S: Final = 10.0
_STOP_S: Final = 5.0
# Debian installs mosquitto where only root's PATH leads.
_FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
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
def own_broker() -> Iterator[tuple[int, str, bool]]:
    """Start a broker on the loopback interface, and stop it.

    Yields its port, a description, and whether it supports MQTT 5. Raises BrokerError if neither
    mosquitto nor amqtt is installed, or it does not start.
    """
    port, mosquitto = free_port(), find_mosquitto()
    if mosquitto is not None:
        name, command = _mosquitto_name(mosquitto), [mosquitto]
    elif importlib.util.find_spec("amqtt") is not None:
        name = f"amqtt {version('amqtt')}"
        command = [sys.executable, "-m", "amqtt.scripts.broker_script"]
    else:
        raise BrokerError(
            "--pipeline needs an MQTT broker, and none is installed: install mosquitto (Debian: "
            'apt install mosquitto), or pip install "edgepose[demo]", or name a running one with '
            "--mqtt"
        )
    with tempfile.TemporaryDirectory(prefix="edgepose-benchmark-") as folder:
        config, log = Path(folder) / "broker.conf", Path(folder) / "log"
        template = _AMQTT if mosquitto is None else _MOSQUITTO
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
            yield port, f"{name}, started by the benchmark", mosquitto is not None
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def find_mosquitto() -> str | None:
    """Return the path of mosquitto, None if it is not installed."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_FOLDERS))
    return shutil.which("mosquitto", path=path)


def _mosquitto_name(program: str) -> str:
    """Return name and version, such as `mosquitto 2.0.11`."""
    # There is no option for it; the help begins with `mosquitto version 2.0.11` and exits with 1.
    help_text = subprocess.run(  # noqa: S603 - found above
        [program, "-h"], capture_output=True, text=True, check=False, timeout=_START_S
    ).stdout
    words = help_text.partition("\n")[0].split()
    return f"mosquitto {words[2]}" if words[1:2] == ["version"] else "mosquitto"


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((_HOST, port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    lines = log.read_text(errors="replace").strip().splitlines()
    state = "does not listen" if process.poll() is None else "exited"
    raise BrokerError(
        f"the broker that the benchmark started {state} ({lines[-1] if lines else 'no output'}); "
        "name a running one with --mqtt"
    )
