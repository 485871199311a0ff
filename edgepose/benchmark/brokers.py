"""A broker of the benchmark's own, in another process: mosquitto, else amqtt."""

import importlib.metadata
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepose.errors import BrokerError
from edgepose.mqtt.url import BrokerAddress
from edgepose.util.net import free_port

_HOST: Final = "127.0.0.1"
_START_S: Final = 10.0
_STOP_S: Final = 5.0
# Debian keeps it where only root's path leads.
_FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that runs; `description` is for reports, `speaks_5` whether it knows MQTT 5."""

    address: BrokerAddress
    description: str
    speaks_5: bool


@contextmanager
def own_broker() -> Iterator[Broker]:
    """Start a broker on a free port of the loopback interface, and end it.

    Raises BrokerError where neither mosquitto nor amqtt is installed, or it does not start.
    """
    port = free_port()
    address = BrokerAddress(_HOST, port)
    mosquitto = find_mosquitto()
    with tempfile.TemporaryDirectory(prefix="edgepose-benchmark-") as folder:
        config = Path(folder) / "broker.conf"
        if mosquitto is not None:
            config.write_text(_mosquitto_config(port))
            words = [mosquitto, "-c", str(config)]
            broker = Broker(address, f"{_mosquitto_name(mosquitto)}, of its own", True)
        elif importlib.util.find_spec("amqtt") is not None:
            config.write_text(_amqtt_config(port))
            words = [sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(config)]
            version = importlib.metadata.version("amqtt")
            broker = Broker(address, f"amqtt {version}, of its own (no mosquitto here)", False)
        else:
            raise BrokerError(
                "the whole line needs an MQTT broker, and none is installed: install mosquitto "
                '(Debian: apt install mosquitto), or pip install "edgepose[demo]", or name one '
                "that runs with --mqtt"
            )
        with _running(words, port, Path(folder) / "log"):
            yield broker


def find_mosquitto() -> str | None:
    """Return the path of mosquitto, None where it is not installed."""
    return shutil.which(
        "mosquitto", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_FOLDERS))
    )


def _mosquitto_config(port: int) -> str:
    lines = [
        f"listener {port} {_HOST}",
        "allow_anonymous true",
        "persistence false",
        # A broker that waits to fill its packets would add up to 40 ms to a message.
        "set_tcp_nodelay true",
    ]
    if os.geteuid() == 0:
        # It would become another user, who cannot read the folder.
        lines.append("user root")
    return "\n".join(lines) + "\n"


def _amqtt_config(port: int) -> str:
    return (
        f"listeners: {{default: {{type: tcp, bind: '{_HOST}:{port}'}}}}\n"
        "plugins:\n"
        "  amqtt.plugins.authentication.AnonymousAuthPlugin: {allow_anonymous: true}\n"
    )


def _mosquitto_name(program: str) -> str:
    """Return what it says it is, such as `mosquitto 2.0.11`."""
    # It has no option for that, ends its help with 1, and begins it with name and version.
    help_text = subprocess.run(  # noqa: S603 - found above
        [program, "-h"], capture_output=True, text=True, check=False, timeout=_START_S
    ).stdout
    words = help_text.partition("\n")[0].split()
    return f"mosquitto {words[2]}" if words[1:2] == ["version"] else "mosquitto"


@contextmanager
def _running(words: Sequence[str], port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - words of our own
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            # Ctrl-C must not end it before the line has said goodbye.
            start_new_session=True,
        )
    try:
        _wait_until_it_listens(process, port, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = log.read_text(errors="replace").strip().splitlines()
            raise BrokerError(
                f"the benchmark's own broker ended at once ({said[-1] if said else 'silently'}); "
                "name one that runs with --mqtt"
            )
        try:
            socket.create_connection((_HOST, port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise BrokerError(
        f"the benchmark's own broker does not listen after {_START_S:g} s; name one that runs "
        "with --mqtt"
    )
