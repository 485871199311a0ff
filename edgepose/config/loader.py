"""From a file and flags to a Config, or to one ConfigError that lists all errors."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from edgepose.config.fields import dotted
from edgepose.config.login import LOGIN_KEYS
from edgepose.config.schema import Config, value_keys
from edgepose.config.source_uri import UNFIT_OPTIONS, parse_source_uri
from edgepose.config.validation import Builder
from edgepose.config.values import resolved
from edgepose.config.yaml_reader import ConfigIssue, Document, Key, read
from edgepose.errors import ConfigError, UsageError
from edgepose.mqtt.url import parse_broker_url
from edgepose.util.folders import xdg_folder
from edgepose.util.redact import masked_url
from edgepose.util.text import printable

SYSTEM_FILE: Final = Path("/etc/edgepose/config.yaml")
MAX_SHOWN: Final = 25
MAX_LENGTH: Final = 1000
FLAGS: Final = {
    "cameras.0.source": "--source",
    "model.name": "--model",
    "accelerator": "--accelerator",
    "mqtt.url": "--mqtt",
    "dashboard.listen": "--listen",
    "dashboard.token_file": "--token-file",
    "pose.keypoint_threshold": "--keypoint-threshold",
    "pose.pose_threshold": "--pose-threshold",
}


def find_config_file(given: Path | None = None) -> Path | None:
    """Return the configuration file to use; None means the built-in defaults.

    The one given, else the user's own (`$XDG_CONFIG_HOME/edgepose/config.yaml`), else the
    machine's (`/etc/edgepose/config.yaml`), if this user may read it: that of the service may
    contain passwords of cameras.
    """
    if given is not None:
        return given
    own = xdg_folder("XDG_CONFIG_HOME")
    for candidate in (own and own / "config.yaml", SYSTEM_FILE):
        # `Path.is_file` raises in a folder that this user may not enter.
        if candidate is not None and os.path.isfile(candidate):  # noqa: PTH113
            return None if candidate == SYSTEM_FILE and hidden_config_file() else candidate
    return None


def hidden_config_file() -> Path | None:
    """Return the machine's configuration if there is one that this user may not read."""
    there = os.path.isfile(SYSTEM_FILE)  # noqa: PTH113
    return SYSTEM_FILE if there and not os.access(SYSTEM_FILE, os.R_OK) else None


def load_config(path: Path | None = None, overrides: Mapping[str, object] | None = None) -> Config:
    """Read a configuration; without a path, the built-in defaults.

    `overrides` come from the command line and win over the file: dotted keys such as
    `cameras.0.source`; a value of None is a flag that was not given. Paths in the file are relative
    to the file, those in overrides to the current directory. Raises ConfigError with all errors.
    """
    document = Document({}) if path is None else read(path)
    values: object = document.values
    flags: dict[Key, str] = {}
    for name, value in (overrides or {}).items():
        if value is None:
            continue
        key: Key = tuple(int(part) if part.isdecimal() else part for part in name.split("."))
        flags[key] = FLAGS.get(name, name)
        values = _replaced(values, key, resolved(value_keys()[key].type, value, Path.cwd()))
        # The login in the file is not for another broker or camera, nor are its other keys that
        # do not fit.
        if name == "mqtt.url":
            values = _with_login_of_flag(values, str(value))
        elif name == "cameras.0.source":
            values = _without(values, key[:-1], (*LOGIN_KEYS, *_unfit_options(str(value))))
    folder = Path.cwd() if path is None else path.absolute().parent
    builder = Builder(folder)
    config = builder.section(Config, values)
    # A value with an unknown tag is invalid already, whatever type it would have had.
    tagged = {issue.key for issue in document.issues if issue.line is None}
    issues = [*document.issues, *(issue for issue in builder.issues if issue.key not in tagged)]
    if issues or not isinstance(config, Config):
        raise ConfigError(_report(issues, path, document, flags))
    return config


# --- overrides


def _replaced(values: object, key: Key, value: object) -> object:
    """Return plain values with one key set, in the sections around it, which need not exist.

    Invalid values around it stay, as errors. The sections are copied: by an alias in YAML, another
    key may have the same one.
    """
    if not key:
        return value
    part, *rest = key
    inner = tuple(rest)
    if isinstance(part, int):
        entries = [None] if values is None else values
        if not isinstance(entries, list) or part >= len(entries):
            return values
        return [*entries[:part], _replaced(entries[part], inner, value), *entries[part + 1 :]]
    section = {} if values is None else values
    if not isinstance(section, dict):
        return values
    return {**section, part: _replaced(section.get(part), inner, value)}


def _with_login_of_flag(values: object, url: str) -> object:
    """Replace the login of the file, password included, by the user of `--mqtt mqtt://user@host`."""
    try:
        user = parse_broker_url(url).username
    except ConfigError:
        return values
    section = values.get("mqtt") if isinstance(values, dict) else None
    if user is not None and isinstance(section, dict) and section.get("username") != user:
        return _without(values, ("mqtt",), LOGIN_KEYS)
    return values


def _without(values: object, section: Key, names: Iterable[str]) -> object:
    for name in names:
        values = _replaced(values, (*section, name), "main" if name == "stream" else None)
    return values


def _unfit_options(source: str) -> Iterable[str]:
    try:
        kind = parse_source_uri(source).kind
        # A video has its own rate, and the one in the file was meant for a camera.
        return UNFIT_OPTIONS[kind] | ({"fps"} if kind == "path" else set())
    except UsageError:
        # The value is reported as invalid when it is validated.
        return ()


# --- errors


def _report(
    issues: Iterable[ConfigIssue],
    path: Path | None,
    document: Document,
    flags: Mapping[Key, str],
) -> str:
    """List errors by line, those of flags last."""
    rows: list[tuple[int, str]] = []
    for issue in issues:
        line = issue.line or document.line(issue.key) or 0
        # `password:secret`, without the space, makes a key of both.
        name = f"{masked_url(dotted(issue.key))}: " if issue.key else ""
        place = f"{path}:{line}" if line else str(path)
        row = (line, f"{place}: {name}{issue.text}")
        for key, flag in flags.items():
            # Without a file, only a flag can have caused a conflict in a section.
            if key == issue.key or (path is None and key[: len(issue.key)] == issue.key):
                row = (sys.maxsize, f"{flag}: {issue.text}")
                break
        rows.append(row)
    rows.sort(key=lambda row: row[0])
    shown = [_sanitized(text) for _, text in rows[:MAX_SHOWN]]
    if len(rows) == 1:
        return shown[0]
    if len(rows) > MAX_SHOWN:
        shown.append(f"and {len(rows) - MAX_SHOWN} more")
    title = "the command line" if path is None else str(path)
    return "\n  ".join((f"{len(rows)} errors in {title}:", *shown))


def _sanitized(text: str) -> str:
    """Return a text of limited length with control characters escaped."""
    if len(text) > MAX_LENGTH:
        text = f"{text[: MAX_LENGTH // 2]} ... {text[-MAX_LENGTH // 2 :]}"
    return printable(text)
