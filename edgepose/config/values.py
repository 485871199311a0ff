"""The types of values: how a value is converted, and the words for a type in errors.

msgspec validates. Its messages are for programmers, so errors are written here, for people who
edit YAML. No type is guessed: neither `true` nor `'5'` is a number.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from edgepose.config.yaml_reader import plain
from edgepose.util.folders import expanded
from edgepose.util.secrets import Secret
from edgepose.util.suggest import closest

_BOOLEANS: Final = {
    **dict.fromkeys(("true", "yes", "on", "y", "t", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "f", "0"), False),
}
_WORDS: Final[dict[object, str]] = {
    str: "a text",
    Secret: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
}
_LIMITS: Final = {
    "ge": "at least {:.10g}",
    "gt": "more than {:.10g}",
    "le": "at most {:.10g}",
    "max_length": "at most {} characters",
}


@dataclass(frozen=True, slots=True)
class Coerce:
    """Annotation of a type: converts what people write to the type, before validation.

    The function returns unknown values unchanged.
    """

    function: Callable[[object], object]


@dataclass(frozen=True, slots=True)
class Resolve:
    """Annotation of a type: a text for which `is_path` is true is relative to its file's folder."""

    is_path: Callable[[str], object] = bool


@dataclass(frozen=True, slots=True)
class Validate:
    """Annotation of a type: raises ValueError or EdgeposeError with a message if invalid."""

    function: Callable[[Any], object]


def _boolean(value: object) -> object:
    # YAML 1.1 has more words for a boolean than YAML 1.2.
    return _BOOLEANS.get(str(value).lower(), value) if isinstance(value, (str, int)) else value


def coerce_text(value: object) -> object:
    """Return the text that was meant by `false` or a whole number."""
    # YAML 1.1 tools write the word `off` as false, and people the version 5 without quotes.
    if value is False:
        return "off"
    return str(value) if type(value) is int else value


Boolean = Annotated[bool, Coerce(_boolean)]


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


def resolved(annotation: object, value: object, folder: Path) -> object:
    """Return a value; if it is a relative path, as an absolute one."""
    for part in parts(annotation):
        if isinstance(part, Resolve) and isinstance(value, str) and value and part.is_path(value):
            return str(folder / expanded(value))
    return value


def convert(annotation: Any, value: object, got: str) -> Any:
    """Return a value as its type; `got` describes it in errors.

    Raises ValueError or EdgeposeError with what was expected, what came, and a suggestion.
    """
    found = list(parts(annotation))
    coerced = value
    for part in found:
        if isinstance(part, Coerce):
            coerced = part.function(coerced)
    try:
        converted = msgspec.convert(coerced, annotation, dec_hook=_from_text)
    except msgspec.ValidationError:
        text = f"expected {expected(annotation)}, got {got}{_hint(found, value)}"
        raise ValueError(text) from None
    if converted is not None:
        validate(annotation, converted)
    return converted


def validate(annotation: object, value: object) -> None:
    """Call the validators of a type; they raise ValueError or EdgeposeError."""
    for part in parts(annotation):
        if isinstance(part, Validate):
            part.function(value)


def expected(annotation: object) -> str:
    """Return what a type accepts: `auto or a whole number, at least 1 and at most 64`."""
    words: list[str] = []
    for part in parts(annotation):
        if isinstance(part, Meta):
            if part.description is not None:
                return part.description
            bounds = ((text, getattr(part, name)) for name, text in _LIMITS.items())
            limits = [text.format(bound) for text, bound in bounds if bound is not None]
            if limits:
                words[-1] += ", " + " and ".join(limits)
        elif get_origin(part) is Literal:
            words += map(str, get_args(part))
        elif isinstance(part, type):
            words.append(_WORDS[part])
    return either(words)


def length_limits(annotation: object) -> tuple[int, int]:
    """Return the least and the greatest length of a list, as its type states them."""
    (limits,) = (part for part in parts(annotation) if isinstance(part, Meta))
    return limits.min_length or 0, limits.max_length or sys.maxsize


def either(words: Iterable[str]) -> str:
    """Return alternatives as text: `a, b or c`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _from_text(wanted: type[Any], value: object) -> object:
    """Make a Path or a Secret, which msgspec does not know."""
    if isinstance(value, str) and value and "\0" not in value:
        return wanted(value)
    raise ValueError


def _hint(found: Iterable[Any], value: object) -> str:
    """Return what to do about a value that does not fit the parts of an annotation."""
    if value is None or value == "":
        return "; leave it out for its default"
    if not isinstance(value, str):
        wants_text = str in found or Secret in found
        return "; put it in quotes" if wants_text and isinstance(value, (int, float)) else ""
    unquoted = plain(value)
    choices = [choice for part in found if get_origin(part) is Literal for choice in get_args(part)]
    wants_number = int in found or float in found or unquoted in choices
    if wants_number and type(unquoted) in (int, float):
        return "; remove the quotes"
    if (int in found or float in found) and value[0].isdigit():
        # YAML 1.1 has numbers such as 1_000 and 12:30.
        return "; write it in digits, such as 1000 or 0.5"
    near = closest(value, map(str, choices))
    return "" if near is None else f"; did you mean {near if near.isdigit() else repr(near)}?"
