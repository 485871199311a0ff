"""Source URIs: what stands after `--source` and in `cameras: source:`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from edgepose.errors import UsageError
from edgepose.util.redact import MASK, masked_url
from edgepose.util.suggest import did_you_mean

SourceKind = Literal["picamera", "v4l2", "rtsp", "path", "synthetic"]
Option = bool | int | float | str

MAX_LENGTH: Final = 4096
"""That of a path in Linux; a URL of this length is no camera's."""
EXAMPLES: Final = "picamera:0, /dev/video0, rtsp://..., synthetic:, or a picture, video or folder"

_TRUE: Final = {
    "1": True, "true": True, "yes": True, "on": True,
    "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip
_ADDRESS: Final = re.compile(r"(?:\[[0-9a-fA-F:.%]+\]|[^\s:@\[\]]+)(?::(?P<port>[0-9]{1,5}))?")


def _switch(text: str) -> bool:
    if text.lower() not in _TRUE:
        raise ValueError("expected 1 or 0")
    return _TRUE[text.lower()]


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 16384:
        raise ValueError("expected a whole number from 1 to 16384")
    return int(text)


def _rate(text: str) -> float:
    value = float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else 0.0
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
# The others mean nothing for a stream, and cameras use their names for options of their own
# (`?stream=1`, `?fps=10`), which must arrive there.
_RTSP_OPTIONS: Final = frozenset({"rotate", "mirror"})


@dataclass(frozen=True, slots=True)
class SourceUri:
    """A parsed source URI: `target` is the camera's number, the device, the URL or the path."""

    kind: SourceKind
    target: str
    options: Mapping[str, Option] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the source as it is written, without its options and without a password."""
        match self.kind:
            case "picamera" | "synthetic":
                return f"{self.kind}:{self.target}"
            case _:
                return masked_url(self.target)

    __repr__ = __str__


def parse_source_uri(text: str) -> SourceUri:
    """Parse a source URI; raises UsageError with what is wrong and what could be meant.

    Options follow a `?`. A `?` that belongs to the name of an existing file stays there; in a
    stream's URL only `rotate` and `mirror` are ours, and the rest of its query stays.
    """
    text = text.strip()
    if not text:
        raise UsageError(f"the source is empty, expected {EXAMPLES}")
    if len(text) > MAX_LENGTH:
        raise UsageError(
            f"expected a source of at most {MAX_LENGTH} characters, got {len(text)}; it may be "
            f"{EXAMPLES}"
        )
    shown = masked_url(text)
    if not text.isprintable():
        raise UsageError(f"{shown!r}: expected a source without control characters")
    named = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+):", text)
    scheme = named[1].lower() if named else ""
    if scheme in {"rtsp", "rtsps"}:
        return _stream_uri(text)
    target, query = _without_options(text)
    if not target:
        raise UsageError(f"{shown}: expected {EXAMPLES} before the options")
    options = _options(query, shown)
    rest = target.partition(":")[2]
    if scheme == "picamera":
        if rest and not re.fullmatch(r"[0-9]{1,3}", rest):
            raise UsageError(f"{shown}: expected a camera's number, such as picamera:0")
        return SourceUri("picamera", str(int(rest or "0")), options)
    if scheme == "synthetic":
        if rest:
            raise UsageError(f"{shown}: expected nothing after synthetic: but options")
        return SourceUri("synthetic", "", options)
    if scheme == "file":
        host, slash, path = rest.removeprefix("//").partition("/")
        if not slash or host not in {"", "localhost"}:
            raise UsageError(f"{shown}: expected file:///path/to/a/file")
        return SourceUri("path", unquote(slash + path), options)
    if not _exists(target):
        _refuse_what_is_no_path(shown, target, scheme)
    if re.match(r"/dev/(?!shm/)", target):
        return SourceUri("v4l2", target, options)
    return SourceUri("path", _expanded(target), options)


def _refuse_what_is_no_path(shown: str, target: str, scheme: str) -> None:
    """Raise UsageError where something that is no file was probably not meant as one either."""
    if scheme:
        hint = did_you_mean(scheme, ("picamera", "synthetic", "rtsp", "file"))
        raise UsageError(f"{shown}: no source is called {scheme}:, expected {EXAMPLES}{hint}")
    if masked_url(target) != target:
        # Beyond here it would be a path, and paths are shown as they are.
        raise UsageError(f"{shown}: no file is called so; a stream's URL begins with rtsp://")
    if target.lower() in {"picamera", "synthetic", "rtsp"}:
        raise UsageError(f"{shown}: expected a colon after {target}; expected {EXAMPLES}")
    if re.fullmatch(r"[0-9]{1,3}", target):
        raise UsageError(
            f"{shown}: no file is called so; did you mean /dev/video{target} or picamera:{target}?"
        )


def _stream_uri(text: str) -> SourceUri:
    shown = masked_url(text)
    scheme, separator, rest = text.partition("://")
    place, _, query = rest.partition("?")
    address = _ADDRESS.fullmatch(place.partition("/")[0].rpartition("@")[2])
    port = int(address["port"] or 1) if address else 0
    if not separator or not 1 <= port <= 65535 or not _is_url(text):
        raise UsageError(
            f"{shown}: expected rtsp://[user:password@]host[:port]/path; in a password write @ as "
            "%40, / as %2F, ? as %3F, : as %3A and # as %23"
        )
    ours: list[str] = []
    theirs: list[str] = []
    for pair in query.split("&") if query else ():
        (ours if pair.partition("=")[0] in _RTSP_OPTIONS else theirs).append(pair)
    target = f"{scheme.lower()}://{place}" + ("?" + "&".join(theirs) if theirs else "")
    return SourceUri("rtsp", target, _options("&".join(ours), shown))


def _is_url(text: str) -> bool:
    """Whether who takes the URL apart later finds the host where we did, not in the password."""
    try:
        authority = urlsplit(text).netloc
    except ValueError:
        return False
    return authority == text.partition("://")[2].partition("/")[0].partition("?")[0]


def _without_options(text: str) -> tuple[str, str]:
    """Split off the options; a ? up to which there is a file belongs to the file's name."""
    head, tail = text, ""
    while "?" in head:
        if _exists(head):
            return head, tail.removeprefix("?")
        head, mark, last = head.rpartition("?")
        tail = mark + last + tail
    return head, tail.removeprefix("?")


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # a name too long for a file, or a folder that may not be looked into
        return False


def _expanded(path: str) -> str:
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:  # no user is called so: a file's name may begin with ~
        return path


def _part(text: str, shown: str) -> str:
    """Return a part of a source, or a mask where the source is shown without it.

    A ? in a password makes options of the rest of it.
    """
    return text if text in shown else MASK


def _options(query: str, shown: str) -> dict[str, Option]:
    options: dict[str, Option] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            raise UsageError(
                f"{shown}: no option is called {_part(name, shown)!r}, there are "
                f"{', '.join(OPTIONS)}{did_you_mean(name, OPTIONS)}"
            )
        if name in options:
            raise UsageError(f"{shown}: option {name} is given twice")
        try:
            options[name] = OPTIONS[name](value)
        except ValueError as error:
            raise UsageError(
                f"{shown}: option {name}: {error}, got {masked_url(value)!r}"
            ) from None
    if query and not options:
        raise UsageError(
            f"{shown}: expected options such as ?loop=1 after the ?, got {_part(query, shown)!r}"
        )
    if ("width" in options) != ("height" in options):
        raise UsageError(f"{shown}: expected width and height together")
    return options
