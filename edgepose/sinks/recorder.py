"""Pose messages in a file, for `edgepose replay`."""

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from edgepose import messages
from edgepose.errors import SinkError
from edgepose.messages import PoseMessage
from edgepose.util.files import open_regular_file

_FIRST_BYTES: Final = b'{"schema":'


class RecorderSink:
    """Appends messages to an NDJSON file.

    The operating system collects the lines and writes them to the disk, usually after 30 s, so an
    SD card does not wear with every message; a power cut loses those, the file before them stays
    readable. A file that would exceed `max_bytes` is renamed to `<name>.1`, the one before to
    `<name>.2` and so on; `keep` of them remain. A file that was moved, deleted or could not be
    written is opened again with the next message.
    """

    def __init__(self, path: Path, *, max_bytes: float = math.inf, keep: int = 1) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._fd = -1

    def open(self) -> None:
        """Open the file, so that it is known whether it can be; raises SinkError if not."""
        with self._errors():
            self._size()

    def publish(self, message: PoseMessage) -> None:
        """Append a message, waiting for the disk; raises SinkError if it is not recorded."""
        line = messages.encode(message) + b"\n"
        with self._errors():
            size = self._size()
            if size and size + len(line) > self._max_bytes:
                self._rotate()
                size = self._size()
            self._append(line, size)

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.close()
            raise SinkError(
                f"{self._path}: cannot be written ({error.strerror}): check that the folder "
                "exists, has free space and that edgepose may write there"
            ) from error

    def _size(self) -> int:
        """Return the size of the file, opened afresh if another or none has its name by now."""
        with suppress(FileNotFoundError):
            if self._fd >= 0 and os.path.samestat(now := self._path.lstat(), os.fstat(self._fd)):
                return now.st_size
        self.close()
        self._fd = open_regular_file(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            # A power cut left half a line, with which the next message would be lost.
            size += os.write(self._fd, b"\n")
        return size

    def _append(self, line: bytes, size: int) -> None:
        rest = line
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            with suppress(OSError):
                # The disk may have had room for half the line.
                os.ftruncate(self._fd, size)
            raise

    def _rotate(self) -> None:
        """Rename the file to the first of the kept names, and each of those to the next one."""
        kept: list[Path] = []
        for number in itertools.count(1):
            path = self._path.with_name(f"{self._path.name}.{number}")
            free = not os.path.lexists(path)
            # What is not a recording is not overwritten; its number is left out.
            if free or _is_recording(path):
                kept.append(path)
            if free or len(kept) == self._keep:
                break
        for path, older in itertools.pairwise([*reversed(kept), self._path]):
            older.replace(path)


def _is_recording(path: Path) -> bool:
    with suppress(OSError), os.fdopen(open_regular_file(path, os.O_RDONLY), "rb") as file:
        return file.read(len(_FIRST_BYTES)) == _FIRST_BYTES
    return False
