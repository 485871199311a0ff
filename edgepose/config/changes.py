"""What differs between two configurations, and what a reload does about it."""

from dataclasses import dataclass

from edgepose.config.schema import Config

_RESTART = ("node", "mqtt", "output", "state_directory", "stats_interval_s", "log")
_MODEL = ("model", "accelerator", "inference", "pose")
_LIVE = ("tracking", "smoothing", "presence")


@dataclass(frozen=True, slots=True)
class ConfigChanges:
    """The changed keys that need a restart, and what else changed."""

    restart: tuple[str, ...]
    models: bool
    pipelines: bool
    cameras: frozenset[str]


def config_changes(old: Config, new: Config) -> ConfigChanges:
    """Return what changed from one configuration to another."""
    restart = [name for name in _RESTART if getattr(old, name) != getattr(new, name)]
    if [camera.name for camera in old.cameras] != [camera.name for camera in new.cameras]:
        restart.append("the names of cameras")
    return ConfigChanges(
        tuple(restart),
        any(getattr(old, name) != getattr(new, name) for name in _MODEL),
        any(getattr(old, name) != getattr(new, name) for name in _LIVE),
        frozenset(b.name for a, b in zip(old.cameras, new.cameras, strict=False) if a != b),
    )
