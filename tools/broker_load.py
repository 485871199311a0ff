"""How many nodes one MQTT broker carries: messages lost, latency, and processor time.

    python -m tools.broker_load --nodes 100,1000,2000

Starts mosquitto, lets N connections publish messages of the size and rate of poses (QoS 0), and
receives them with one subscriber for all, or with several that share them (`--subscribers 3`).
`--port` and `--pid` measure a broker on this machine that runs already. Publisher, broker and every
subscriber are processes of one thread. The MQTT packets are written here, since paho's 13 us a
message would be the limit that is measured; there are four kinds of them.
"""

import argparse
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from edgepose.mqtt.local_broker import free_port

HOST: Final = "127.0.0.1"
FILTER: Final = "edgepose/+/+/poses"
CONNECTS_PER_S: Final = 500
SETTLE_S: Final = 1.0
DRAIN_S: Final = 3.0
HEAD: Final = (
    "| nodes | subscribers | messages/s | lost | p50 ms | p99 ms | broker | publisher "
    "| subscriber | broker MB | load |\n|" + "---:|" * 11
)
STAMP: Final = struct.Struct(">q")
_CONNECT, _PUBLISH, _SUBSCRIBE, _SUBACK = 0x10, 0x30, 0x82, 0x90
_KEEPALIVE_S: Final = 600
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Load:
    """What is published, and who receives it."""

    nodes: int
    rate: float
    message_bytes: int
    seconds: float
    subscribers: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement; processor times are shares of a core, latencies in ms."""

    nodes: int
    subscribers: int
    published_per_s: float
    lost: int
    p50_ms: float
    p99_ms: float
    late_ms: float
    broker_cpu: float
    publisher_cpu: float
    subscriber_cpu: float
    broker_memory_mb: float
    load_average: float


def packet(kind: int, body: bytes) -> bytes:
    """Return an MQTT control packet."""
    length, encoded = len(body), bytearray()
    while True:
        length, digit = length >> 7, length & 0x7F
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([kind]) + bytes(encoded) + body


def text(value: str) -> bytes:
    """Return a string as MQTT writes it."""
    return struct.pack(">H", len(value)) + value.encode()


def connected(port: int, client_id: str) -> socket.socket:
    """Return a connection to the broker, with MQTT 3.1.1, after its CONNACK."""
    sock = socket.create_connection((HOST, port), 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    header = text("MQTT") + struct.pack(">BBH", 4, 2, _KEEPALIVE_S)
    sock.sendall(packet(_CONNECT, header + text(client_id)))
    answer = sock.recv(4)
    if answer[:1] != b"\x20" or answer[3:] != b"\x00":
        raise SystemExit(f"the broker refuses {client_id}: {answer!r}")
    return sock


def stamps(stream: bytearray) -> Iterator[int]:
    """Yield the times in the complete PUBLISH packets of a stream, and remove those."""
    at, end = 0, len(stream)
    while at + 5 <= end:
        length, shift, first = 0, 0, at + 1
        while True:
            digit = stream[first]
            length |= (digit & 0x7F) << shift
            first, shift = first + 1, shift + 7
            if not digit & 0x80 or first >= end:
                break
        if first + length > end:
            break
        if stream[at] & 0xF0 == _PUBLISH:
            topic_bytes = stream[first] << 8 | stream[first + 1]
            yield STAMP.unpack_from(stream, first + 2 + topic_bytes)[0]
        at = first + length
    del stream[:at]


def subscribe(port: int, number: int, topic_filter: str, pipe: Connection) -> None:
    """Receive until the pipe has a word, then send the latencies in ns and the processor time."""
    sock = connected(port, f"load-subscriber-{number}")
    sock.sendall(packet(_SUBSCRIBE, struct.pack(">H", 1) + text(topic_filter) + b"\x00"))
    if sock.recv(5)[:1] != bytes([_SUBACK]):
        raise SystemExit(f"the broker refuses the subscription to {topic_filter}")
    pipe.send("subscribed")
    sock.settimeout(0.2)
    latencies, stream = array("q"), bytearray()
    while not pipe.poll():
        try:
            stream += sock.recv(1 << 18)
        except TimeoutError:
            continue
        now = time.monotonic_ns()
        latencies.extend(now - stamp for stamp in stamps(stream))
    pipe.send((latencies.tobytes(), time.process_time()))


def publish(port: int, load: Load, pipe: Connection) -> None:
    """Publish at a steady rate; send how many, how late, and the processor time.

    The nodes publish one after the other, as cameras that are not synchronized.
    """
    socks, heads = [], []
    for number in range(load.nodes):
        socks.append(connected(port, f"edgepose-load-{number:05}"))
        topic = text(f"edgepose/load-{number:05}/main/poses")
        heads.append(packet(_PUBLISH, topic + bytes(load.message_bytes))[: -load.message_bytes])
        time.sleep(1 / CONNECTS_PER_S)
    rest = bytes(load.message_bytes - STAMP.size)
    pipe.send("connected")
    pipe.recv()
    cpu_s, begin = time.process_time(), time.monotonic()
    per_s, late_s, sent = load.nodes * load.rate, 0.0, 0
    total = round(per_s * load.seconds)
    while sent < total:
        now = time.monotonic()
        due = min(total, int((now - begin) * per_s))
        if due <= sent:
            time.sleep(0.0005)
            continue
        late_s = max(late_s, now - begin - sent / per_s)
        for index in range(sent, due):
            node = index % load.nodes
            socks[node].sendall(heads[node] + STAMP.pack(time.monotonic_ns()) + rest)
        sent = due
    pipe.send((sent, time.monotonic() - begin, late_s, time.process_time() - cpu_s))
    pipe.recv()


def measure(port: int, pids: Sequence[int], load: Load) -> Measured:
    """Measure one load."""
    shared = "" if load.subscribers == 1 else "$share/load/"
    subscribers = [
        _start(subscribe, port, number, shared + FILTER) for number in range(load.subscribers)
    ]
    for _, pipe in subscribers:
        pipe.recv()
    publisher, publishing = _start(publish, port, load)
    publishing.recv()
    time.sleep(SETTLE_S)
    before_s = sum(map(cpu_of, pids))
    publishing.send("go")
    sent, seconds, late_s, publisher_s = publishing.recv()
    broker_s = sum(map(cpu_of, pids)) - before_s
    memory_mb = sum(map(memory_of, pids))
    time.sleep(DRAIN_S)
    latencies, subscriber_s = array("q"), []
    for _, pipe in subscribers:
        pipe.send("end")
        received, cpu_s = pipe.recv()
        latencies.frombytes(received)
        subscriber_s.append(cpu_s)
    publishing.send("end")
    for process, _ in (*subscribers, (publisher, publishing)):
        process.join()
    ordered = sorted(latencies)
    return Measured(
        nodes=load.nodes,
        subscribers=load.subscribers,
        published_per_s=round(sent / seconds),
        lost=sent - len(latencies),
        p50_ms=round(statistics.median(ordered) / 1e6, 2),
        p99_ms=round(ordered[int(len(ordered) * 0.99)] / 1e6, 2),
        late_ms=round(late_s * 1e3),
        broker_cpu=round(broker_s / seconds, 2),
        publisher_cpu=round(publisher_s / seconds, 2),
        subscriber_cpu=round(max(subscriber_s) / seconds, 2),
        broker_memory_mb=round(memory_mb),
        load_average=round(os.getloadavg()[0], 1),
    )


def _start(
    run: Callable[..., None], port: int, *arguments: object
) -> tuple[multiprocessing.Process, "Connection[Any, Any]"]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=run, args=(port, *arguments, there), daemon=True)
    process.start()
    return process, here


def cpu_of(pid: int) -> float:
    """Return the processor time of a process in s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_of(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


@contextmanager
def mosquitto() -> Iterator[tuple[int, int]]:
    """Run a broker with its defaults but for tcp_nodelay; yields its port and process id."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    program = shutil.which("mosquitto", path=path)
    if program is None:
        raise SystemExit("mosquitto is not installed: apt install mosquitto, or give --port")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "mosquitto.conf")
        user = "user root\n" if os.geteuid() == 0 else ""
        config.write_text(
            f"listener {port} {HOST}\nallow_anonymous true\nset_tcp_nodelay true\n"
            f"log_type error\n{user}"
        )
        process = subprocess.Popen([program, "-c", str(config)])
        try:
            for _ in range(100):
                try:
                    socket.create_connection((HOST, port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def cells(row: Measured) -> str:
    """Return a measurement as a row of a Markdown table under HEAD."""
    values = (
        f"{row.nodes:,}", row.subscribers, f"{row.published_per_s:,}", row.lost,
        f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}", f"{row.broker_cpu:.0%}",
        f"{row.publisher_cpu:.0%}", f"{row.subscriber_cpu:.0%}", row.broker_memory_mb,
        row.load_average,
    )  # fmt: skip
    return "| " + " | ".join(map(str, values)) + " |"


def main() -> None:
    """Measure each number of nodes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", default="100,500,1000", help="numbers, with commas")
    parser.add_argument("--rate", type=float, default=15.0, help="messages/s of a node")
    parser.add_argument("--bytes", type=int, default=800, help="of a message")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--subscribers", default="1", help="above 1 they share the messages")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--port", type=int, help="of a broker that runs on this machine")
    parser.add_argument("--pid", help="of that broker's processes, with commas")
    parser.add_argument("--json", action="store_true", dest="as_json")
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    loads = [
        Load(int(nodes), given.rate, given.bytes, given.seconds, int(subscribers))
        for _ in range(given.repeat)
        for subscribers in given.subscribers.split(",")
        for nodes in given.nodes.split(",")
    ]
    if not given.as_json:
        print(HEAD)
    for load in loads:
        if given.port is None:
            with mosquitto() as (port, pid):
                row = measure(port, [pid], load)
        else:
            pids = [int(pid) for pid in re.findall(r"\d+", given.pid or "")]
            row = measure(given.port, pids, load)
        print(json.dumps(asdict(row)) if given.as_json else cells(row), flush=True)


if __name__ == "__main__":
    main()
