"""Source URIs, the values of `--source` and of the key `source` of a camera."""

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
"""The limit of a path in Linux."""
EXAMPLES: Final = "picamera:0, /dev/video0, rtsp://..., synthetic:, or an image, video or folder"

_ADDRESS: Final = re.compile(r"(?:\[[0-9a-fA-F:.%]+\]|[^\s:@\[\]]+)(?::(?P<port>[0-9]{1,5}))?")


def _one_of(expected: str, values: Mapping[str, Option]) -> Callable[[str], Option]:
    def read(text: str) -> Option:
        if text.lower() not in values:
            raise ValueError(f"expected {expected}")
        return values[text.lower()]

    return read


def _pixels(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 16384:
        raise ValueError("expected a whole number from 1 to 16384")
    return int(text)


def _rate(text: str) -> float:
    value = float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else 0.0
    if not 0 < value <= 1000:
        raise ValueError("expected frames a second, above 0 and at most 1000")
    return value


_boolean: Final = _one_of(
    "1 or 0",
    {
        **dict.fromkeys(("1", "true", "yes", "on"), True),
        **dict.fromkeys(("0", "false", "no", "off"), False),
    },
)
OPTIONS: Final[Mapping[str, Callable[[str], Option]]] = {
    "loop": _boolean,
    "realtime": _boolean,
    "width": _pixels,
    "height": _pixels,
    "fps": _rate,
    "rotate": _one_of("0, 90, 180 or 270", {str(angle): angle for angle in (0, 90, 180, 270)}),
    "mirror": _boolean,
    "stream": _one_of("main or lores", {name: name for name in ("main", "lores")}),
}
# Cameras have options of the same names as the others (`?stream=1`, `?fps=10`).
_RTSP_OPTIONS: Final = frozenset({"rotate", "mirror"})


@dataclass(frozen=True, slots=True)
class SourceUri:
    """A parsed source URI; `target` is the camera number, the device, the URL or the path."""

    kind: SourceKind
    target: str
    options: Mapping[str, Option] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the source as written, without options, with the password masked."""
        match self.kind:
            case "picamera" | "synthetic":
                return f"{self.kind}:{self.target}"
            case _:
                return masked_url(self.target)

    __repr__ = __str__


def parse_source_uri(text: str) -> SourceUri:
    """Parse a source URI; raises UsageError with the reason and a suggestion.

    Options follow a `?`. A `?` in the name of an existing file is part of the name. In an RTSP URL
    only `rotate` and `mirror` are options; the rest of the query is part of the URL.
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
        _reject_unless_path(shown, target, scheme)
    if re.match(r"/dev/(?!shm/)", target):
        return SourceUri("v4l2", target, options)
    return SourceUri("path", _expanded(target), options)


def _reject_unless_path(shown: str, target: str, scheme: str) -> None:
    """Raise UsageError if a text that is not the path of a file is probably not a path at all."""
    if scheme:
        hint = did_you_mean(scheme, ("picamera", "synthetic", "rtsp", "file"))
        raise UsageError(f"{shown}: unknown source {scheme}:, expected {EXAMPLES}{hint}")
    if masked_url(target) != target:
        # A path is shown unmasked, so this must not be taken for one.
        raise UsageError(f"{shown}: no such file; the URL of a stream begins with rtsp://")
    if target.lower() in {"picamera", "synthetic", "rtsp"}:
        raise UsageError(f"{shown}: expected a colon after {target}; expected {EXAMPLES}")
    if re.fullmatch(r"[0-9]{1,3}", target):
        raise UsageError(
            f"{shown}: no such file; did you mean /dev/video{target} or picamera:{target}?"
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
    """Whether other parsers find the same host, and no part of it in the password."""
    try:
        authority = urlsplit(text).netloc
    except ValueError:
        return False
    return authority == text.partition("://")[2].partition("/")[0].partition("?")[0]


def _without_options(text: str) -> tuple[str, str]:
    """Split off the options; a ? in the name of an existing file is part of the name."""
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
    except OSError:  # a name that is too long, or a folder without permission
        return False


def _expanded(path: str) -> str:
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:  # an unknown user: file names can begin with ~
        return path


def _part(text: str, shown: str) -> str:
    """Return a part of a source, masked if it is masked in the source.

    After a ? in a password, the rest of the password is parsed as options.
    """
    return text if text in shown else MASK


def _options(query: str, shown: str) -> dict[str, Option]:
    options: dict[str, Option] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            raise UsageError(
                f"{shown}: unknown option {_part(name, shown)!r}, expected one of "
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
