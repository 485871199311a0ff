"""The differences between two configurations, and what a reload does with them."""

from collections.abc import Iterator, Mapping

from edgepose.config.fields import ReloadEffect, Section, fields_of, section_of
from edgepose.config.schema import Config
from edgepose.config.values import parts
from edgepose.config.yaml_reader import Key


def changed_keys(old: Config, new: Config) -> Mapping[ReloadEffect, list[Key]]:
    """Return the keys whose values differ, by what a reload does with them."""
    changes: dict[ReloadEffect, list[Key]] = {effect: [] for effect in ReloadEffect}
    for key, effect in _changes(old, new, ()):
        changes[effect].append(key)
    return changes


def reload_effect(annotation: object) -> ReloadEffect:
    """Return the effect that the type of a key in the schema declares."""
    (effect,) = (part for part in parts(annotation) if isinstance(part, ReloadEffect))
    return effect


def _changes(old: Section, new: Section, key: Key) -> Iterator[tuple[Key, ReloadEffect]]:
    for name, field in fields_of(type(new)).items():
        before, after, here = getattr(old, name), getattr(new, name), (*key, name)
        if before == after:
            continue
        if isinstance(after, Section):
            yield from _changes(before, after, here)
        elif name == "cameras" and len(before) != len(after):
            yield here, ReloadEffect.RESTART
        elif name == "cameras":
            for index, (a, b) in enumerate(zip(before, after, strict=True)):
                yield from _changes(a, b, (*here, index))
        else:
            yield here, _effect(field.type)


def _effect(annotation: object) -> ReloadEffect:
    """Return the effect of a value, or of a list of sections, whose keys have the same one."""
    section = section_of(annotation)
    if section is None:
        return reload_effect(annotation)
    (effect,) = {reload_effect(field.type) for field in fields_of(section).values()}
    return effect
