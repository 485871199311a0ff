"""The types of configuration values, the effect of a reload on them, and the base of sections."""

import functools
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, TypeVar, get_args

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from edgepose.config.source_uri import is_source_path, parse_source_uri
from edgepose.config.values import Resolve, Validate, parts
from edgepose.config.yaml_reader import Key
from edgepose.mqtt.topics import ID_PATTERN, check_base, check_id
from edgepose.mqtt.url import parse_broker_url
from edgepose.registry.registry import check_name, is_path


class ReloadEffect(Enum):
    """What a reload does with a changed key."""

    LIVE = "live"
    """Applied to the running cameras; track ids and presence stay."""

    CAMERA = "camera"
    """The source of that camera is closed and opened again."""

    MODEL = "model"
    """The models are loaded again."""

    RESTART = "restart"
    """The reload is rejected; only a restart applies the change."""


T = TypeVar("T")
Live = Annotated[T, ReloadEffect.LIVE]
ReopensCamera = Annotated[T, ReloadEffect.CAMERA]
ReloadsModel = Annotated[T, ReloadEffect.MODEL]
NeedsRestart = Annotated[T, ReloadEffect.RESTART]


def _printable(value: str) -> None:
    if not value.isprintable():
        raise ValueError(f"expected a text without control characters, got {value!r}")


Text = Annotated[str, Meta(min_length=1)]
Printable = Annotated[Text, Validate(_printable)]
NotNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Score = Annotated[float, Meta(ge=0, le=1)]
Milliseconds = Annotated[int, Meta(ge=0, le=3_600_000)]
FilePath = Annotated[Path, Resolve()]
Id = Annotated[str, Meta(extra_json_schema={"pattern": f"^{ID_PATTERN}$"}), Validate(check_id)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Source = Annotated[Text, Resolve(is_source_path), Validate(parse_source_uri)]
ModelName = Annotated[Text, Resolve(is_path), Validate(check_name)]
InputSide = Annotated[int, Meta(ge=32, le=4096)]
InputSize = Annotated[
    tuple[InputSide, InputSide],
    Meta(description="width and height, whole numbers from 32 to 4096, such as [256, 192]"),
]
Device = Annotated[
    str,
    # The lookahead refuses a line end, before which $ matches too.
    Meta(pattern=r"^(usb|pci)(:[0-9]{1,2})?(?!\n)$", description="an Edge TPU such as usb:0"),
]
BrokerUrl = Annotated[str, Validate(parse_broker_url)]
BaseTopic = Annotated[str, Validate(check_base)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of keys."""

    def conflicts(self) -> Iterable[str]:
        """Return a message for each combination of keys that is invalid."""
        return ()


@functools.cache
def fields_of(section: type[Section]) -> Mapping[str, FieldInfo]:
    """Return the fields of a section by name."""
    return {field.name: field for field in msgspec.structs.fields(section)}


def section_of(annotation: object) -> type[Section] | None:
    """Return the section that a field holds, one or a list of them; None if it holds a value."""
    for part in parts(annotation):
        for inner in (part, *get_args(part)):
            if isinstance(inner, type) and issubclass(inner, Section):
                return inner
    return None


def dotted(key: Key) -> str:
    """Return a key as it is written: `cameras.0.source`."""
    return ".".join(map(str, key))
