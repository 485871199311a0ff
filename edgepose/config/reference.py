"""The sample configuration `config.yaml`, the descriptions in it, and the JSON Schema.

The meaning of a key is written only in the sample; the JSON Schema takes its descriptions from it.
"""

import re
from pathlib import Path
from typing import Any

import msgspec

from edgepose.config.schema import Config, sections
from edgepose.config.yaml_reader import Key, parse


def sample_path() -> Path:
    """Return the path of `config.yaml`, in the installed package or in the checkout."""
    package = Path(__file__).parents[1]
    installed = package / "assets" / "config.yaml"
    return installed if installed.is_file() else package.parent / "config.yaml"


def sample_text() -> str:
    """Return the sample, a complete configuration that equals the defaults."""
    return sample_path().read_text("utf-8")


def text_with_examples() -> str:
    """Return the sample with an entry in each list that is empty.

    The entry is in comments below the list: `zones: []`, then `# - name: door` and so on.
    """

    def uncomment(match: re.Match[str]) -> str:
        indent, key, comments = match.groups()
        return f"{indent}{key}:\n" + re.sub(rf"^{indent}# ?", indent, comments, flags=re.MULTILINE)

    return re.sub(r"^( *)(\w+): \[\]\n((?:\1#.*\n)+)", uncomment, sample_text(), flags=re.MULTILINE)


def descriptions() -> dict[Key, str]:
    """Return the comment directly above each key and section in the sample, on one line.

    Keys of list entries have index 0.
    """
    text = text_with_examples()
    lines = text.splitlines()
    found: dict[Key, str] = {}
    for key, number in parse(text, sample_path()).lines.items():
        comment: list[str] = []
        above = number - 2
        while above >= 0 and lines[above].lstrip().startswith("#"):
            comment.insert(0, lines[above].strip().lstrip("#").strip())
            above -= 1
        if comment:
            found[key] = " ".join(comment)
    return found


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration, for editors."""
    schema = msgspec.json.schema(Config, schema_hook=_text_schema)
    groups = schema["$defs"]
    texts = descriptions()
    for key, section in sections():
        for name, prop in groups[section.__name__]["properties"].items():
            prop["description"] = texts[*key, name]
            if "$ref" in prop:
                # A section whose keys are all commented out is null in YAML.
                prop["anyOf"] = [{"$ref": prop.pop("$ref")}, {"type": "null"}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **groups.pop("Config"),
        "title": "edgepose configuration",
        "$defs": groups,
    }


def _text_schema(wanted: type) -> dict[str, Any]:
    if wanted is Path:
        return {"type": "string", "format": "path"}
    return {"type": "string", "format": "password", "minLength": 1, "writeOnly": True}
