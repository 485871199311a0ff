"""Pose messages in a file, for `edgepose replay`."""

import logging
import math
import os
from contextlib import suppress
from pathlib import Path

from edgepose import messages
from edgepose.errors import SinkError
from edgepose.messages import PoseMessage

_log = logging.getLogger(__name__)


class RecorderSink:
    """Appends messages to an NDJSON file.

    The operating system collects the lines and writes them to the disk, usually after 30 s, so an
    SD card does not wear with every message; a power cut loses those, the file before them stays
    readable. If the disk is full, or the file has reached `max_bytes`, that is logged and recording
    ends. Raises SinkError if the file cannot be opened for writing.
    """

    def __init__(self, path: Path, *, max_bytes: float = math.inf) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            self._size = os.fstat(self._fd).st_size
            if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
                # A power cut left half a line, with which the next message would be lost.
                self._size += os.write(self._fd, b"\n")
        except OSError as error:
            self.close()
            raise SinkError(
                f"{path}: cannot be opened for recording ({error.strerror}): check that the folder "
                "exists and that edgepose may write there"
            ) from error

    def publish(self, message: PoseMessage) -> None:
        """Append a message; raises nothing, and waits for the disk only."""
        if self._fd < 0:
            return
        line = messages.encode(message) + b"\n"
        if self._size + len(line) > self._max_bytes:
            self._stop(
                f"the file has reached its limit of {self._max_bytes:,} bytes", "Move the file away"
            )
            return
        rest = line
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            with suppress(OSError):
                # The disk may have had room for half the line.
                os.ftruncate(self._fd, self._size)
            self._stop(f"the file cannot be written ({error.strerror})", "Free disk space")
            return
        self._size += len(line)

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _stop(self, reason: str, remedy: str) -> None:
        _log.error(
            "%s: recording stopped, %s; publishing continues. %s and restart edgepose to record "
            "again",
            self._path,
            reason,
            remedy,
        )
        self.close()
