"""Addresses to listen on."""


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`, or `[host]:port` for IPv6; raises ValueError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if (
        not colon
        or not (port.isascii() and port.isdigit() and int(port) < 65536)
        or not host.strip("[]")
        or (":" in host and not bracketed)
        or not host.isprintable()
        or " " in host
    ):
        raise ValueError(f"expected host:port, such as 127.0.0.1:8080 or [::1]:8080, got {text!r}")
    return host.strip("[]"), int(port)
