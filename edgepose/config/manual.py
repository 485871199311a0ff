"""`config.yaml`, the manual: where it lies, what it says of each key, and the JSON Schema.

What a key means is written in the manual only; the schema takes its descriptions from there.
"""

from pathlib import Path
from typing import Any

from edgepose.config.loading import section_at, section_of
from edgepose.config.model import Config
from edgepose.config.yaml_file import Key, parse


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
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "edgepose configuration"
    for key, text in paragraphs().items():
        if not isinstance(key[-1], str):
            continue
        section = section_at(key[:-1])
        assert section is not None
        properties = schema if section is Config else schema["$defs"][section.__name__]
        properties["properties"][key[-1]]["description"] = text
    for name, field in Config.model_fields.items():
        # A section whose keys are all commented out reads as null.
        if section_of(field.annotation) is field.annotation:
            prop = schema["properties"][name]
            if "$ref" in prop:
                prop["anyOf"] = [{"$ref": prop.pop("$ref")}, {"type": "null"}]
    return schema
