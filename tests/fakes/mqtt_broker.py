"""An MQTT broker that does what no good broker does, for one client after the other."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final

from tests.resource import Resource

_CONNECT, _PUBLISH, _SUBSCRIBE, _PINGREQ = 1, 3, 8, 12
NOT_AUTHORIZED: Final = 0x87
HUGE: Final = 200_000_000
_CHUNK: Final = bytes(65536)


def always(_topic: str) -> bool:
    """Return True."""
    return True


def never(_topic: str) -> bool:
    """Return False."""
    return False


class FakeBroker(Resource):
    """Speaks MQTT 5 or 3.1.1, whichever the client does.

    `max_packet_bytes` is announced in MQTT 5. `acknowledges` tells whether a topic's messages are
    acknowledged, `refuses` whether with an error, and `ends_at` whether they end the connection.
    With `huge`, each connection gets a message of 200 MB; `sent_bytes` counts what was taken of it.
    """

    def __init__(
        self,
        *,
        max_packet_bytes: int | None = None,
        acknowledges: Callable[[str], bool] = always,
        refuses: Callable[[str], bool] = never,
        ends_at: Callable[[str], bool] = never,
        answers_subscribe: bool = True,
        huge: bool = False,
    ) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.largest: dict[str, int] = {}
        self.connections = 0
        self.sent_bytes = 0
        self._max_packet_bytes = max_packet_bytes
        self._acknowledges = acknowledges
        self._refuses = refuses
        self._ends_at = ends_at
        self._answers_subscribe = answers_subscribe
        self._huge = huge

    def open(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def payloads(self, topic: str) -> list[bytes]:
        """Return what was published on a topic, in order."""
        return [payload for other, payload in self.published if other == topic]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, EOFError):
            stream = connection.makefile("rb")
            version = 0
            while True:
                first, body = _read_packet(stream.read)
                kind = first >> 4
                if kind == _CONNECT:
                    version = body[6]
                    self.connections += 1
                    connection.sendall(self._connack(version))
                    if self._huge:
                        self._send_huge(connection)
                elif kind == _SUBSCRIBE and self._answers_subscribe:
                    suback = body[:2] + (b"\x00" if version == 5 else b"") + b"\x01"
                    connection.sendall(bytes((0x90, len(suback))) + suback)
                elif kind == _PINGREQ:
                    connection.sendall(b"\xd0\x00")
                elif kind == _PUBLISH:
                    size = 1 + _digits(len(body)) + len(body)
                    if not self._take(connection, first, body, version, size):
                        return

    def _connack(self, version: int) -> bytes:
        if version != 5:
            return b"\x20\x02\x00\x00"
        properties = b""
        if self._max_packet_bytes is not None:
            properties = b"\x27" + struct.pack(">I", self._max_packet_bytes)
        return bytes((0x20, 3 + len(properties), 0, 0, len(properties))) + properties

    def _take(
        self, connection: socket.socket, first: int, body: bytes, version: int, size: int
    ) -> bool:
        (length,) = struct.unpack_from(">H", body)
        topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
        qos = first >> 1 & 3
        number, rest = (rest[:2], rest[2:]) if qos else (b"", rest)
        self.published.append((topic, rest[1:] if version == 5 else rest))
        self.largest[topic] = max(size, self.largest.get(topic, 0))
        if self._ends_at(topic):
            return False
        if qos and self._acknowledges(topic):
            code = bytes((NOT_AUTHORIZED,)) if version == 5 and self._refuses(topic) else b""
            connection.sendall(bytes((0x40, 2 + len(code))) + number + code)
        return True

    def _send_huge(self, connection: socket.socket) -> None:
        length, digits = HUGE, bytearray()
        while length:
            length, digit = divmod(length, 128)
            digits.append(digit | (128 if length else 0))
        connection.sendall(b"\x30" + bytes(digits))
        for _ in range(HUGE // len(_CHUNK)):
            self.sent_bytes += connection.send(_CHUNK)


def _digits(length: int) -> int:
    return 1 if length < 128 else 2 if length < 128**2 else 3 if length < 128**3 else 4


def _read_packet(read: Callable[[int], bytes]) -> tuple[int, bytes]:
    first = read(1)
    length = shift = 0
    while first:
        digit = read(1)[0]
        length |= (digit & 127) << shift
        shift += 7
        if digit < 128:
            return first[0], read(length)
    raise EOFError
