"""From plain values to a section of the configuration, or to every mistake in them.

msgspec stops at the first mistake and speaks to programmers. So each value is converted on its own,
and what is wrong with it is said in the words of someone who edits YAML.
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

from edgepose.config.schema import Coerce, Config, Section, Validate
from edgepose.config.yaml_reader import ConfigIssue, Key, describe
from edgepose.mqtt.url import Secret
from edgepose.util.suggest import closest, did_you_mean

S = TypeVar("S", bound=Section)

# Looking for what is alike takes a millisecond, and a wrong file may hold 100,000 unknown keys.
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


def build(section: type[S], values: object, key: Key, mistakes: list[ConfigIssue]) -> S | None:
    """Return a section made of plain values; None where it adds to the mistakes.

    A section whose keys are all commented out reads as None and is the defaults.
    """
    fields = fields_of(section)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        text = f"expected keys with values ({', '.join(fields)}), got {_got(key, values)}"
        mistakes.append(ConfigIssue(key, text))
        return None
    before = len(mistakes)
    known: dict[str, object] = {}
    for name, value in values.items():
        here = (*key, name)
        if name in fields:
            known[name] = _value(fields[name].type, value, here, mistakes)
        else:
            hints = len(mistakes) < _MAX_HINTS and len(name) <= _MAX_HINT_LENGTH
            text = _unknown_key(name, fields) if hints else "unknown key"
            mistakes.append(ConfigIssue(here, text))
    if len(mistakes) > before:
        return None
    built = cast(Callable[..., S], section)(**known)
    conflicts = [ConfigIssue(key, text) for text in built.conflicts()]
    mistakes += conflicts
    return None if conflicts else built


# --- what the classes say


@functools.cache
def fields_of(section: type[Section]) -> Mapping[str, FieldInfo]:
    """Return the fields of a section by name."""
    return {field.name: field for field in msgspec.structs.fields(section)}


def section_of(annotation: object) -> type[Section] | None:
    """Return the group of keys a field holds, once or in a list; None where it holds a value."""
    for part in parts(annotation):
        for inner in (part, *get_args(part)):
            if isinstance(inner, type) and issubclass(inner, Section):
                return inner
    return None


def section_at(key: Iterable[str | int]) -> type[Section] | None:
    """Return the group of keys that lies at a key; None where there is none."""
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
    """Return every key that holds a value, with its field; a list's keys lie under index 0."""
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
    """Yield the types a value may have, None apart, and what stands beside them."""
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


def _value(annotation: Any, value: object, key: Key, mistakes: list[ConfigIssue]) -> object:
    inner = section_of(annotation)
    if inner is annotation:
        return build(inner, value, key, mistakes)
    before = len(mistakes)
    found = list(parts(annotation))
    try:
        for part in found:
            if isinstance(part, Coerce):
                value = part.function(value)
        if inner is None:
            value = msgspec.convert(value, annotation, dec_hook=_from_text)
        else:
            value = _sections(inner, value, key, mistakes)
        if value is None or len(mistakes) > before:
            return value
        for part in found:
            if isinstance(part, Validate):
                part.function(value)
    except msgspec.ValidationError:
        mistakes.append(ConfigIssue(key, _sentence(found, value, _got(key, value))))
    except ValueError as error:
        text = str(error)
        complete = ", got" in text or not text.startswith("expected")
        mistakes.append(ConfigIssue(key, text if complete else f"{text}; got {_got(key, value)}"))
    return value


def _sections(
    section: type[Section], values: object, key: Key, mistakes: list[ConfigIssue]
) -> tuple[Section | None, ...]:
    if not isinstance(values, (list, tuple)):
        raise ValueError(
            f"expected a list, each entry beginning with `- `, got {_got(key, values)}"
        )
    return tuple(
        build(section, value, (*key, index), mistakes) for index, value in enumerate(values)
    )


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


# --- sentences


def _sentence(found: Collection[Any], value: object, got: str) -> str:
    """Say why a value is not what the parts of an annotation ask for."""
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
    """Return which limit a value of the right kind is beyond."""
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
        return "merge keys (<<) are not understood here; write the keys out"
    near = closest(name, known)
    if near is not None:
        return f"unknown key; did you mean {near!r}?"
    elsewhere = {dotted(other): str(other[-1]) for other in value_keys() if len(other) > 1}
    near = closest(name, set(elsewhere.values()))
    if near is not None:
        where = [path for path, last in elsewhere.items() if last == near]
        return f"unknown key; did you mean {_either([repr(path) for path in where])}?"
    return f"unknown key; known here: {', '.join(known)}"
