"""Source URIs, the values of `--source` and of the key `source` of a camera."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Meta

from edgepose.config.values import Boolean, convert
from edgepose.config.yaml_reader import describe, plain
from edgepose.errors import UsageError
from edgepose.util.folders import expanded
from edgepose.util.redact import MASK, masked_url
from edgepose.util.suggest import did_you_mean

SourceKind = Literal["picamera", "v4l2", "rtsp", "path", "synthetic"]

MAX_LENGTH: Final = 4096
"""The limit of a path in Linux."""
EXAMPLES: Final = "picamera:0, /dev/video0, rtsp://..., synthetic:, or an image, video or folder"

FrameSide = Annotated[int, Meta(ge=16, le=16384)]
FrameRate = Annotated[float, Meta(gt=0, le=1000)]
Rotation = Literal[0, 90, 180, 270]
Stream = Literal["main", "lores"]
OPTIONS: Final[Mapping[str, Any]] = {
    "loop": Boolean,
    "realtime": Boolean,
    "width": FrameSide,
    "height": FrameSide,
    "fps": FrameRate,
    "rotate": Rotation,
    "mirror": Boolean,
    "stream": Stream,
}
UNFIT_OPTIONS: Final[Mapping[SourceKind, frozenset[str]]] = {
    "picamera": frozenset(),
    "v4l2": frozenset({"stream"}),
    "rtsp": frozenset({"width", "height", "fps", "stream"}),
    "path": frozenset({"width", "height", "stream"}),
    "synthetic": frozenset({"stream"}),
}
"""What a kind of source cannot do, as an option and as a key of the camera."""
_SCHEMES: Final = ("picamera", "synthetic", "rtsp", "rtsps", "file")
# Before a colon, another word is a scheme only if no name of a file follows it: `picamra:0`,
# `http://cam/x`. In `sunday:1.mp4` the colon is part of the name.
_SCHEME: Final = re.compile(
    rf"({'|'.join(_SCHEMES)}|[a-z][a-z0-9+.-]+(?=://|:[0-9]*(?:\?|$))):", re.IGNORECASE
)
# Not `str.isprintable`: the names of files may have spaces of any kind, and bytes that are no text.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Cameras have options of the same names as the others (`?stream=1`, `?fps=10`).
_RTSP_OPTIONS: Final = frozenset({"rotate", "mirror"})


@dataclass(frozen=True, slots=True)
class SourceUri:
    """A parsed source URI; `target` is the camera number, the device, the URL or the path."""

    kind: SourceKind
    target: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the source as written, without options, with the password masked."""
        named = self.kind in ("picamera", "synthetic")
        return f"{self.kind}:{self.target}" if named else masked_url(self.target)

    __repr__ = __str__


def is_source_path(text: str) -> bool:
    """Whether a source is written as the path of a file, folder or device."""
    return _SCHEME.match(text.strip()) is None


def parse_source_uri(text: str) -> SourceUri:
    """Parse a source URI; raises UsageError with the reason and a suggestion.

    Options follow a `?`. A `?` in the name of an existing file is part of the name, unless options
    follow it. In an RTSP URL only `rotate` and `mirror` are options; the rest of the query is part
    of the URL. Only a doubtful text is searched for on the disk, which may hang.
    """
    text = text.strip()
    if not 0 < len(text) <= MAX_LENGTH or _CONTROL.search(text):
        raise UsageError(
            f"expected {EXAMPLES}, at most {MAX_LENGTH} characters without control characters, "
            f"got {describe(text)}"
        )
    shown = masked_url(text)
    named = _SCHEME.match(text)
    scheme = named[1].lower() if named else ""
    if scheme in {"rtsp", "rtsps"}:
        return _stream_uri(text, shown)
    target, mark, query = text.rpartition("?")
    if not mark:
        target, query = text, ""
    if not target:
        raise UsageError(f"{shown}: expected {EXAMPLES} before the options")
    try:
        options = _options(query, shown)
    except UsageError:
        # `Path.exists` raises for a name that is too long.
        if not os.path.exists(text):  # noqa: PTH110
            raise
        target, options = text, {}
    rest = target.partition(":")[2]
    match scheme:
        case "picamera":
            if not re.fullmatch(r"[0-9]{0,3}", rest):
                raise UsageError(f"{shown}: expected a camera's number, such as picamera:0")
            return SourceUri("picamera", str(int(rest or "0")), options)
        case "synthetic":
            if rest:
                raise UsageError(f"{shown}: expected nothing after synthetic: but options")
            return SourceUri("synthetic", "", options)
        case "file":
            host, slash, path = rest.removeprefix("//").partition("/")
            if not slash or host not in {"", "localhost"}:
                raise UsageError(f"{shown}: expected file:///path/to/a/file")
            return SourceUri("path", unquote(slash + path), options)
    doubt = _doubt(shown, target, scheme)
    if doubt is not None and not os.path.exists(target):  # noqa: PTH110
        raise UsageError(doubt)
    if re.match(r"/dev/(?!shm/)", target):
        return SourceUri("v4l2", target, options)
    return SourceUri("path", str(expanded(target)), options)


def _doubt(shown: str, target: str, scheme: str) -> str | None:
    """Return why a text is probably not the path of a file, unless there is one; else None."""
    if scheme:
        hint = did_you_mean(scheme, _SCHEMES) or "; a file of this name is written with ./ before"
        return f"{shown}: unknown source {scheme}:, expected {EXAMPLES}{hint}"
    if masked_url(target) != target:
        # A path is shown unmasked, so this must not be taken for one.
        return f"{shown}: no such file; the URL of a stream begins with rtsp://"
    meant = f"{target}:" if target.lower() in {"picamera", "synthetic", "rtsp"} else None
    if re.fullmatch(r"[0-9]{1,3}", target):
        meant = f"/dev/video{target} or picamera:{target}"
    return None if meant is None else f"{shown}: no such file; did you mean {meant}?"


def _stream_uri(text: str, shown: str) -> SourceUri:
    scheme, _, rest = text.partition("://")
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    # In rtsp://u:a@b/c@cam, b is not the host but a part of the password.
    if "@" in path + query or not _has_host(text, authority):
        raise UsageError(
            f"{shown}: expected rtsp://host[:port]/path, or that with user:password@ before the "
            "host; write any other @ as %40, and in a password / as %2F, ? as %3F, : as %3A and # "
            "as %23"
        )
    pairs = query.split("&") if query else []
    ours = [pair for pair in pairs if pair.partition("=")[0] in _RTSP_OPTIONS]
    theirs = [pair for pair in pairs if pair not in ours]
    target = f"{scheme.lower()}://{place}" + ("?" + "&".join(theirs) if theirs else "")
    return SourceUri("rtsp", target, _options("&".join(ours), shown))


def _has_host(url: str, authority: str) -> bool:
    """Whether other parsers find a valid host in a URL, and no part of it in the password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.netloc == authority and " " not in authority and port != 0 and bool(parts.hostname)


def _options(query: str, shown: str) -> dict[str, Any]:
    def part(text: str) -> str:
        # After a ? in a password, the rest of the password is parsed as options.
        return repr(text if text in shown else MASK)

    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            raise UsageError(
                f"{shown}: unknown option {part(name)}, expected one of "
                f"{', '.join(OPTIONS)}{did_you_mean(name, OPTIONS)}"
            )
        if name in options:
            raise UsageError(f"{shown}: option {name} is given twice")
        try:
            options[name] = convert(OPTIONS[name], plain(value), part(value))
        except ValueError as error:
            raise UsageError(f"{shown}: option {name}: {error}") from None
    if query and not options:
        raise UsageError(
            f"{shown}: expected options such as ?loop=1 after the ?, got {part(query)}"
        )
    if ("width" in options) != ("height" in options):
        raise UsageError(f"{shown}: expected width and height together")
    return options
