"""From a file and flags to a Config, or to one error that lists every mistake."""

import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from edgepose.config.schema import Config
from edgepose.config.source_uri import parse_source_uri
from edgepose.config.validation import build, dotted, section_at
from edgepose.config.yaml_reader import ConfigIssue, Document, Key, read
from edgepose.errors import ConfigError, EdgeposeError
from edgepose.mqtt.url import parse_broker_url
from edgepose.registry.registry import check_name
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

_MODEL_SUFFIX = ".tflite"
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:")


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
        # A service user without a home directory has no configuration in it either.
        user_file = SYSTEM_FILE
    for candidate in (user_file, SYSTEM_FILE):
        if _is_there(candidate):
            return candidate
    return None


def load_config(path: Path | None = None, overrides: Mapping[str, object] | None = None) -> Config:
    """Read a configuration; without a path, the built-in defaults.

    `overrides` come from the command line and win over the file: dotted keys such as
    `cameras.0.source`; a value of None is a flag that was not given. Paths in the file are relative
    to the file, those in overrides to the current directory. Raises ConfigError with every mistake
    at once.
    """
    document = Document({}) if path is None else read(path)
    tree = _with_paths(document.values, Path() if path is None else path.absolute().parent)
    flags: dict[Key, str] = {}
    for name, value in (overrides or {}).items():
        if value is not None:
            key = _key(name)
            flags[key] = FLAGS.get(name, name)
            _override(tree, key, _absolute(key, value, Path.cwd()))
    found: list[ConfigIssue] = []
    config = build(Config, tree, (), found)
    # A value with an unknown tag is wrong already, whatever type it would have had.
    told = {(mistake.key, mistake.place) for mistake in document.issues}
    mistakes = [
        *document.issues,
        *(mistake for mistake in found if (mistake.key, document.line(mistake.key)) not in told),
    ]
    mistakes += _unusable_names(tree, mistakes)
    if mistakes or config is None:
        raise ConfigError(_report(mistakes, path, document, flags))
    return config


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # A file behind a folder that may not be entered belongs to someone else.
        return False


def _key(name: str) -> Key:
    return tuple(int(part) if part.isdecimal() else part for part in name.split("."))


# --- paths


def _path_in(value: str, folder: Path) -> str:
    if not value:
        return value
    try:
        return str(folder / Path(value).expanduser())
    except RuntimeError:
        return value


def _source_in(value: str, folder: Path) -> str:
    return value if _SCHEME.match(value) else _path_in(value, folder)


def _model_in(value: str, folder: Path) -> str:
    is_path = value.endswith(_MODEL_SUFFIX) or "/" in value
    return _path_in(value, folder) if is_path else value


_PATHS: Final[dict[str, Callable[[str, Path], str]]] = {
    "cameras.0.source": _source_in,
    "model.name": _model_in,
    "inference.recording": _path_in,
    "mqtt.password_file": _path_in,
    "mqtt.tls.ca_file": _path_in,
    "mqtt.tls.cert_file": _path_in,
    "mqtt.tls.key_file": _path_in,
    "output.record": _path_in,
    "state_directory": _path_in,
}


def _absolute(key: Key, value: object, folder: Path) -> object:
    resolve = _PATHS.get(dotted(0 if isinstance(part, int) else part for part in key))
    if resolve is None or not isinstance(value, (str, Path)):
        return value
    return resolve(str(value), folder)


def _with_paths(values: dict[str, object], folder: Path) -> dict[str, object]:
    """Return a copy of a tree with its relative paths made absolute.

    Only what the schema knows is copied deeply, so a tree of aliases does not grow here.
    """

    def copy(value: object, key: Key) -> object:
        if section_at(key) is None:
            return _absolute(key, value, folder)
        if isinstance(value, dict):
            return {name: copy(inner, (*key, name)) for name, inner in value.items()}
        if isinstance(value, list) and not (key and isinstance(key[-1], int)):
            return [copy(inner, (*key, index)) for index, inner in enumerate(value)]
        return value

    return {name: copy(value, (name,)) for name, value in values.items()}


# --- overrides


def _override(tree: dict[str, object], key: Key, value: object) -> None:
    """Set one key, creating what is around it; where the file has nonsense there, leave that."""
    node: Any = tree
    for part, following in itertools.pairwise(key):
        missing: object = [{}] if isinstance(following, int) else {}
        if isinstance(part, int):
            if not isinstance(node, list) or part >= len(node):
                return
            if node[part] is None:
                node[part] = missing
        else:
            if not isinstance(node, dict):
                return
            if node.get(part) is None:
                node[part] = missing
        node = node[part]
    if not isinstance(node, dict):
        return
    node[key[-1]] = value
    if key == ("mqtt", "url") and isinstance(value, str):
        _log_in_as_flag_says(node, value)


def _log_in_as_flag_says(mqtt: dict[str, object], url: str) -> None:
    """Let `--mqtt mqtt://user@host` win over the file's user, whose password is not this one's."""
    try:
        username = parse_broker_url(url).username
    except ConfigError:
        return
    if username is not None and username != mqtt.get("username"):
        for name in ("username", "password", "password_file"):
            mqtt.pop(name, None)


# --- mistakes


def _unusable_names(tree: Mapping[str, Any], mistakes: list[ConfigIssue]) -> list[ConfigIssue]:
    """Check the names that other parts of edgepose understand, unless they are wrong already."""
    wrong = {mistake.key for mistake in mistakes}
    found: list[ConfigIssue] = []

    def check(key: Key, value: object, checker: Callable[[str], object]) -> None:
        if key in wrong or not isinstance(value, str) or not value:
            return
        try:
            checker(value)
        except EdgeposeError as error:
            found.append(ConfigIssue(key, str(error)))

    cameras = tree.get("cameras")
    for index, camera in enumerate(cameras if isinstance(cameras, list) else ()):
        if isinstance(camera, dict):
            check(("cameras", index, "source"), camera.get("source"), parse_source_uri)
    model = tree.get("model")
    if isinstance(model, dict):
        check(("model", "name"), model.get("name"), check_name)
    return found


def _report(
    mistakes: Iterable[ConfigIssue],
    path: Path | None,
    document: Document,
    flags: Mapping[Key, str],
) -> str:
    """List mistakes by line, those of flags last."""
    rows: list[tuple[float, str]] = []
    for mistake in mistakes:
        flag = flags.get(mistake.key)
        if flag is None and path is None:
            # Without a file, a section that does not fit together is the flag's doing.
            inside = [key for key in flags if key[: len(mistake.key)] == mistake.key]
            flag = flags[inside[0]] if inside else None
        line = mistake.place if isinstance(mistake.place, int) else document.line(mistake.key)
        if flag is not None:
            rows.append((float("inf"), f"{flag}: {mistake.text}"))
            continue
        where = "" if path is None else f"{path}:{line}: " if line else f"{path}: "
        # `password:secret`, without the space, makes a key of both.
        what = f"{masked_url(dotted(mistake.key))}: " if mistake.key else ""
        rows.append((line or 0, f"{where}{what}{mistake.text}"))
    rows.sort(key=lambda row: row[0])
    texts = [_fit_for_terminals(text) for _, text in rows[: MAX_SHOWN + 1]]
    if len(texts) == 1:
        return texts[0]
    shown = texts[:MAX_SHOWN]
    if len(rows) > MAX_SHOWN:
        shown.append(f"and {len(rows) - MAX_SHOWN} more")
    name = "the command line" if path is None else str(path)
    return "\n  ".join((f"{len(rows)} mistakes in {name}:", *shown))


def _fit_for_terminals(text: str) -> str:
    """Return a text cut to a bearable length, with what a terminal would obey in escapes."""
    if len(text) > MAX_LENGTH:
        text = f"{text[: MAX_LENGTH // 2]} ... {text[-MAX_LENGTH // 2 :]}"
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    )
