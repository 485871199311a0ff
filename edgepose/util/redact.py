"""What must not be shown of a URL: one way of masking for errors, logs and `config show` alike."""

import re
from typing import Final
from urllib.parse import unquote

MASK: Final = "********"

# A scheme with its slashes, also where the colon or a slash is missing, and a user, who does not
# begin with the bracket of an IPv6 address.
_LOGIN: Final = re.compile(r"(?>(?:[a-zA-Z][a-zA-Z0-9+.-]*:?)?/+)?+[^:\[]*:(.*)@", re.DOTALL)
_SECRET_NAME: Final = re.compile(r"pas|pwd|pw$|^p$|token|secret|key|auth|cred|sig", re.IGNORECASE)
_SECRET_WORD: Final = re.compile(r"((?:pass|pwd|token|secret)\w*\s*:\s*)[^\s*]\S*", re.IGNORECASE)


def masked_url(url: str) -> str:
    """Return a URL, or what was meant as one, with all that may be a password as asterisks.

    All between the first colon after the scheme and the last @ counts as the password: one that
    holds a / or an @ must not be shown either, though it should have been written with % escapes.
    So does the value of a parameter with a name such as `pwd`, `token` or `apikey`, up to the next
    &, wherever in the URL it stands, and what follows `password:`. A text without any of these is
    returned as it is.
    """
    login = _LOGIN.match(url)
    if login is not None and login[1]:
        url = f"{url[: login.start(1)]}{MASK}{url[login.end(1) :]}"
    url = "&".join(map(_masked_parameter, url.split("&")))
    return _SECRET_WORD.sub(rf"\1{MASK}", url)


def _masked_parameter(text: str) -> str:
    names = text.split("=")
    for number, name in enumerate(names[:-1], 1):
        # In a path-like URL the name is only the end of what stands before the sign.
        last = re.split(r"[?;/#]", name)[-1]
        if _SECRET_NAME.search(unquote(last)) and any(names[number:]):
            return "=".join((*names[:number], MASK))
    return text
