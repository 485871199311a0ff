"""Source URIs: what stands after `--source` and in `cameras: source:`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from edgepose.errors import UsageError
from edgepose.suggestions import did_you_mean

SourceKind = Literal["picamera", "v4l2", "rtsp", "path", "synthetic"]
Option = bool | int | float | str

EXAMPLES: Final = "picamera:0, /dev/video0, rtsp://..., synthetic:, or a picture, video or folder"

_TRUE: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _switch(text: str) -> bool:
    if text.lower() not in _TRUE:
        raise ValueError("expected 1 or 0")
    return _TRUE[text.lower()]


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 16384:
        raise ValueError("expected a whole number from 1 to 16384")
    return int(text)


def _rate(text: str) -> float:
    value = float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0
    if not 0 < value <= 1000:
        raise ValueError("expected frames a second, above 0 and at most 1000")
    return value


def _quarter(text: str) -> int:
    if text not in {"0", "90", "180", "270"}:
        raise ValueError("expected 0, 90, 180 or 270")
    return int(text)


def _stream(text: str) -> str:
    if text not in {"main", "lores"}:
        raise ValueError("expected main or lores")
    return text


OPTIONS: Final[Mapping[str, Callable[[str], Option]]] = {
    "loop": _switch,
    "realtime": _switch,
    "width": _count,
    "height": _count,
    "fps": _rate,
    "rotate": _quarter,
    "mirror": _switch,
    "stream": _stream,
}


@dataclass(frozen=True, slots=True)
class SourceUri:
    """A parsed source URI: `target` is the camera's number, the device, the URL or the path."""

    kind: SourceKind
    target: str
    options: Mapping[str, Option] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the target without a password."""
        return masked_url(self.target) if self.kind == "rtsp" else self.target or f"{self.kind}:"

    __repr__ = __str__


def parse_source_uri(text: str) -> SourceUri:
    """Parse a source URI; raises UsageError with what is wrong and what could be meant.

    Options follow a `?`. A path that really has a `?` in its name is taken as it is where such a
    file exists; in a stream's URL, only our own options are taken out and the rest stays.
    """
    text = text.strip()
    if not text:
        raise UsageError(f"the source is empty, expected {EXAMPLES}")
    scheme = urlsplit(text).scheme.lower() if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:", text) else ""
    if scheme in {"rtsp", "rtsps"}:
        return _stream_uri(text)
    if scheme == "" and Path(text).exists() and "?" in text:
        return SourceUri("path", text)
    target, _, query = text.partition("?")
    options = _options(query, text)
    if scheme == "picamera":
        number = target.partition(":")[2] or "0"
        if not number.isdecimal():
            raise UsageError(f"{text}: expected a camera's number, such as picamera:0")
        return SourceUri("picamera", str(int(number)), options)
    if scheme == "synthetic":
        return SourceUri("synthetic", "", options)
    if scheme == "file":
        return SourceUri("path", unquote(urlsplit(target).path), options)
    if scheme and not Path(target).exists():
        hint = did_you_mean(scheme, ("picamera", "synthetic", "rtsp", "file"))
        raise UsageError(f"{text}: no source is called {scheme}:{hint}; expected {EXAMPLES}")
    if re.fullmatch(r"/dev/video\d+|/dev/v4l/.+", target):
        return SourceUri("v4l2", target, options)
    return SourceUri("path", target, options)


def masked_url(url: str) -> str:
    """Return a URL with its password, if any, as asterisks."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at or ":" not in user:
        return url
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:********@{host}"))


def _stream_uri(text: str) -> SourceUri:
    parts = urlsplit(text)
    if not parts.hostname:
        raise UsageError(f"{masked_url(text)}: expected rtsp://host[:port]/path")
    ours: list[str] = []
    theirs: list[str] = []
    for pair in filter(None, parts.query.split("&")):
        (ours if pair.partition("=")[0] in OPTIONS else theirs).append(pair)
    target = urlunsplit(parts._replace(query="&".join(theirs)))
    return SourceUri("rtsp", target, _options("&".join(ours), masked_url(text)))


def _options(query: str, text: str) -> dict[str, Option]:
    options: dict[str, Option] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            raise UsageError(
                f"{text}: no option is called {name!r}{did_you_mean(name, OPTIONS)}; "
                f"there are {', '.join(OPTIONS)}"
            )
        try:
            options[name] = OPTIONS[name](value)
        except ValueError as error:
            raise UsageError(f"{text}: option {name}: {error}, got {value!r}") from None
    if query and not options:
        raise UsageError(f"{text}: expected options such as ?loop=1 after the ?, got {query!r}")
    return options
