"""Reads a YAML file into plain values, with the line of every key.

The nodes of `yaml.compose` are converted here instead of by PyYAML's constructors: this finds
duplicate keys, and keeps the line of every key. An alias shares the value of its anchor, and depth
is limited, so no file can exhaust memory or stack. As in YAML 1.2, only `true` and `false` are
booleans: `off` is a text, and a camera can be named `no`.
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
    r"([-+]?[0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_CORE_TAGS: Final = "tag:yaml.org,2002:"
_TEXT_TAG: Final = _CORE_TAGS + "str"


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
        _check_depth(text, path)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        character = error.character
        code = ord(character) if isinstance(character, str) else character
        raise ConfigError(
            f"{path}: expected YAML text, got a file with the control character 0x{code:02X} in "
            "it; is it the right file?"
        ) from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax_message(error, text, path)) from None
    return _Reader(path).document(root)


def _check_depth(text: str, path: Path) -> None:
    """Raise ConfigError for deep nesting, which would exhaust the stack of the composer."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                assert event.start_mark is not None
                raise ConfigError(_nesting_message(path, event.start_mark.line + 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _nesting_message(path: Path, line: int) -> str:
    return f"{path}:{line}: expected at most {MAX_DEPTH} levels, got more; is it the right file?"


def _text(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            # Reading a pipe or a device could block.
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


def _syntax_message(error: yaml.MarkedYAMLError, text: str, path: Path) -> str:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return f"{path}: not YAML: {error.problem}"
    lines = text.split("\n")
    line = lines[mark.line] if mark.line < len(lines) else ""
    # PyYAML has a limit of nesting from 6.0.4 on.
    before = text[: mark.index]
    if sum(map(before.count, "[{")) - sum(map(before.count, "]}")) > MAX_DEPTH:
        return _nesting_message(path, mark.line + 1)
    problem = error.problem or "it cannot be read"
    at = mark.line
    if "\t" in line[: len(line) - len(line.lstrip())]:
        why = "the line is indented with a tab; YAML allows only spaces"
    elif "mapping values are not allowed" in problem:
        why = (
            "a `key: value` is not allowed here; check the indentation, and quote texts that "
            "contain `: `"
        )
    elif "cannot start any token" in problem and mark.column < len(line):
        why = f"a value cannot begin with {line[mark.column]!r}; put the value in quotes"
    elif "unexpected end of stream" in problem and error.context_mark is not None:
        at = error.context_mark.line
        why = "a quote is opened here and never closed"
    elif (error.context or "").startswith("while parsing a flow") and error.context_mark:
        at = error.context_mark.line
        why = "a [ or { is opened here and never closed, or a comma is missing in it"
    elif error.context:
        why = f"{error.context}, {problem}"
    else:
        why = problem
    return f"{path}:{at + 1}: not YAML: {why}"


class _Reader:
    """Converts composed nodes to plain values, and records the line of every key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[Key, int] = {}
        self._issues: list[ConfigIssue] = []
        self._values: dict[int, object] = {}
        self._open: set[int] = set()

    def document(self, root: yaml.Node | None) -> Document:
        value = None if root is None else self._value(root, (), _line(root))
        if value is None:
            return Document({}, self._lines, self._issues)
        if not isinstance(value, dict):
            what = "a list" if isinstance(value, list) else f"only {describe(value)}"
            raise ConfigError(
                f"{self._path}: expected keys with values, such as `accelerator: auto`, got {what}"
            )
        return Document(value, self._lines, self._issues)

    def _value(self, node: yaml.Node, key: Key, line: int) -> object:
        """Return the value of a node; an alias is the same node, whose value is shared."""
        if id(node) in self._open:
            raise ConfigError(
                f"{self._path}:{line}: an alias has no finished anchor before it: it is part of "
                "the value that it refers to"
            )
        if id(node) not in self._values:
            self._open.add(id(node))
            self._values[id(node)] = self._convert(node, key, line)
            self._open.remove(id(node))
        return self._values[id(node)]

    def _convert(self, node: yaml.Node, key: Key, line: int) -> object:
        if not node.tag.startswith(_CORE_TAGS) or (
            isinstance(node, yaml.ScalarNode) and node.style and node.tag != _TEXT_TAG
        ):
            shown = brief(node.tag.replace(_CORE_TAGS, "!!"))
            text = f"tags such as {shown} are not supported; write the value itself"
            self._issues.append(ConfigIssue(key, text, line))
        elif isinstance(node, yaml.ScalarNode) and node.tag != _TEXT_TAG:
            return plain(node.value)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            for index, entry in enumerate(node.value):
                self._lines.setdefault((*key, index), _line(entry))
            return [
                self._value(entry, (*key, index), _line(entry))
                for index, entry in enumerate(node.value)
            ]
        return node.value

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, object]:
        values: dict[str, object] = {}
        for name_node, value_node in node.value:
            line = _line(name_node)
            if not isinstance(name_node, yaml.ScalarNode):
                raise ConfigError(
                    f"{self._path}:{line}: expected a key, got a list or mapping; quote texts that "
                    "begin with [ or {"
                )
            if id(name_node) in self._values:
                raise ConfigError(f"{self._path}:{_line(value_node)}: expected a key, got an alias")
            name = name_node.value
            here = (*key, name)
            if name in values:
                first = self._lines[here]
                text = f"the key is given twice (first in line {first}); keep one"
                self._issues.append(ConfigIssue(here, text, line))
                continue
            self._lines.setdefault(here, line)
            values[name] = self._value(value_node, here, line)
        return values


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def plain(text: str) -> Scalar:
    """Return the value of an unquoted word.

    Only what YAML 1.1 and 1.2 read as the same number is one: `010`, `1:30` and `1e3` are texts.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text if text[-1] in "0123456789." else text.replace(".", ""))
    return text


def describe(value: object) -> str:
    """Return a value for an error: short, secrets masked, and of a list only its type."""
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
    """Return a text, cut if it is too long for an error."""
    return text if len(text) <= 60 else text[:57] + "..."
