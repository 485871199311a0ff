"""Reading one YAML file into plain values that remember their lines.

The file is read event by event instead of through PyYAML's constructors: this finds duplicate
keys, keeps the line of every key, never follows aliases into themselves or expands them, and needs
no recursion, so no file can exhaust the stack. Of plain words only `true` and `false` are booleans,
as in YAML 1.2, so `off` stays a word and a camera may be named `no`.
"""

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from edgepose.errors import ConfigError
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
_FLOAT = re.compile(
    r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_TEXT_TAGS = ("!", "tag:yaml.org,2002:str")


@dataclass(frozen=True, slots=True)
class ConfigIssue:
    """One thing that is wrong: `place` is the line, or the flag, that it came from."""

    key: Key
    text: str
    place: int | str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says: its values, the line (from 1) of every key, and what is wrong already."""

    values: dict[str, object]
    lines: dict[Key, int] = field(default_factory=dict)
    mistakes: list[ConfigIssue] = field(default_factory=list)

    def line(self, key: Key) -> int | None:
        """Return the line of a key, or of the nearest thing around it that has one."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key)


def read(path: Path) -> Document:
    """Read a configuration file.

    Raises ConfigError, in one sentence, where it cannot be read or is no YAML mapping.
    """
    return parse(_text(path), path)


def parse(text: str, path: Path) -> Document:
    """Read YAML text; `path` is what errors call it."""
    if not text.strip():
        raise ConfigError(
            f"{path}: expected a configuration, got an empty file; `edgepose config sample` prints "
            "one to start from"
        )
    reader = _Reader(path)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            reader.take(event)
    except yaml.reader.ReaderError as error:
        character = error.character
        code = ord(character) if isinstance(character, str) else character
        raise ConfigError(
            f"{path}: expected YAML text, got a file with the control character 0x{code:02X} in "
            "it; is it the right file?"
        ) from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax_sentence(error, text, path)) from None
    return reader.document()


def _text(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            # Reading a pipe or a device might wait for ever.
            what = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
            raise ConfigError(f"{path}: expected a configuration file, got {what}")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: the configuration cannot be read: {error.strerror or error}; check the path "
            "and its permissions"
        ) from None
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"{path}: expected a configuration of at most {MAX_BYTES >> 20} MiB, got a larger "
            "file; is it the right one?"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}:{line}: expected UTF-8 text, got byte 0x{content[error.start]:02X}; save the "
            "file as UTF-8"
        ) from None


def _syntax_sentence(error: yaml.MarkedYAMLError, text: str, path: Path) -> str:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return f"{path}: not YAML: {error.problem}"
    lines = text.split("\n")
    line = lines[mark.line] if mark.line < len(lines) else ""
    problem = error.problem or "it cannot be read"
    at = mark.line
    if "\t" in line[: len(line) - len(line.lstrip())]:
        why = "the line is indented with a tab, YAML takes only spaces"
    elif "mapping values are not allowed" in problem:
        why = (
            "a `key: value` cannot stand here; check the indentation, and quote texts that have "
            "`: ` in them"
        )
    elif "cannot start any token" in problem and mark.column < len(line):
        why = f"a value cannot begin with {line[mark.column]!r}; put the value in quotes"
    elif "unexpected end of stream" in problem and error.context_mark is not None:
        at = error.context_mark.line
        why = "a quote is opened here and never closed"
    elif (error.context or "").startswith("while parsing a flow") and error.context_mark:
        at = error.context_mark.line
        why = "a [ or { is opened here and never closed, or a comma is missing in it"
    elif "undefined alias" in problem:
        why = "the alias (*name) has no anchor (&name) before it"
    elif error.context:
        why = f"{problem} ({error.context})"
    else:
        why = problem
    return f"{path}:{at + 1}: not YAML: {why}"


@dataclass(slots=True)
class _Open:
    """A mapping or a list that is being read."""

    value: dict[str, object] | list[object]
    key: Key
    anchor: str | None
    pending: str | None = None
    duplicate: bool = False


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[Key, int] = {}
        self._mistakes: list[ConfigIssue] = []
        self._anchors: dict[str, object] = {}
        self._open: list[_Open] = []
        self._root: object = None
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        assert event.start_mark is not None
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise ConfigError(
                    f"{self._path}:{line}: expected one YAML document, got a second one after `---`"
                )
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event, line)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event, line)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._start(event, line)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            done = self._open.pop()
            if done.anchor is not None:
                self._anchors[done.anchor] = done.value

    def document(self) -> Document:
        if self._root is None:
            return Document({}, self._lines, self._mistakes)
        if not isinstance(self._root, dict):
            what = "a list" if isinstance(self._root, list) else f"only {describe(self._root)}"
            raise ConfigError(
                f"{self._path}: expected keys with values, such as `accelerator: auto`, got {what}"
            )
        return Document(self._root, self._lines, self._mistakes)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        if self._wants_key():
            self._name(event.value, line)
            return
        value: Scalar = event.value
        if event.tag is not None and event.tag not in _TEXT_TAGS:
            self._tag(event.tag, line)
        elif event.tag is None and event.implicit[0]:
            value = plain(event.value)
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        self._put(value, line)

    def _alias(self, event: yaml.AliasEvent, line: int) -> None:
        name = event.anchor or ""
        shown = brief(name)
        if name not in self._anchors:
            raise ConfigError(
                f"{self._path}:{line}: the alias *{shown} has no finished anchor &{shown} before it"
            )
        if self._wants_key():
            raise ConfigError(f"{self._path}:{line}: expected a key, got the alias *{shown}")
        self._put(self._anchors[name], line)

    def _start(self, event: yaml.CollectionStartEvent, line: int) -> None:
        if self._wants_key():
            raise ConfigError(
                f"{self._path}:{line}: expected a key, got a list or mapping; quote texts that "
                "begin with [ or {"
            )
        if len(self._open) >= MAX_DEPTH:
            raise ConfigError(
                f"{self._path}:{line}: expected at most {MAX_DEPTH} levels, got more; is it the "
                "right file?"
            )
        if event.tag is not None:
            self._tag(event.tag, line)
        value: dict[str, object] | list[object] = (
            {} if isinstance(event, yaml.MappingStartEvent) else []
        )
        key = self._put(value, line)
        self._open.append(_Open(value, key, event.anchor))

    def _tag(self, tag: str, line: int) -> None:
        shown = brief(tag.replace("tag:yaml.org,2002:", "!!"))
        text = f"tags such as {shown} are not understood here; write the value itself"
        self._mistakes.append(ConfigIssue(self._here(), text, line))

    def _wants_key(self) -> bool:
        if not self._open:
            return False
        top = self._open[-1]
        return isinstance(top.value, dict) and top.pending is None

    def _here(self) -> Key:
        if not self._open:
            return ()
        top = self._open[-1]
        last = top.pending if isinstance(top.value, dict) else len(top.value)
        return top.key if last is None else (*top.key, last)

    def _name(self, name: str, line: int) -> None:
        top = self._open[-1]
        assert isinstance(top.value, dict)
        top.pending = name
        top.duplicate = name in top.value
        key = (*top.key, name)
        if top.duplicate:
            first = self._lines[key]
            self._mistakes.append(
                ConfigIssue(key, f"the key is given twice (first in line {first}); keep one", line)
            )
        else:
            self._lines.setdefault(key, line)

    def _put(self, value: object, line: int) -> Key:
        """Store a value where the file has it and return its key."""
        key = self._here()
        if not self._open:
            self._root = value
            return key
        top = self._open[-1]
        if isinstance(top.value, dict):
            assert top.pending is not None
            if not top.duplicate:
                top.value[top.pending] = value
            top.pending = None
        else:
            self._lines.setdefault(key, line)
            top.value.append(value)
        return key


def plain(text: str) -> Scalar:
    """Return what an unquoted word means.

    Numbers are what both YAML 1.1 and 1.2 take for one and the same number: `010`, `1:30` and `1e3`
    are texts.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text if text[-1] in "0123456789." else text.replace(".", ""))
    return text


def describe(value: object) -> str:
    """Return a value as an error shows it: short, without secrets, and of a list only its kind."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, dict):
        return "keys with values"
    text = brief(masked_url(value) if isinstance(value, str) else str(value))
    return repr(text) if isinstance(value, str) else text


def brief(text: str) -> str:
    """Return a text, cut where it is too long for an error."""
    return text if len(text) <= 60 else text[:57] + "..."
