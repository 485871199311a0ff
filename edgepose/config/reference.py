"""`config.yaml`, the manual: where it lies, what it says of each key, and the JSON Schema.

What a key means is written in the manual only; the schema takes its descriptions from there.
"""

from pathlib import Path
from typing import Any

import msgspec

from edgepose.config.schema import Config
from edgepose.config.validation import section_at
from edgepose.config.yaml_reader import Key, parse


def manual_path() -> Path:
    """Return where `config.yaml` lies: in the installed package, or in the checkout."""
    package = Path(__file__).parents[1]
    installed = package / "assets" / "config.yaml"
    return installed if installed.is_file() else package.parent / "config.yaml"


def manual_text() -> str:
    """Return the manual, a complete configuration that equals the defaults."""
    return manual_path().read_text("utf-8")


def paragraphs() -> dict[Key, str]:
    """Return what the manual says of each key and section: the comment right above it, on one line.

    The keys of a list's entries lie under index 0.
    """
    text = manual_text()
    lines = text.splitlines()
    found: dict[Key, str] = {}
    for key, number in parse(text, manual_path()).lines.items():
        comment: list[str] = []
        above = number - 2
        while above >= 0 and lines[above].lstrip().startswith("#"):
            comment.insert(0, lines[above].strip().lstrip("#").strip())
            above -= 1
        if comment:
            found[key] = " ".join(comment)
    return found


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration, for editors, with the manual's words."""
    schema = msgspec.json.schema(Config, schema_hook=_text_schema)
    groups = schema["$defs"]
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **groups.pop("Config"),
        "title": "edgepose configuration",
        "$defs": groups,
    }
    for key, text in paragraphs().items():
        if isinstance(key[-1], str):
            section = section_at(key[:-1])
            assert section is not None
            group = schema if section is Config else groups[section.__name__]
            group["properties"][key[-1]]["description"] = text
    for group in (schema, *groups.values()):
        for prop in group["properties"].values():
            # A section whose keys are all commented out reads as null.
            if "$ref" in prop:
                prop["anyOf"] = [{"$ref": prop.pop("$ref")}, {"type": "null"}]
    return schema


def _text_schema(wanted: type) -> dict[str, Any]:
    if wanted is Path:
        return {"type": "string", "format": "path"}
    return {"type": "string", "format": "password", "minLength": 1, "writeOnly": True}
