"""Addresses of brokers."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from edgepose.errors import ConfigError
from edgepose.util.redact import masked_url
from edgepose.util.secrets import MQTT_VARIABLE

_DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A broker, without any password, so that it may be logged."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None

    def __str__(self) -> str:
        user = "" if self.username is None else f"{quote(self.username, safe='')}@"
        return f"{'mqtts' if self.tls else 'mqtt'}://{user}{self.netloc}"

    @property
    def netloc(self) -> str:
        """Host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_broker_url(url: str) -> BrokerAddress:
    """Parse `mqtt://[user@]host[:port]` or `mqtts://...`.

    Raises ConfigError, in whose text no password ever appears.
    """
    problem = _problem(url)
    if problem is not None:
        raise ConfigError(
            f"the broker address {masked_url(url)!r} {problem}; expected "
            "mqtt://[user@]host[:port], or mqtts:// for TLS"
        )
    parts = urlsplit(url)
    return BrokerAddress(
        parts.hostname or "",
        parts.port or _DEFAULT_PORTS[parts.scheme],
        parts.scheme == "mqtts",
        None if parts.username is None else unquote(parts.username),
    )


def _problem(url: str) -> str | None:
    """Return what is wrong with an address."""
    if any(c.isspace() or not c.isprintable() for c in url):
        return "has a space or control character in it"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        # Not quoted: urllib names the invalid port, which is part of a password with a slash in it.
        return (
            "has an invalid port (1 to 65535)" if "port" in str(error).lower() else "is malformed"
        )
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc:
        return "does not begin with mqtt:// or mqtts://"
    if parts.password is not None:
        return (
            "has a password, which process lists, shell histories and logs would show: put it in "
            f"a file (password_file), the environment ({MQTT_VARIABLE}) or a systemd credential"
        )
    if not parts.hostname:
        return "has no host"
    if port == 0:
        return "has port 0"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "has something after host and port (the base topic is a separate setting)"
    if not unquote(parts.username or "").isprintable():
        return "has a user with a control character in it (check the % escapes)"
    return None
