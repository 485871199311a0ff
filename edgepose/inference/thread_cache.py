"""The numbers of CPU threads that were measured on this machine, kept over restarts."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edgepose.monitoring.host import cpu_quota, machine
from edgepose.util.files import read_regular_file, replace_file

log = logging.getLogger(__name__)

FILE: Final = "threads.json"
MAX_MEASUREMENTS: Final = 32
_MAX_BYTES: Final = 1 << 20

Threads = Annotated[int, Meta(ge=1, le=64)]


class ThreadKey(msgspec.Struct, frozen=True):
    """What the best number of threads depends on, in words: a change of any is measured again."""

    model: str
    runtime: str
    machine: str


class ThreadMeasurement(msgspec.Struct, frozen=True):
    """The chosen number of threads, and what it was chosen from.

    `invoke_ms` is the median time of an inference by number of threads, with frames `interval_ms`
    apart. If the machine was `busy` with other programs, the next start measures again.
    """

    key: ThreadKey
    threads: Threads
    invoke_ms: dict[Threads, Annotated[float, Meta(ge=0)]]
    interval_ms: Annotated[float, Meta(ge=0)]
    busy: bool


class ThreadCache:
    """Measurements by key, in a file of the node's state folder, read when the first one is needed.

    A damaged file is ignored and written again. `on_new` is called after each new measurement, in
    the thread that keeps it.
    """

    def __init__(self, folder: Path, on_new: Callable[[], None] = lambda: None) -> None:
        self._path = folder / FILE
        self._on_new = on_new
        self._measurements: tuple[ThreadMeasurement, ...] | None = None

    def find(self, key: ThreadKey) -> ThreadMeasurement | None:
        """Return what was measured before, None if nothing was."""
        if self._measurements is None:
            self._measurements = _read(self._path)
        return next((each for each in self._measurements if each.key == key), None)

    def keep(self, measurement: ThreadMeasurement) -> None:
        """Write a measurement into the file; waits for the disk. A failure is logged."""
        others = [each for each in self._measurements or () if each.key != measurement.key]
        self._measurements = (*others, measurement)[-MAX_MEASUREMENTS:]
        try:
            replace_file(self._path, msgspec.json.encode(self._measurements))
        except OSError as error:
            log.warning(
                "%s: cannot save the measured number of threads (%s); it is measured again at the "
                "next start",
                self._path,
                error.strerror or error,
            )
        self._on_new()


def machine_words() -> str:
    """Return the processor, and what of it this process may use."""
    host = machine()
    quota = cpu_quota()
    words = [
        host.name,
        host.cpu or host.architecture,
        f"{host.cores} cores",
        f"uses {','.join(map(str, sorted(os.sched_getaffinity(0))))}",
        *([] if quota is None else [f"at most {quota:g} of them"]),
    ]
    return ", ".join(words)


def _read(path: Path) -> tuple[ThreadMeasurement, ...]:
    try:
        return msgspec.json.decode(
            read_regular_file(path, _MAX_BYTES), type=tuple[ThreadMeasurement, ...]
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ()
    # Unlimited nesting is a RecursionError, which is no ValueError.
    except (OSError, ValueError, RecursionError) as error:
        log.warning(
            "%s: expected the measured numbers of threads, but it cannot be read (%s); they are "
            "measured again, and the file is replaced",
            path,
            error,
        )
        return ()
