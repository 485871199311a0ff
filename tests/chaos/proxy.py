"""A TCP proxy that can break its connections and limit their rate."""

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self

_BUFFER_BYTES = 4096


class TcpProxy:
    """Forwards TCP connections on `port` to the port `target` of this machine.

    `bytes_per_s` limits the rate from the client, None does not; data that waits then fills the
    socket of the sender. `connections` counts those that were accepted.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.bytes_per_s: float | None = None
        self.connections = 0
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._serve()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.block()

    def block(self) -> None:
        """Break all connections and refuse new ones."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections = list(self._open)
            self._open.clear()
        for connection in connections:
            _end(connection)

    def unblock(self) -> float:
        """Accept connections again; return when, on the monotonic clock."""
        self._listener = self._listen(self.port)
        self._serve()
        return time.monotonic()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        # Inherited by its connections; otherwise the kernel buffers megabytes of a limited one.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        return listener

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                far = socket.create_connection(("127.0.0.1", self.target), 2)
            except OSError:
                _end(near)
                continue
            far.settimeout(None)
            for connection in (near, far):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(
                    target=self._pump, args=(source, sink, source is near), daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        with contextlib.suppress(OSError):
            self._forward(source, sink, outward)
        with self._lock:
            self._open -= {source, sink}
        _end(source)
        _end(sink)

    def _forward(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        """Pass data on until the source ends it; `outward` is that from the client."""
        while data := source.recv(_BUFFER_BYTES):
            if outward and self.bytes_per_s is not None:
                time.sleep(len(data) / self.bytes_per_s)
            sink.sendall(data)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
