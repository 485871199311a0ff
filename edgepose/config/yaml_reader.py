"""Reads a YAML file into plain values, with the line of every key.

The events of the YAML parser are converted here instead of by PyYAML's constructors: this finds
duplicate keys, and keeps the line of every key. An alias shares the value of its anchor, and depth
is limited, so no file can exhaust memory or stack. As in YAML 1.2, only `true` and `false` are
booleans: `off` is a text, and a camera can be named `no`.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from edgepose.errors import ConfigError
from edgepose.util.files import is_utf16, read_regular_file
from edgepose.util.redact import masked_url

Scalar = str | int | float | bool | None
Key = tuple[str | int, ...]

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32

# libyaml is some twenty times as fast, which is felt at the start of a daemon on a Pi.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"([-+]?[0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?")
_CORE_TAGS: Final = "tag:yaml.org,2002:"

_TOO_DEEP: Final = f"expected at most {MAX_DEPTH} levels, got more; is it the right file?"
# Parts of PyYAML's messages, and what they mean for the author of a file.
_SYNTAX_ERRORS: Final = {
    "maximum nesting depth": _TOO_DEEP,
    "mapping values are not allowed": (
        "a `key: value` is not allowed here; check the indentation, and quote texts that contain "
        "`: `"
    ),
    "cannot start any token": (
        "a value cannot begin with a character such as @, % or a tab; put it in quotes, and indent "
        "only with spaces"
    ),
    "unexpected end of stream": "a quote is opened here and never closed",
    "while parsing a flow": (
        "a [ or { is opened here and never closed, or a comma is missing in it"
    ),
}


@dataclass(frozen=True, slots=True)
class ConfigIssue:
    """One error in a configuration; `line` is None if it is the line of the key."""

    key: Key
    text: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a file: values, the line (from 1) of every key, and errors found so far."""

    values: dict[str, object]
    lines: dict[Key, int] = field(default_factory=dict)
    issues: list[ConfigIssue] = field(default_factory=list)

    def line(self, key: Key) -> int | None:
        """Return the line of a key, or of the nearest section around it that has one."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key)


def read(path: Path) -> Document:
    """Read a configuration file.

    Raises ConfigError, with one line, if it cannot be read or is not a YAML mapping.
    """
    return parse(_text(path), path)


def parse(text: str, path: Path) -> Document:
    """Read YAML text; `path` is the name of the file in errors."""
    if not text.strip():
        raise ConfigError(
            f"{path}: expected a configuration, got an empty file; `edgepose config sample` prints "
            "one to start from"
        )
    try:
        return _Reader(text, path).document()
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            f"{path}: expected YAML text, got a file with the control character "
            f"0x{error.character:02X} in it; is it the right file?"
        ) from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax_message(error, path)) from None


def _text(path: Path) -> str:
    try:
        content = read_regular_file(path, MAX_BYTES)
    except OSError as error:
        raise ConfigError(
            f"{path}: the configuration cannot be read: {error.strerror or error}; check the path "
            "and its permissions"
        ) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        got = "UTF-16" if is_utf16(content) else f"byte 0x{content[error.start]:02X}"
        raise ConfigError(
            f"{path}:{line}: expected UTF-8 text, got {got}; save the file as UTF-8"
        ) from None


def _syntax_message(error: yaml.MarkedYAMLError, path: Path) -> str:
    problem = f"{error.context}, {error.problem}" if error.context else str(error.problem)
    why = next((why for part, why in _SYNTAX_ERRORS.items() if part in problem), problem)
    mark = error.context_mark if "opened here" in why else error.problem_mark
    assert mark is not None
    return f"{path}:{mark.line + 1}: not YAML: {why}"


class _Reader:
    """Builds plain values from the events of a YAML text, and records the line of every key."""

    def __init__(self, text: str, path: Path) -> None:
        self._events = yaml.parse(text, Loader=_Loader)
        self._path = path
        self._lines: dict[Key, int] = {}
        self._issues: list[ConfigIssue] = []
        self._anchors: dict[str, object] = {}

    def document(self) -> Document:
        """Return the content of the only document; one of comments only is empty."""
        value: object = None
        started = False
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if started:
                    raise self._error(event, "expected one YAML document, got a second one")
                started = True
                value = self._value(next(self._events), ())
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise ConfigError(
                f"{self._path}: expected keys with values, such as `accelerator: auto`, got "
                f"{describe(value)}"
            )
        return Document(value, self._lines, self._issues)

    def _value(self, event: yaml.Event, key: Key) -> object:
        """Return the value that begins with an event, and consume its other events."""
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise self._error(event, "the alias has no finished anchor before it")
            return self._anchors[event.anchor]
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        if len(key) > MAX_DEPTH:
            raise self._error(event, _TOO_DEEP)
        if event.tag not in (None, "!", f"{_CORE_TAGS}str"):
            shown = brief(event.tag.replace(_CORE_TAGS, "!!"))
            text = f"tags such as {shown} are not supported; write the value itself"
            self._issues.append(ConfigIssue(key, text))
        value: object
        if isinstance(event, yaml.ScalarEvent):
            unquoted, _ = event.implicit
            value = plain(event.value) if unquoted else event.value
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(key)
        else:
            value = self._sequence(key)
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        return value

    def _mapping(self, key: Key) -> dict[str, object]:
        values: dict[str, object] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error(event, "expected a key; quote keys that begin with [, { or *")
            here = (*key, event.value)
            line = _line(event)
            first = self._lines.setdefault(here, line)
            value = self._value(next(self._events), here)
            if event.value in values:
                text = f"the key is given twice (first in line {first}); keep one"
                self._issues.append(ConfigIssue(here, text, line))
            else:
                values[event.value] = value
        return values

    def _sequence(self, key: Key) -> list[object]:
        values: list[object] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            here = (*key, len(values))
            self._lines.setdefault(here, _line(event))
            values.append(self._value(event, here))
        return values

    def _error(self, event: yaml.Event, text: str) -> ConfigError:
        return ConfigError(f"{self._path}:{_line(event)}: {text}")


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return event.start_mark.line + 1


def plain(text: str) -> Scalar:
    """Return the value of an unquoted word.

    Only what YAML 1.1 and 1.2 read as the same finite number is one: `010`, `1:30`, `1e3` and
    `.inf` are texts.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def describe(value: object) -> str:
    """Return a value for an error: short, secrets masked, and of a list only its type."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return repr(brief(masked_url(value)))
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "keys with values"
    return brief(str(value).lower())


def brief(text: str) -> str:
    """Return a text, cut if it is too long for an error."""
    return text if len(text) <= 60 else text[:57] + "..."
