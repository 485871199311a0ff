"""Addresses of brokers, and passwords that are never printed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from edgepose.errors import ConfigError
from edgepose.util.redact import MASK, masked_url

PASSWORD_VARIABLE: Final = "EDGEPOSE_MQTT_PASSWORD"  # noqa: S105 - a variable's name
_DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


class Secret:
    """A text that only `reveal` returns; everything else prints a mask."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __repr__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str | tuple[object, ...]:
        # A pickled secret is a secret in a file.
        raise TypeError("a secret is not serialized")


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
            f"a file (password_file), the environment ({PASSWORD_VARIABLE}) or a systemd credential"
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


def read_password_file(path: Path) -> Secret:
    """Read a password, without the line end after it; raises ConfigError."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: the broker's password is expected as UTF-8 text") from None
    except OSError as error:
        raise ConfigError(
            f"{path}: the broker's password cannot be read ({error.strerror}): check the path and "
            "that the user of edgepose may read it"
        ) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or "\n" in text:
        raise ConfigError(
            f"{path}: expected the broker's password in one line, got "
            f"{'several lines' if text else 'an empty file'}"
        )
    return Secret(text)
