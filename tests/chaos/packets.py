"""A proxy that knows MQTT's packets and withholds some of them."""

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from tests.chaos.proxy import TcpProxy


class PacketKind(IntEnum):
    """The packets that the faults are about."""

    CONNECT = 1
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    SUBACK = 9


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet from (`outward`) or to the client; `topic` is that of a PUBLISH."""

    at_s: float
    outward: bool
    kind: int
    topic: str
    data: bytes


class ConnectionEndedError(OSError):
    """The proxy ends the connection in place of a packet."""


def end_connection(_packet: Packet) -> bool:
    """End the connection in place of a packet."""
    raise ConnectionEndedError


class MqttProxy(TcpProxy):
    """Forwards a packet if `forwards` returns True; what raises there ends the connection.

    `seen` has all packets but pose messages and pings.
    """

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.forwards: Callable[[Packet], bool] = lambda _: True
        self.seen: list[Packet] = []

    def count(self, kind: PacketKind, since_s: float, content: bytes = b"") -> int:
        """Return how many packets of a kind and with a content came since then."""
        return sum(
            packet.kind == kind and packet.at_s > since_s and content in packet.data
            for packet in self.seen
        )

    def _forward(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        with contextlib.closing(source.makefile("rb")) as stream:
            while head := stream.read(1):
                length, digits = 0, b""
                while not digits or digits[-1] & 0x80:
                    digit = stream.read(1)
                    length |= (digit[0] & 0x7F) << (7 * len(digits))
                    digits += digit
                body = stream.read(length)
                kind = head[0] >> 4
                topic = ""
                if kind == PacketKind.PUBLISH:
                    topic = body[2 : 2 + int.from_bytes(body[:2])].decode()
                packet = Packet(time.monotonic(), outward, kind, topic, head + digits + body)
                if kind in list(PacketKind) and not topic.endswith("/poses"):
                    self.seen.append(packet)
                if self.forwards(packet):
                    sink.sendall(packet.data)
