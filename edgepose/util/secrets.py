"""Passwords that are never printed, and the places they are read from."""

import os
from pathlib import Path
from typing import Final

from edgepose.errors import SecretFileError
from edgepose.util.files import is_utf16, read_regular_file
from edgepose.util.redact import MASK

# Names of systemd credentials, and of the environment variables that can replace them.
MQTT_PASSWORD: Final = "mqtt-password"  # noqa: S105
MQTT_VARIABLE: Final = "EDGEPOSE_MQTT_PASSWORD"
CAMERA_PASSWORD: Final = "camera-password"  # noqa: S105
CAMERA_VARIABLE: Final = "EDGEPOSE_CAMERA_PASSWORD"
DASHBOARD_TOKEN: Final = "dashboard-token"  # noqa: S105
DASHBOARD_VARIABLE: Final = "EDGEPOSE_DASHBOARD_TOKEN"
MAX_BYTES: Final = 64 << 10


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


def find_password(
    given: Secret | None, file: Path | None, *, credential: str, variable: str
) -> Secret | None:
    """Return the password from the first place that has one, else None.

    The places: the one that is given, a file, a systemd credential, an environment variable. Files
    are read afresh, so that a new password needs no restart. Raises SecretFileError.
    """
    if given is not None:
        return given
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if file is None and credentials and os.access(Path(credentials) / credential, os.F_OK):
        file = Path(credentials) / credential
    if file is not None:
        return read_password_file(file)
    text = os.environ.get(variable)
    return Secret(text) if text else None


def read_password_file(path: Path) -> Secret:
    """Read a password, without byte order mark and line end; raises SecretFileError."""
    try:
        content = read_regular_file(path, MAX_BYTES)
    except OSError as error:
        raise SecretFileError(
            f"{path}: the password cannot be read ({error.strerror}): check the path and that the "
            "user of edgepose may read it"
        ) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        got = "UTF-16" if is_utf16(content) else "another encoding"
        raise SecretFileError(
            f"{path}: expected the password as UTF-8 text, got {got}; save the file as UTF-8"
        ) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or "\n" in text:
        raise SecretFileError(
            f"{path}: expected the password in one line, got "
            f"{'several lines' if text else 'an empty file'}"
        )
    return Secret(text)
