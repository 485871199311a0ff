"""Commands from subscribers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """A command."""

    camera: str | None
    name: str
    payload: bytes


def parse_switch(payload: bytes) -> bool:
    """Parse."""
    return payload == b"ON"
