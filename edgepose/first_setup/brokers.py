"""Brokers of this network."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from edgepose.util.process import environment_without_secrets

PORT: Final = 1883
HOSTS: Final = ("localhost", "homeassistant.local", "homeassistant")
_CONNECT_S: Final = 2.0
_BROWSE_S: Final = 3.0


def find_brokers() -> Iterator[str]:
    """Yield `host:port` of each broker that is found: here, Home Assistant's, and by mDNS."""
    places = [(host, PORT) for host in HOSTS] + _advertised()
    with ThreadPoolExecutor(len(places)) as pool:
        found = list(pool.map(_listens, places))
    yield from dict.fromkeys(
        f"{host}:{port}" for (host, port), there in zip(places, found, strict=True) if there
    )


def _listens(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


def _advertised() -> list[tuple[str, int]]:
    """Return what mDNS advertises as MQTT, nothing without avahi."""
    browse = shutil.which("avahi-browse")
    if browse is None:
        return []
    try:
        done = subprocess.run(  # noqa: S603 - constant arguments
            [browse, "--resolve", "--parsable", "--terminate", "_mqtt._tcp"],
            env=environment_without_secrets(),
            capture_output=True,
            text=True,
            timeout=_BROWSE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_browse(done.stdout)


def parse_browse(text: str) -> list[tuple[str, int]]:
    """Return host and port of each resolved service in the output of `avahi-browse --parsable`.

    Its lines are =;interface;protocol;name;type;domain;host;address;port;text.
    """
    found = []
    for line in text.splitlines():
        fields = line.split(";")
        if line.startswith("=") and len(fields) >= 9 and fields[8].isdigit():
            found.append((fields[6], int(fields[8])))
    return list(dict.fromkeys(found))
