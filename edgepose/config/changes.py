"""The differences between two configurations, and what a reload does with them."""

from collections.abc import Iterator
from dataclasses import dataclass

from edgepose.config.schema import Config, ReloadEffect, Section, dotted, fields_of
from edgepose.config.values import parts
from edgepose.config.yaml_reader import Key


@dataclass(frozen=True, slots=True)
class ConfigChanges:
    """What a reload has to do.

    `restart` has the changed keys that only a restart applies. `models` is whether models must be
    loaded again, `live` whether settings of running cameras changed, and `cameras` has the names of
    those whose source must be closed and opened.
    """

    restart: tuple[str, ...]
    models: bool
    live: bool
    cameras: frozenset[str]


def config_changes(old: Config, new: Config) -> ConfigChanges:
    """Return what changed from one configuration to another."""
    if len(old.cameras) != len(new.cameras):
        return ConfigChanges(("cameras",), models=False, live=False, cameras=frozenset())
    changes = list(_changes(old, new, ()))
    by_effect = {effect: [key for key, e in changes if e is effect] for effect in ReloadEffect}
    return ConfigChanges(
        restart=tuple(map(dotted, by_effect[ReloadEffect.RESTART])),
        models=bool(by_effect[ReloadEffect.MODEL]),
        live=bool(by_effect[ReloadEffect.LIVE]),
        cameras=frozenset(new.cameras[int(key[1])].name for key in by_effect[ReloadEffect.CAMERA]),
    )


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
        elif isinstance(after, tuple) and isinstance(after[0], Section):
            for index, (a, b) in enumerate(zip(before, after, strict=True)):
                yield from _changes(a, b, (*here, index))
        else:
            yield here, reload_effect(field.type)
