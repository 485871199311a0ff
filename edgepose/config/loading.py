"""From a file and flags to a Config, or to one error that lists every mistake."""

import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import ValidationError

from edgepose.config.model import Config, Section, masked
from edgepose.config.yaml_file import Document, Key, Mistake, describe, read
from edgepose.errors import ConfigError, EdgeposeError
from edgepose.mqtt_url import parse_broker_url
from edgepose.source_uri import parse_source_uri
from edgepose.suggestions import closest, did_you_mean
from edgepose.weights import check_name

SYSTEM_FILE: Final = Path("/etc/edgepose/config.yaml")
MAX_SHOWN: Final = 25
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
    for dotted, value in (overrides or {}).items():
        if value is not None:
            key = _key(dotted)
            flags[key] = FLAGS.get(dotted, dotted)
            _override(tree, key, _absolute(key, value, Path.cwd()))
    mistakes = list(document.mistakes)
    config: Config | None = None
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        # A value with an unknown tag is wrong already, whatever type it would have had.
        known = {(mistake.key, mistake.place) for mistake in mistakes}
        found = [_mistake(details) for details in error.errors(include_url=False)]
        mistakes += [m for m in found if (m.key, document.line(m.key)) not in known]
    mistakes += _unusable_names(tree, mistakes)
    if mistakes or config is None:
        raise ConfigError(_report(mistakes, path, document, flags))
    return config


def dotted(key: Iterable[str | int]) -> str:
    """Return a key as it is written: `cameras.0.source`."""
    return ".".join(map(str, key))


def section_at(key: Iterable[str | int]) -> type[Section] | None:
    """Return the group of keys that lies at a key; None where there is none."""
    section: type[Section] = Config
    for part in key:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(part)
        inner = None if field is None else section_of(field.annotation)
        if inner is None:
            return None
        section = inner
    return section


def section_of(annotation: object) -> type[Section] | None:
    """Return the group of keys a field holds, once or in a list; None where it holds a value."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


def value_keys(section: type[Section] = Config, prefix: Key = ()) -> dict[Key, Any]:
    """Return every key that holds a value, with its field; a list's keys lie under index 0."""
    keys: dict[Key, Any] = {}
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if inner is None:
            keys[(*prefix, name)] = field
        else:
            index: Key = (0,) if inner is not field.annotation else ()
            keys |= value_keys(inner, (*prefix, name, *index))
    return keys


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # A file behind a folder that may not be entered belongs to someone else.
        return False


def _key(dotted_key: str) -> Key:
    return tuple(int(part) if part.isdecimal() else part for part in dotted_key.split("."))


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


def _unusable_names(tree: Mapping[str, Any], mistakes: list[Mistake]) -> list[Mistake]:
    """Check the names that other parts of edgepose understand, unless they are wrong already."""
    wrong = {mistake.key for mistake in mistakes}
    found: list[Mistake] = []

    def check(key: Key, value: object, checker: Callable[[str], object]) -> None:
        if key in wrong or not isinstance(value, str) or not value:
            return
        try:
            checker(value)
        except EdgeposeError as error:
            found.append(Mistake(key, masked(str(error))))

    cameras = tree.get("cameras")
    for index, camera in enumerate(cameras if isinstance(cameras, list) else ()):
        if isinstance(camera, dict):
            check(("cameras", index, "source"), camera.get("source"), parse_source_uri)
    model = tree.get("model")
    if isinstance(model, dict):
        check(("model", "name"), model.get("name"), check_name)
    return found


def _mistake(details: Any) -> Mistake:
    key: Key = tuple(details["loc"])
    return Mistake(key, _sentence(key, details["type"], details.get("ctx", {}), details["input"]))


def _sentence(key: Key, kind: str, context: Mapping[str, Any], value: object) -> str:
    """Say what pydantic found in the words of someone who edits YAML."""
    got = _got(key, value)
    if kind == "extra_forbidden":
        return _unknown_key(key)
    if kind in ("value_error", "assertion_error"):
        text = str(context["error"])
        complete = ", got" in text or not text.startswith("expected")
        return text if complete else f"{text}; got {got}"
    if kind == "literal_error":
        allowed = [str(choice) for choice in _choices(key)]
        hint = did_you_mean(value, allowed) if isinstance(value, str) else ""
        return f"expected {_either(allowed)}, got {got}{hint}"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        bound = f"{next(iter(context.values())):g}"
        words = {
            "greater_than": "more than",
            "greater_than_equal": "at least",
            "less_than": "less than",
            "less_than_equal": "at most",
        }[kind]
        return f"expected {words} {bound}, got {got}"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        section = section_at(key)
        keys = "" if section is None else f" ({', '.join(section.model_fields)})"
        return f"expected keys with values{keys}, got {got}"
    if kind == "tuple_type":
        return f"expected a list, each entry beginning with `- `, got {got}"
    if kind == "string_too_short":
        return "expected a text, got an empty one; remove the key for its default"
    if kind in ("string_too_long", "too_long"):
        unit = "entries" if kind == "too_long" else "characters"
        return f"expected at most {context['max_length']} {unit}, got more"
    expected = _EXPECTED.get(kind)
    if expected is None:
        return f"{context.get('error', kind.replace('_', ' '))}, got {got}"
    hint = ""
    if value is None:
        hint = "; remove the key for its default"
    elif kind == "string_type":
        hint = "; put it in quotes" if isinstance(value, (bool, int, float)) else ""
    elif isinstance(value, str) and _is_number(value):
        hint = "; remove the quotes"
    return f"expected {expected}, got {got}{hint}"


_EXPECTED: Final = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "path_type": "a path",
}


def _got(key: Key, value: object) -> str:
    if any("password" in str(part) for part in key):
        return "something else" if value is not None else "nothing"
    return describe(masked(value) if isinstance(value, str) else value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _choices(key: Key) -> tuple[object, ...]:
    section = section_at(key[:-1])
    assert section is not None
    return get_args(section.model_fields[str(key[-1])].annotation)


def _either(names: list[str]) -> str:
    return " or ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]


def _unknown_key(key: Key) -> str:
    name = str(key[-1])
    section = section_at(key[:-1])
    known = list(section.model_fields) if section is not None else []
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


def _report(
    mistakes: Iterable[Mistake],
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
        what = f"{dotted(mistake.key)}: " if mistake.key else ""
        rows.append((line or 0, f"{where}{what}{mistake.text}"))
    rows.sort(key=lambda row: row[0])
    texts = [text for _, text in rows]
    if len(texts) == 1:
        return texts[0]
    shown = texts[:MAX_SHOWN]
    if len(texts) > MAX_SHOWN:
        shown.append(f"and {len(texts) - MAX_SHOWN} more")
    name = "the command line" if path is None else str(path)
    return "\n  ".join((f"{len(texts)} mistakes in {name}:", *shown))
