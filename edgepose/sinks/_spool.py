"""Events that wait for the broker, in memory and over a restart in a small file."""

import contextlib
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

_log = logging.getLogger(__name__)

_MAX_FILE_BYTES = 8 * 1024 * 1024
_MAX_TOPIC_BYTES = 65535


@dataclass(frozen=True, slots=True, eq=False)
class WaitingMessage:
    """A message that must not get lost; two of the same text are still two."""

    topic: str
    payload: bytes


class _Line(msgspec.Struct, frozen=True):
    topic: str
    payload: str


class Spool:
    """A bounded first-in first-out queue of messages that survives a restart.

    The file, NDJSON, is replaced as a whole, so it is always either the old one or the new one,
    and only when told to `save`, and only where something changed: a queue that is emptied in
    time never touches the disk. Without a `path` the queue lives in memory only. Beyond
    `max_messages` the oldest is dropped and counted. Not thread-safe.
    """

    def __init__(self, path: Path | None, *, max_messages: int) -> None:
        self._path = path
        self._max_messages = max_messages
        self._messages: deque[WaitingMessage] = deque()
        self._touched = False
        self._write_failed = False
        self.dropped = 0
        for message in () if path is None else _read(path):
            self.append(message)
        self.on_disk = bool(self._messages)
        self._touched = False

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[WaitingMessage]:
        return iter(self._messages)

    @property
    def changed(self) -> bool:
        """Whether `save` would have something to do."""
        return self._path is not None and self._touched and (bool(self._messages) or self.on_disk)

    def append(self, message: WaitingMessage) -> WaitingMessage | None:
        """Take a message in; return the oldest one where it had to make room."""
        dropped = None
        if len(self._messages) >= self._max_messages:
            dropped = self._messages.popleft()
            self.dropped += 1
        self._messages.append(message)
        self._touched = True
        return dropped

    def remove(self, message: WaitingMessage) -> None:
        """Let go of a message that arrived; one that was dropped meanwhile is no error."""
        with contextlib.suppress(ValueError):
            self._messages.remove(message)
            self._touched = True

    def save(self) -> None:
        """Write what waits, or remove the file where nothing does; a failure is logged once."""
        messages = self.begin_save()
        if messages is not None:
            self.write(messages)

    def begin_save(self) -> tuple[WaitingMessage, ...] | None:
        """Return what `write` has to bring to the disk; None where the file is as it should be."""
        if not self.changed:
            return None
        self._touched = False
        return tuple(self._messages)

    def write(self, messages: tuple[WaitingMessage, ...]) -> None:
        """Make the file hold these messages; needs no lock, unlike all other methods."""
        if self._path is None:
            return
        try:
            if messages:
                _write(self._path, messages)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            if not self._write_failed:
                _log.warning(
                    "%s: events that wait for the broker cannot be saved (%s) and would be lost in "
                    "a restart: make room, or let edgepose write there",
                    self._path,
                    error.strerror,
                )
            self._write_failed = self._touched = True
            return
        self._write_failed = False
        self.on_disk = bool(messages)


def _write(path: Path, messages: Iterable[WaitingMessage]) -> None:
    text = b"".join(
        msgspec.json.encode(_Line(m.topic, m.payload.decode("utf-8", "replace"))) + b"\n"
        for m in messages
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(text)
        file.flush()
        # Without it a power cut can leave the new name on an empty file.
        os.fsync(file.fileno())
    new.replace(path)


def _read(path: Path) -> list[WaitingMessage]:
    """Return the messages of a file, without the lines that cannot be read."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES)
    except FileNotFoundError:
        return []
    except OSError as error:
        _log.warning(
            "%s: events that waited for the broker cannot be read (%s) and are left out",
            path,
            error.strerror,
        )
        return []
    lines = text.split(b"\n")
    messages = [message for message in map(_message, lines) if message is not None]
    bad = sum(map(bool, lines)) - len(messages)
    if bad:
        _log.warning(
            "%s: %d of %d events that waited for the broker are damaged and left out",
            path,
            bad,
            bad + len(messages),
        )
    return messages


def _message(line: bytes) -> WaitingMessage | None:
    try:
        entry = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # paho would refuse such topics later, when nobody knows any more where they came from.
    if not entry.topic or set(entry.topic) & set("+#\0"):
        return None
    if len(entry.topic.encode()) > _MAX_TOPIC_BYTES:
        return None
    return WaitingMessage(entry.topic, entry.payload.encode())
