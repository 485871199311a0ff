"""No part of edgepose opens a port, except the demo's broker on loopback."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepose.mqtt.local_broker import free_port
from tests.mosquitto import Mosquitto, wait_for
from tests.processes import children

_LISTEN = "0A"
_ACCEPTS = 0x10000
_LOOPBACK = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), sys.byteorder):08X}"
"""In the format of /proc: four bytes in the machine's byte order."""


def sockets_of(pid: int) -> set[str]:
    """Return the inodes of the sockets that a process and its children hold."""
    inodes: set[str] = set()
    pids = [pid]
    while pids:
        pid = pids.pop()
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(entry.readlink())
            except FileNotFoundError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        pids += children(pid)
    return inodes


def listening(pid: int) -> list[tuple[str, str, int]]:
    """Return (protocol, address, port) of all sockets that accept connections or datagrams."""
    inodes = sockets_of(pid)
    found: list[tuple[str, str, int]] = []
    for protocol in ("tcp", "tcp6", "udp", "udp6", "udplite", "raw", "raw6"):
        table = Path(f"/proc/{pid}/net/{protocol}")
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            words = line.split()
            address, _, port = words[1].partition(":")
            accepts = words[3] == _LISTEN if protocol.startswith("tcp") else True
            if words[9] in inodes and accepts:
                found.append((protocol, address, int(port, 16)))
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        if words[6] in inodes and int(words[3], 16) & _ACCEPTS:
            found.append(("unix", words[7] if len(words) > 7 else "", 0))
    return found


def test_listening_ports_finds_open_port(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        udp.bind(("0.0.0.0", 0))
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        found = listening(os.getpid())
        assert ("tcp", _LOOPBACK, tcp.getsockname()[1]) in found
        assert ("udp", "00000000", udp.getsockname()[1]) in found
        assert ("unix", str(tmp_path / "s"), 0) in found


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_daemon_opens_no_port(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"node: gym\nstate_directory: {tmp_path / 'state'}\n")
    with Mosquitto(tmp_path) as broker, broker.listener() as listener:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "edgepose", "run", "-c", str(config)),
                *("--source", "synthetic:", "--mqtt", broker.url),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        listener.wait_for("edgepose/gym/availability", b"online")
        listener.wait_for("edgepose/gym/main/poses")
        assert sockets_of(process.pid), "no connection to the broker"
        assert listening(process.pid) == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


DEMO = """
import sys
import edgepose.cli.demo as demo
from edgepose.cli.main import run_command
demo.LOCAL_BROKER = ("127.0.0.1", int(sys.argv[1]))
sys.exit(run_command(["demo", "--source", "synthetic:", "--json", "--seconds", "60"]))
"""


def test_demo_listens_on_loopback_only(
    started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    pytest.importorskip("amqtt", reason="the demo extra is not installed")
    lines = tmp_path / "lines"
    with lines.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", DEMO, str(free_port())],
            stdout=out,
            stderr=subprocess.PIPE,
            env=os.environ | {"XDG_STATE_HOME": str(tmp_path)},
        )
    started.append(process)

    def arrived() -> bool:
        assert process.poll() is None, process.communicate()
        return b"/poses {" in lines.read_bytes()

    wait_for(arrived, "poses to arrive", 40)
    # The broker and the page.
    wait_for(lambda: len(listening(process.pid)) == 2, "two ports")
    found = listening(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert [(protocol, address) for protocol, address, _ in found] == [("tcp", _LOOPBACK)] * 2
    poses = next(line for line in lines.read_text().splitlines() if "/poses {" in line)
    assert poses.split(" ")[0].startswith("edgepose/")
