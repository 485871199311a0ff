"""From plain values to a section of the configuration, or to every error in them.

msgspec stops at the first error, and its messages are for programmers. So each value is converted
separately, with messages for people who edit YAML.
"""

import functools
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from edgepose.config.schema import Coerce, Config, Resolve, Section, Validate
from edgepose.config.yaml_reader import ConfigIssue, Key, describe
from edgepose.errors import EdgeposeError
from edgepose.mqtt.url import Secret
from edgepose.util.suggest import closest, did_you_mean

S = TypeVar("S", bound=Section)

# A search for similar names takes a millisecond, and a wrong file may have 100,000 unknown keys.
_MAX_HINTS: Final = 100
_MAX_HINT_LENGTH: Final = 64

_EXPECTED: Final[dict[object, str]] = {
    str: "a text",
    Secret: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
}
_LIMITS: Final[tuple[tuple[str, str, Callable[[float, float], bool]], ...]] = (
    ("gt", "more than", operator.gt),
    ("ge", "at least", operator.ge),
    ("lt", "less than", operator.lt),
    ("le", "at most", operator.le),
)


def build(section: type[S], values: object, folder: Path) -> tuple[S | None, list[ConfigIssue]]:
    """Return a section made of plain values, or None, and everything that is wrong with them.

    Relative paths are relative to `folder`. A section whose keys are all commented out reads as
    None and is the defaults.
    """
    builder = _Builder(folder)
    return builder.section(section, values, ()), builder.issues


# --- the classes of the schema


@functools.cache
def fields_of(section: type[Section]) -> Mapping[str, FieldInfo]:
    """Return the fields of a section by name."""
    return {field.name: field for field in msgspec.structs.fields(section)}


def section_of(annotation: object) -> type[Section] | None:
    """Return the section that a field holds, one or a list of them; None if it holds a value."""
    for part in parts(annotation):
        for inner in (part, *get_args(part)):
            if isinstance(inner, type) and issubclass(inner, Section):
                return inner
    return None


def section_at(key: Iterable[str | int]) -> type[Section] | None:
    """Return the section at a key; None if there is none."""
    section: type[Section] = Config
    for part in key:
        if isinstance(part, int):
            continue
        field = fields_of(section).get(part)
        inner = None if field is None else section_of(field.type)
        if inner is None:
            return None
        section = inner
    return section


def value_keys(section: type[Section] = Config, prefix: Key = ()) -> dict[Key, FieldInfo]:
    """Return every key that holds a value, with its field; keys of a list have index 0."""
    keys: dict[Key, FieldInfo] = {}
    for name, field in fields_of(section).items():
        inner = section_of(field.type)
        if inner is None:
            keys[(*prefix, name)] = field
        else:
            index: Key = () if inner is field.type else (0,)
            keys |= value_keys(inner, (*prefix, name, *index))
    return keys


def parts(annotation: object) -> Iterator[Any]:
    """Yield the types a value may have, without None, and their annotations."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *beside = get_args(annotation)
        yield from parts(inner)
        yield from beside
    elif origin in (Union, UnionType):
        for choice in get_args(annotation):
            yield from parts(choice)
    elif annotation is not type(None):
        yield annotation


def dotted(key: Iterable[str | int]) -> str:
    """Return a key as it is written: `cameras.0.source`."""
    return ".".join(map(str, key))


# --- values


class _Builder:
    """Converts and validates values, and collects what is wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.issues: list[ConfigIssue] = []
        self._folder = folder

    def section(self, section: type[S], values: object, key: Key) -> S | None:
        fields = fields_of(section)
        if values is None:
            values = {}
        if not isinstance(values, dict):
            text = f"expected keys with values ({', '.join(fields)}), got {_got(key, values)}"
            self._add(key, text)
            return None
        before = len(self.issues)
        known: dict[str, object] = {}
        for name, value in values.items():
            here = (*key, name)
            if name in fields:
                known[name] = self._value(fields[name].type, value, here)
            else:
                hint = len(self.issues) < _MAX_HINTS and len(name) <= _MAX_HINT_LENGTH
                self._add(here, _unknown_key(name, fields) if hint else "unknown key")
        if len(self.issues) > before:
            return None
        built = cast(Callable[..., S], section)(**known)
        for conflict in built.conflicts():
            self._add(key, conflict)
        return None if len(self.issues) > before else built

    def _value(self, annotation: Any, value: object, key: Key) -> object:
        inner = section_of(annotation)
        if inner is annotation:
            return self.section(inner, value, key)
        before = len(self.issues)
        found = list(parts(annotation))
        try:
            for part in found:
                if isinstance(part, Coerce):
                    value = part.function(value)
                elif isinstance(part, Resolve) and isinstance(value, str):
                    value = part.function(value, self._folder)
            if inner is None:
                value = msgspec.convert(value, annotation, dec_hook=_from_text)
            else:
                value = self._sections(inner, value, key)
            if value is None or len(self.issues) > before:
                return value
            for part in found:
                if isinstance(part, Validate):
                    part.function(value)
        except msgspec.ValidationError:
            self._add(key, _type_message(found, value, _got(key, value)))
        except (ValueError, EdgeposeError) as error:
            text = str(error)
            complete = ", got" in text or not text.startswith("expected")
            self._add(key, text if complete else f"{text}; got {_got(key, value)}")
        return value

    def _sections(
        self, section: type[Section], values: object, key: Key
    ) -> tuple[Section | None, ...]:
        if not isinstance(values, (list, tuple)):
            got = _got(key, values)
            raise ValueError(f"expected a list, each entry beginning with `- `, got {got}")
        return tuple(
            self.section(section, value, (*key, index)) for index, value in enumerate(values)
        )

    def _add(self, key: Key, text: str) -> None:
        self.issues.append(ConfigIssue(key, text))


def _from_text(wanted: type[Any], value: object) -> object:
    if isinstance(value, wanted):
        return value
    if isinstance(value, str) and (value or wanted is Path):
        return wanted(value)
    raise ValueError


def _got(key: Key, value: object) -> str:
    if any("password" in str(part) for part in key):
        return "something else" if value is not None else "nothing"
    return describe(value)


# --- messages


def _type_message(found: Collection[Any], value: object, got: str) -> str:
    """Return why a value does not fit the parts of an annotation."""
    choices = [str(c) for part in found if get_origin(part) is Literal for c in get_args(part)]
    if choices:
        short = isinstance(value, str) and len(value) <= _MAX_HINT_LENGTH
        hint = did_you_mean(str(value), choices) if short else ""
        return f"expected {_either(choices)}, got {got}{hint}"
    kind = next(part for part in found if part in _EXPECTED)
    for limits in found:
        if isinstance(limits, Meta) and (bound := _broken(limits, kind, value)):
            return f"expected {bound}, got {'more' if kind is str else got}"
    hint = ""
    if value is None:
        hint = "; remove the key for its default"
    elif kind in (str, Secret):
        if value == "":
            return "expected a text, got an empty one; remove the key for its default"
        hint = "; put it in quotes" if isinstance(value, (bool, int, float)) else ""
    elif kind in (int, float) and isinstance(value, str) and _is_number(value):
        hint = "; remove the quotes"
    return f"expected {_EXPECTED[kind]}, got {got}{hint}"


def _broken(limits: Meta, kind: type, value: object) -> str | None:
    """Return the limit that a value of the right type exceeds."""
    if kind is str and isinstance(value, str):
        longest = limits.max_length
        return f"at most {longest} characters" if longest and len(value) > longest else None
    if type(value) is not int and type(value) is not kind:
        return None
    for name, words, holds in _LIMITS:
        bound = getattr(limits, name)
        if bound is not None and not holds(cast(float, value), bound):
            return f"{words} {bound:g}"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _either(names: list[str]) -> str:
    return " or ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]


def _unknown_key(name: str, known: Iterable[str]) -> str:
    if name == "<<":
        return "merge keys (<<) are not supported; write the keys out"
    near = closest(name, known)
    if near is not None:
        return f"unknown key; did you mean {near!r}?"
    elsewhere = {dotted(other): str(other[-1]) for other in value_keys() if len(other) > 1}
    near = closest(name, set(elsewhere.values()))
    if near is not None:
        where = [path for path, last in elsewhere.items() if last == near]
        return f"unknown key; did you mean {_either([repr(path) for path in where])}?"
    return f"unknown key; known here: {', '.join(known)}"
