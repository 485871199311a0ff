"""Addresses to listen on, and of pages."""

import re
from typing import Final
from urllib.parse import urlsplit

from edgepose.util.redact import masked_url

_HOST: Final = re.compile(r"[a-zA-Z0-9._-]+|[0-9a-f:.]+(%[a-zA-Z0-9._-]+)?")
_NOT_IN_URL: Final = re.compile(r"[^!-~]")


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


def check_page_url(text: str) -> None:
    """Raise ValueError for what is no http:// or https:// URL of a page, or has a login in it."""
    try:
        url = urlsplit(text)
        host, _port = url.hostname or "", url.port
    except ValueError:
        url, host = urlsplit(""), ""
    valid = url.scheme in ("http", "https") and _HOST.fullmatch(host) and "@" not in url.netloc
    if not valid or _NOT_IN_URL.search(text):
        raise ValueError(
            "expected the address of a page without a login, such as http://192.168.1.20:8080, "
            f"got {masked_url(text)!r}"
        )
