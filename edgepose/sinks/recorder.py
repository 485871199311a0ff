"""Pose messages in a file, for `edgepose replay`."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from edgepose import messages
from edgepose.errors import SinkError
from edgepose.messages import PoseMessage

_log = logging.getLogger(__name__)

_FLUSH_EVERY_S = 1.0
_MAX_BUFFER_BYTES = 64 * 1024


class RecorderSink:
    """Appends messages to an NDJSON file.

    Lines are written about once a second and synced by the operating system, since an SD card wears
    with every write. So a killed process loses a second, a power cut what the system had not
    written, usually 30 s; the file before that stays readable. If the disk is full, or the file has
    reached `max_bytes`, that is logged and recording ends. `monotonic` is in seconds.

    Raises SinkError if the file cannot be opened for writing.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._buffer = bytearray()
        self._flush_at_s = monotonic() + _FLUSH_EVERY_S
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            self._size = os.fstat(self._fd).st_size
            torn = self._size and os.pread(self._fd, 1, self._size - 1) != b"\n"
        except OSError as error:
            self._close_file()
            raise SinkError(
                f"{path}: cannot be opened for recording ({error.strerror}): check that the folder "
                "exists and that edgepose may write there"
            ) from error
        if torn:
            # A power cut left half a line, with which the next message would be lost.
            self._buffer += b"\n"
        if max_bytes is not None and self._size >= max_bytes:
            self._stop_full()

    @property
    def recording(self) -> bool:
        """Whether messages still reach the file."""
        return self._fd >= 0

    def publish(self, message: PoseMessage) -> None:
        """Append a message; raises nothing, and waits for the disk only."""
        if not self.recording:
            return
        line = messages.encode(message) + b"\n"
        size = self._size + len(self._buffer) + len(line)
        if self._max_bytes is not None and size > self._max_bytes:
            self.flush()
            self._stop_full()
            return
        self._buffer += line
        if self._monotonic() >= self._flush_at_s or len(self._buffer) >= _MAX_BUFFER_BYTES:
            self.flush()

    def close(self) -> None:
        """Write what is left and close the file; closing twice is fine."""
        self.flush()
        self._close_file()

    def flush(self) -> None:
        """Write what is buffered."""
        if not self.recording or not self._buffer:
            return
        self._flush_at_s = self._monotonic() + _FLUSH_EVERY_S
        data = memoryview(bytes(self._buffer))
        self._buffer.clear()
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError as error:
            _log.error(
                "%s: recording stopped, the file cannot be written (%s); publishing continues. "
                "Free disk space and restart edgepose to record again",
                self.path,
                error.strerror,
            )
            self._drop_torn_line(bytes(data[:written]))
            self._close_file()
            return
        self._size += written

    def _drop_torn_line(self, written: bytes) -> None:
        """Truncate the half line that a full disk left."""
        try:
            os.ftruncate(self._fd, self._size + written.rfind(b"\n") + 1)
        except OSError as error:
            _log.debug("%s: the last line stays torn (%s)", self.path, error.strerror)

    def _stop_full(self) -> None:
        _log.warning(
            "%s: recording stopped, the file has reached its limit of %s bytes; publishing "
            "continues. Move the file away and restart edgepose to record again",
            self.path,
            f"{self._max_bytes:,}",
        )
        self._close_file()

    def _close_file(self) -> None:
        if self.recording:
            os.close(self._fd)
            self._fd = -1
