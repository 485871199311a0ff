"""The faults by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.judge import Row

Try = Callable[[Path, Row], Row]


class NotHereError(Exception):
    """This machine lacks what a fault needs; the text says what."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong, and what tries it in a folder of its own."""

    name: str
    title: str
    run: Try
    long: bool = False


@dataclass(slots=True)
class Options:
    """What faults that depend on chance begin with."""

    seed: int = 4


OPTIONS: Final = Options()
FAULTS: Final[dict[str, Fault]] = {}


def fault(name: str, title: str, *, long: bool = False) -> Callable[[Try], Try]:
    """Register a function that tries a fault and fills in its row."""

    def register(run: Try) -> Try:
        FAULTS[name] = Fault(name, title, run, long)
        return run

    return register
