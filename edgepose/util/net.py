"""Network helpers."""

import socket


def free_port() -> int:
    """Return a TCP port of the loopback interface on which nothing listens now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
