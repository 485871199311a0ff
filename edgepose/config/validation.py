"""From plain values to a configuration, or to every error in them.

msgspec stops at the first error, so each value is converted separately.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from edgepose.config.fields import Section, dotted, fields_of, section_of
from edgepose.config.schema import value_keys
from edgepose.config.values import convert, either, expected, length_limits, resolved, validate
from edgepose.config.yaml_reader import ConfigIssue, Key, describe
from edgepose.errors import EdgeposeError
from edgepose.util.suggest import closest

# A search for similar names takes a millisecond, and a wrong file may have 100,000 unknown keys.
_MAX_HINTS: Final = 100


class Builder:
    """Makes sections of plain values, and collects what is wrong with them in `issues`.

    Relative paths are relative to `folder`.
    """

    def __init__(self, folder: Path) -> None:
        self.issues: list[ConfigIssue] = []
        self._folder = folder

    def section(self, section: type[Section], values: object, key: Key = ()) -> Section | None:
        """Return a section; None if an error was found.

        A section whose keys are all commented out reads as None and is the defaults.
        """
        fields = fields_of(section)
        if values is None:
            values = {}
        if not isinstance(values, dict):
            names = ", ".join(fields)
            self._add(key, f"expected keys with values ({names}), got {_got(key, values)}")
            return None
        before = len(self.issues)
        known: dict[str, Any] = {}
        for name, value in values.items():
            here = (*key, name)
            if name not in fields:
                hint = len(self.issues) < _MAX_HINTS
                self._add(here, _unknown_key(name, fields) if hint else "unknown key")
            elif value is not None or section_of(fields[name].type) is None:
                known[name] = self._value(fields[name].type, value, here)
        for name, field in fields.items():
            if field.required and name not in values:
                self._add(key, f"{name} is missing; expected {expected(field.type)}")
        if len(self.issues) > before:
            return None
        built = section(**known)
        for conflict in built.conflicts():
            self._add(key, conflict)
        return None if len(self.issues) > before else built

    def _value(self, annotation: Any, value: object, key: Key) -> object:
        inner = section_of(annotation)
        if inner is annotation:
            return self.section(inner, value, key)
        try:
            if inner is None:
                absolute = resolved(annotation, value, self._folder)
                return convert(annotation, absolute, _got(key, value))
            fewest, most = length_limits(annotation)
            if not isinstance(value, list) or not fewest <= len(value) <= most:
                got = len(value) if isinstance(value, list) else _got(key, value)
                raise ValueError(
                    f"expected a list of {fewest} to {most} entries, each beginning with `- `, "
                    f"got {got}"
                )
            sections = tuple(self.section(inner, each, (*key, n)) for n, each in enumerate(value))
            if None not in sections:
                validate(annotation, sections)
            return sections
        except (ValueError, EdgeposeError) as error:
            self._add(key, str(error))
            return None

    def _add(self, key: Key, text: str) -> None:
        self.issues.append(ConfigIssue(key, text))


def _got(key: Key, value: object) -> str:
    secret = "password" in dotted(key) and value not in (None, "")
    return "something else" if secret else describe(value)


def _unknown_key(name: str, known: Collection[str]) -> str:
    if name == "<<":
        return "merge keys (<<) are not supported; write the keys out"
    near = closest(name, known)
    if near is not None:
        return f"unknown key; did you mean {near!r}?"
    elsewhere = [key for key in value_keys() if len(key) > 1]
    near = closest(name, [str(key[-1]) for key in elsewhere])
    if near is not None:
        places = (repr(dotted(key)) for key in elsewhere if key[-1] == near)
        return f"unknown key; did you mean {either(places)}?"
    return f"unknown key; known here: {', '.join(known)}"
