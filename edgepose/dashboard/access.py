"""Who may open the page: this machine, or those who have the token."""

import hmac
import ipaddress
import secrets
from collections import deque
from typing import Final

from edgepose.errors import ConfigError
from edgepose.util.secrets import Secret

COOKIE: Final = "edgepose-session"
MAX_SESSIONS: Final = 100
MIN_TOKEN_LENGTH: Final = 16


def is_loopback(host: str) -> bool:
    """Return whether an address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_listen(host: str, token: Secret | None) -> None:
    """Raise ConfigError for an address that others can reach, if there is no token."""
    if token is None and not is_loopback(host):
        raise ConfigError(
            f"the page would be open to everyone who can reach {host}: write a token of at least "
            f"{MIN_TOKEN_LENGTH} characters into a file (`openssl rand -hex 16 > FILE; chmod 600 "
            "FILE`) and give it as dashboard.token_file or --token-file, or listen on 127.0.0.1"
        )
    if token is not None and len(token.reveal()) < MIN_TOKEN_LENGTH:
        raise ConfigError(
            f"the token of the page has fewer than {MIN_TOKEN_LENGTH} characters, which can be "
            "guessed; `openssl rand -hex 16` prints a good one"
        )


class Access:
    """Checks the token and the sessions that it opened; without a token everyone may enter.

    On a loopback address only its names are accepted as host: otherwise a page of the internet
    could reach this one through a name that it lets point to 127.0.0.1 (DNS rebinding).
    """

    def __init__(self, host: str, token: Secret | None) -> None:
        check_listen(host, token)
        self._loopback_only = is_loopback(host)
        self._token = None if token is None else token.reveal().encode()
        self._sessions: deque[str] = deque(maxlen=MAX_SESSIONS)

    def allows_host(self, host_header: str) -> bool:
        """Return whether a request is meant for this page."""
        name = host_header.rpartition(":")[0] if host_header[-1:].isdigit() else host_header
        return not self._loopback_only or is_loopback((name or host_header).strip("[]"))

    def allows_session(self, cookie: str | None) -> bool:
        """Return whether a request may see the page."""
        if self._token is None:
            return True
        given = (cookie or "").encode()
        return any(hmac.compare_digest(given, known.encode()) for known in self._sessions)

    def log_in(self, token: str) -> str | None:
        """Return the cookie of a new session, or None if the token is wrong."""
        if self._token is None or not hmac.compare_digest(token.encode(), self._token):
            return None
        session = secrets.token_urlsafe(32)
        self._sessions.append(session)
        return session
