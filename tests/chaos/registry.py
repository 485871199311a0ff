"""The faults by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.judge import Row

FaultFunction = Callable[[Path, Row], Row]


class UnavailableError(Exception):
    """The machine lacks something that a fault needs; the message names it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and the function that runs it in a folder."""

    name: str
    title: str
    run: FaultFunction
    long: bool = False


@dataclass(slots=True)
class Options:
    """Options of all faults."""

    seed: int = 4


OPTIONS: Final = Options()
FAULTS: Final[dict[str, Fault]] = {}


def fault(name: str, title: str, *, long: bool = False) -> Callable[[FaultFunction], FaultFunction]:
    """Register a function that runs a fault and fills in its row."""

    def register(run: FaultFunction) -> FaultFunction:
        FAULTS[name] = Fault(name, title, run, long)
        return run

    return register
