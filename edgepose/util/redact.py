"""Masking of passwords in URLs, for errors, logs and `config show`."""

import re
from typing import Final
from urllib.parse import unquote

MASK: Final = "********"

# A scheme, even if its colon is missing, and a user name. An unknown scheme may be a user name.
_LOGIN: Final = re.compile(
    r"(?>(?:(?:rtsp|mqtt|http)s?:?)?//)?+[^:]*:(.*)@", re.DOTALL | re.IGNORECASE
)
# What follows the first colon is no port if it is no number, but a password without its host.
_NO_PORT: Final = re.compile(
    r"[a-zA-Z][a-zA-Z0-9+.-]*://[^:/?#@\[]*:(?![0-9]*(?:[/?#]|\Z))([^@]+)\Z", re.DOTALL
)
# A URL that was taken for a path has one slash after the scheme. The lookbehind keeps the time for
# a long word linear.
_SCHEME: Final = re.compile(r"(?<![a-zA-Z0-9+.-])[a-zA-Z][a-zA-Z0-9+.-]+:/{1,2}")
_SECRET_NAME: Final = re.compile(r"pas|pwd|pw$|^p$|token|secret|key|auth|cred|sig", re.IGNORECASE)
_SECRET_WORD: Final = re.compile(r"((?:pass|pwd|token|secret)\w*\s*:\s*)[^\s*]\S*", re.IGNORECASE)


def masked_url(url: str) -> str:
    """Return a URL, valid or not, with everything that can be a password replaced by asterisks.

    Everything between the first colon after the scheme and the last @ is taken for the password,
    since an unescaped / or @ can be part of it; without an @, what is in place of a port. The value
    of a parameter with a name such as `pwd`, `token` or `apikey` is masked up to the next &, and so
    is the word after `password:`. A text without any of these is returned unchanged.
    """
    login = _LOGIN.match(url) or _NO_PORT.match(url)
    if login is not None and login[1]:
        url = f"{url[: login.start(1)]}{MASK}{url[login.end(1) :]}"
    return _SECRET_WORD.sub(rf"\1{MASK}", _masked_parameters(url))


def masked_text(text: str) -> str:
    """Return a text with the passwords of URLs in it masked.

    For texts of libraries, which quote whole URLs; `masked_url` finds more, in a text that is one.
    """
    return "".join(map(_masked_word, re.split(r"(\s+)", text))) if ":/" in text else text


def _masked_word(word: str) -> str:
    scheme = _SCHEME.search(word)
    if scheme is None:
        return word
    colon, at = word.find(":", scheme.end()), word.rfind("@")
    if -1 < colon < at:
        word = f"{word[: colon + 1]}{MASK}{word[at:]}"
    return _masked_parameters(word)


def _masked_parameters(url: str) -> str:
    return "&".join(map(_masked_parameter, url.split("&")))


def _masked_parameter(text: str) -> str:
    names = text.split("=")
    for number, name in enumerate(names[:-1], 1):
        # In a URL with a path, the name is only the end of the text before the =.
        last = re.split(r"[?;/#]", name)[-1]
        if _SECRET_NAME.search(unquote(last)) and any(names[number:]):
            return "=".join((*names[:number], MASK))
    return text
