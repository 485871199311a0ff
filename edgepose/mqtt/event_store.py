"""Events that wait for the broker, in memory and over a restart in a small file."""

import contextlib
import errno
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
class StoredEvent:
    """A message that must not get lost; two of the same text are still two."""

    topic: str
    payload: bytes


class _Line(msgspec.Struct, frozen=True):
    topic: str
    payload: str


@dataclass(frozen=True, slots=True)
class Save:
    """What a save has to do: `in_file` where the lines are there, and only not yet on the disk."""

    messages: tuple[StoredEvent, ...]
    in_file: bool


class EventStore:
    """A bounded first-in first-out queue of messages that survives a restart.

    A message that is appended with `jot` is a line in the file, NDJSON, from then on, which a
    killed process leaves behind; the operating system brings it to the disk in its own time, or
    `save` does. Any other message is only in memory until `save`, which then replaces the file as a
    whole, so it is always either the old one or the new one. Nothing is saved where nothing
    changed: a queue that is emptied in time never touches the disk.

    Without a `path` the queue lives in memory only. Beyond `max_messages` the oldest is dropped and
    counted. Not thread-safe.
    """

    def __init__(self, path: Path | None, *, max_messages: int) -> None:
        self._path = path
        self._max_messages = max_messages
        self._messages: deque[StoredEvent] = deque()
        self._touched = False
        self._in_file = True
        self._stale_lines = 0
        self._torn = False
        self._meanwhile: list[StoredEvent] | None = None
        self._written = False
        self._write_failed = False
        self.dropped = 0
        for message in () if path is None else _read(path):
            self.append(message)
        self.on_disk = bool(self._messages)
        self._in_file = True
        self._touched = False
        # Most of these were dropped, and counted, by the last process.
        self.dropped = 0
        # What the last process left may end in half a line.
        self._torn = True

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[StoredEvent]:
        return iter(self._messages)

    @property
    def changed(self) -> bool:
        """Whether `save` would have something to do."""
        return self._path is not None and self._touched and (bool(self._messages) or self.on_disk)

    def append(self, message: StoredEvent, *, jot: bool = False) -> StoredEvent | None:
        """Take a message in; return the oldest one where it had to make room."""
        dropped = None
        if len(self._messages) >= self._max_messages:
            dropped = self._messages.popleft()
            self.dropped += 1
            # Its line stays where it is; too many of these are worth a new file.
            self._stale_lines += 1
            if self._stale_lines >= self._max_messages:
                self._in_file = False
        self._messages.append(message)
        self._touched = True
        if jot:
            self._jot(message)
        else:
            self._in_file = False
        return dropped

    def remove(self, message: StoredEvent) -> None:
        """Let go of a message that arrived; one that was dropped meanwhile is no error."""
        with contextlib.suppress(ValueError):
            self._messages.remove(message)
            self._touched = True
            self._in_file = False

    def save(self) -> None:
        """Write what waits, or remove the file where nothing does; a failure is logged once."""
        save = self.begin_save()
        if save is not None:
            self.write(save)
            self.end_save()

    def begin_save(self) -> Save | None:
        """Return what `write` has to bring to the disk; None where the file is as it should be."""
        if not self.changed:
            return None
        self._touched = False
        save = Save(tuple(self._messages), self._in_file and self.on_disk)
        # With nothing waiting, what is in the file has arrived.
        self._in_file = bool(self._messages)
        self._meanwhile = []
        return save

    def write(self, save: Save) -> None:
        """Bring these messages to the disk; needs no lock, unlike all other methods.

        What is jotted meanwhile goes where it always goes; `end_save` brings both together.
        """
        path = self._path
        if path is None or not save.messages:
            return
        try:
            if save.in_file:
                _sync(path)
            else:
                _write(_new(path), save.messages)
                self._written = True
        except OSError as error:
            self._failed(path, error)

    def end_save(self) -> None:
        """Put the file that was written in its place, or remove it where nothing waits."""
        meanwhile, self._meanwhile = self._meanwhile or [], None
        written, self._written = self._written, False
        path = self._path
        if path is None:
            return
        try:
            if written:
                if meanwhile:
                    with _new(path).open("ab") as file:
                        file.write(_lines(meanwhile))
                _new(path).replace(path)
                self._torn = self._write_failed = False
                self._stale_lines = 0
                self.on_disk = True
            elif not self._messages:
                path.unlink(missing_ok=True)
                self._torn = self._write_failed = False
                self._stale_lines = 0
                self.on_disk = False
                self._in_file = True
        except OSError as error:
            self._failed(path, error)

    def _jot(self, message: StoredEvent) -> None:
        path = self._path
        if path is None:
            return
        if self._meanwhile is not None:
            self._meanwhile.append(message)
        text = b"\n" * self._torn + _lines([message])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab", buffering=0) as file:
                # A full disk takes a part; the half line that it leaves harms only itself.
                self._torn = file.write(text) != len(text)
            if self._torn:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._torn = True
            self._failed(path, error)
            return
        self.on_disk = True

    def _failed(self, path: Path, error: OSError) -> None:
        if not self._write_failed:
            _log.warning(
                "%s: events that wait for the broker cannot be saved (%s) and would be lost in "
                "a restart: make room, or let edgepose write there",
                path,
                error.strerror,
            )
        self._write_failed = self._touched = True
        self._in_file = False


def _lines(messages: Iterable[StoredEvent]) -> bytes:
    return b"".join(
        msgspec.json.encode(_Line(m.topic, m.payload.decode("utf-8", "replace"))) + b"\n"
        for m in messages
    )


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _new(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _write(path: Path, messages: Iterable[StoredEvent]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(_lines(messages))
        file.flush()
        # Without it a power cut can leave the new name on an empty file.
        os.fsync(file.fileno())


def _read(path: Path) -> list[StoredEvent]:
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


def _message(line: bytes) -> StoredEvent | None:
    try:
        entry = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # paho would refuse such topics later, when nobody knows any more where they came from. For a
    # control character a broker ends the connection, and would do so at every try to send it.
    if not entry.topic.isprintable() or not entry.topic or set(entry.topic) & set("+#"):
        return None
    if len(entry.topic.encode()) > _MAX_TOPIC_BYTES:
        return None
    return StoredEvent(entry.topic, entry.payload.encode())
