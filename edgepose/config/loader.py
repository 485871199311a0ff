"""From a file and flags to a Config, or to one ConfigError that lists all errors."""

import copy
import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from edgepose.config.schema import Config, Resolve
from edgepose.config.validation import build, dotted, parts, value_keys
from edgepose.config.yaml_reader import ConfigIssue, Document, Key, read
from edgepose.errors import ConfigError
from edgepose.mqtt.url import parse_broker_url
from edgepose.util.redact import masked_url

SYSTEM_FILE: Final = Path("/etc/edgepose/config.yaml")
MAX_SHOWN: Final = 25
MAX_LENGTH: Final = 1000
FLAGS: Final = {
    "cameras.0.source": "--source",
    "model.name": "--model",
    "accelerator": "--accelerator",
    "mqtt.url": "--mqtt",
    "model.crop": "--no-crop",
    "smoothing.preset": "--no-smooth",
    "pose.keypoint_threshold": "--keypoint-threshold",
    "pose.pose_threshold": "--pose-threshold",
}


def find_config_file(given: Path | None = None) -> Path | None:
    """Return the configuration file to use; None means the built-in defaults.

    The one given, else the user's own (`$XDG_CONFIG_HOME/edgepose/config.yaml`), else the
    machine's (`/etc/edgepose/config.yaml`).
    """
    if given is not None:
        return given
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    try:
        user_file = Path(home).expanduser() / "edgepose" / "config.yaml"
    except RuntimeError:
        # A service user without a home directory.
        user_file = SYSTEM_FILE
    for candidate in (user_file, SYSTEM_FILE):
        if _is_file(candidate):
            return candidate
    return None


def load_config(path: Path | None = None, overrides: Mapping[str, object] | None = None) -> Config:
    """Read a configuration; without a path, the built-in defaults.

    `overrides` come from the command line and win over the file: dotted keys such as
    `cameras.0.source`; a value of None is a flag that was not given. Paths in the file are relative
    to the file, those in overrides to the current directory. Raises ConfigError with all errors.
    """
    document = Document({}) if path is None else read(path)
    tree: dict[str, object] = dict(document.values)
    flags: dict[Key, str] = {}
    for name, value in (overrides or {}).items():
        if value is not None:
            key = _key(name)
            flags[key] = FLAGS.get(name, name)
            _override(tree, key, _resolved(key, value))
    folder = Path.cwd() if path is None else path.absolute().parent
    config, found = build(Config, tree, folder)
    # A value with an unknown tag is invalid already, whatever type it would have had.
    tagged = {issue.key for issue in document.issues if issue.line is None}
    issues = [*document.issues, *(issue for issue in found if issue.key not in tagged)]
    if issues or config is None:
        raise ConfigError(_report(issues, path, document, flags))
    return config


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # The file is in a folder that this user may not enter.
        return False


def _key(name: str) -> Key:
    return tuple(int(part) if part.isdecimal() else part for part in name.split("."))


# --- overrides


def _resolved(key: Key, value: object) -> object:
    """Return the value of a flag; a path in it is relative to the current directory."""
    field = value_keys().get(key)
    for part in () if field is None else parts(field.type):
        if isinstance(part, Resolve):
            return part.function(str(value), Path.cwd())
    return value


def _override(tree: dict[str, object], key: Key, value: object) -> None:
    """Set one key, creating the sections around it; invalid values around it stay, as errors.

    What is changed is copied first: by an alias in YAML, another key may have the same section.
    """
    node: Any = tree
    for part, following in itertools.pairwise(key):
        if isinstance(part, int):
            if not isinstance(node, list) or part >= len(node):
                return
        elif not isinstance(node, dict):
            return
        inner = node[part] if isinstance(part, int) else node.get(part)
        if inner is None:
            inner = [{}] if isinstance(following, int) else {}
        node[part] = copy.copy(inner)
        node = node[part]
    if not isinstance(node, dict):
        return
    node[key[-1]] = value
    if key == ("mqtt", "url") and isinstance(value, str):
        _use_login_of_flag(node, value)


def _use_login_of_flag(mqtt: dict[str, object], url: str) -> None:
    """Replace the login of the file, password included, by the user of `--mqtt mqtt://user@host`."""
    try:
        username = parse_broker_url(url).username
    except ConfigError:
        return
    if username is not None and username != mqtt.get("username"):
        for name in ("username", "password", "password_file"):
            mqtt.pop(name, None)


# --- errors


def _report(
    issues: Iterable[ConfigIssue],
    path: Path | None,
    document: Document,
    flags: Mapping[Key, str],
) -> str:
    """List errors by line, those of flags last."""
    rows: list[tuple[float, str]] = []
    for issue in issues:
        flag = flags.get(issue.key)
        if flag is None and path is None:
            # Without a file, only a flag can have caused a conflict in a section.
            inside = [key for key in flags if key[: len(issue.key)] == issue.key]
            flag = flags[inside[0]] if inside else None
        line = issue.line or document.line(issue.key)
        if flag is not None:
            rows.append((float("inf"), f"{flag}: {issue.text}"))
            continue
        where = "" if path is None else f"{path}:{line}: " if line else f"{path}: "
        # `password:secret`, without the space, makes a key of both.
        what = f"{masked_url(dotted(issue.key))}: " if issue.key else ""
        rows.append((line or 0, f"{where}{what}{issue.text}"))
    rows.sort(key=lambda row: row[0])
    texts = [_sanitize_text(text) for _, text in rows[: MAX_SHOWN + 1]]
    if len(texts) == 1:
        return texts[0]
    shown = texts[:MAX_SHOWN]
    if len(rows) > MAX_SHOWN:
        shown.append(f"and {len(rows) - MAX_SHOWN} more")
    name = "the command line" if path is None else str(path)
    return "\n  ".join((f"{len(rows)} errors in {name}:", *shown))


def _sanitize_text(text: str) -> str:
    """Return a text of limited length with control characters escaped."""
    if len(text) > MAX_LENGTH:
        text = f"{text[: MAX_LENGTH // 2]} ... {text[-MAX_LENGTH // 2 :]}"
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    )
