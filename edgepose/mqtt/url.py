"""Where the broker is and how to get in: addresses, TLS files and passwords that never print."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from edgepose.errors import ConfigError
from edgepose.util.redact import MASK, masked_url

PASSWORD_VARIABLE: Final = "EDGEPOSE_MQTT_PASSWORD"  # noqa: S105 - a variable's name
_DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


class Secret:
    """A text that is only shown when asked for by name; everything else prints a mask."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
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
    """A broker, without any password: `str()` of it is fit for logs."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None

    def __str__(self) -> str:
        user = "" if self.username is None else f"{quote(self.username, safe='')}@"
        return f"{'mqtts' if self.tls else 'mqtt'}://{user}{self.netloc}"

    @property
    def netloc(self) -> str:
        """Host and port as people write them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What TLS needs beyond the system's own certificate authorities.

    `insecure` accepts any certificate, whoever signed it and whatever name it bears.
    """

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    insecure: bool = False


def parse_broker_url(url: str) -> BrokerAddress:
    """Read `mqtt://[user@]host[:port]` or `mqtts://...`.

    Raises ConfigError, in whose text no password ever appears.
    """
    expected = "expected mqtt://[user@]host[:port] or mqtts://[user@]host[:port]"
    if any(c.isspace() or not c.isprintable() for c in url):
        raise ConfigError(f"the broker address has a space or control character in it: {expected}")
    shown = masked_url(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(
            f"the broker address {shown!r} cannot be read ({_reason(error)}): {expected}"
        ) from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc:
        raise ConfigError(
            f"the broker address {shown!r} does not begin with mqtt:// or mqtts://: "
            f"{expected}, for example mqtt://localhost:1883"
        )
    if parts.password is not None:
        raise ConfigError(
            f"the broker address {shown!r} carries a password, which process lists, shell "
            "histories and logs would show: leave it out of the address and put it in a file "
            f"(password_file), the environment ({PASSWORD_VARIABLE}) or a systemd credential"
        )
    if not parts.hostname:
        raise ConfigError(f"the broker address {shown!r} names no host: {expected}")
    if port == 0:
        raise ConfigError(f"the broker address {shown!r} has port 0: a port is 1 to 65535")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(
            f"the broker address {shown!r} has something after host and port: {expected}; the base "
            "topic is a setting of its own"
        )
    username = _username(parts)
    if username is not None and not username.isprintable():
        raise ConfigError(
            f"the broker address {shown!r} names a user with a control character in it, which no "
            "broker takes: check the % escapes"
        )
    return BrokerAddress(
        parts.hostname, port or _DEFAULT_PORTS[parts.scheme], parts.scheme == "mqtts", username
    )


def read_password(
    *,
    file: Path | None = None,
    variable: str | None = None,
    credential: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Secret | None:
    """Fetch the password from the one place that is given; None where none is.

    `credential` is a name in systemd's credentials directory. A line end after the password is not
    part of it. Raises ConfigError where the place is named but holds nothing.
    """
    environment = os.environ if environment is None else environment
    given = [place for place in (file, variable, credential) if place is not None]
    if len(given) > 1:
        raise ConfigError(
            "the broker's password is taken from one place, a file, an environment variable or a "
            f"systemd credential, got {len(given)} of them: keep one"
        )
    if variable is not None:
        text = environment.get(variable)
        if not text:
            raise ConfigError(
                f"the environment variable {variable} should hold the broker's password but is "
                f"{'empty' if text == '' else 'not set'}: set it, or take the password from a file"
            )
        return Secret(text)
    if credential is not None:
        directory = environment.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise ConfigError(
                f"the broker's password should be the systemd credential {credential}, but systemd "
                f"handed none over: add LoadCredential={credential}:/path/to/file to the service"
            )
        if "/" in credential or credential in (".", ".."):
            raise ConfigError(
                f"a systemd credential is a plain name, got {credential!r}: for a path use "
                "password_file"
            )
        file = Path(directory) / credential
    return None if file is None else _read_password_file(file)


def _read_password_file(path: Path) -> Secret:
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


def _username(parts: SplitResult) -> str | None:
    return None if parts.username is None else unquote(parts.username)


def _reason(error: ValueError) -> str:
    text = str(error)
    # urllib quotes the port it could not read, which is part of a password with a slash in it.
    return "the port is not a number from 1 to 65535" if "ort" in text else "it is malformed"
