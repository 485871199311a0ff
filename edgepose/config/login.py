"""The login of a camera or the broker: user and password, which a URL can contain in part."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from edgepose.util.secrets import Secret

LOGIN_KEYS: Final = ("username", "password", "password_file")


def login_conflicts(
    username: str | None,
    password: Secret | None,
    password_file: Path | None,
    user_in_url: str | None,
) -> Iterator[str]:
    """Report contradictions between the keys of a login and the user in the URL."""
    if password is not None and password_file is not None:
        yield "password and password_file are both set; keep one"
    if None not in (user_in_url, username) and user_in_url != username:
        yield f"the URL names the user {user_in_url!r} and username {username!r}; keep one"
    if username is user_in_url is None and (password or password_file) is not None:
        yield "a password is set without username; set both"


def with_login(url: str, username: str | None, read_password: Callable[[], Secret | None]) -> str:
    """Return the URL of a stream with user and password, escaped; a user in the URL stays.

    The password is only read if the URL has none and there is a user.
    """
    parts = urlsplit(url)
    user = parts.username if username is None else quote(username, safe="")
    if user is None or parts.password is not None:
        return url
    found = read_password()
    password = "" if found is None else ":" + quote(found.reveal(), safe="")
    return f"{parts.scheme}://{user}{password}@{url.partition('://')[2].rpartition('@')[2]}"
