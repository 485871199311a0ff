"""Events that wait for the broker: in memory, and in a SQLite file that outlives the process."""

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepose.util.background import BackgroundWriter
from edgepose.util.files import make_private_folder, open_regular_file

_log = logging.getLogger("edgepose.mqtt")

CLOSE_TIMEOUT_S: Final = 2.0
# sqlite3 quotes damaged parts of the file in its error, which may not be UTF-8.
_ERRORS: Final = (sqlite3.Error, OSError, UnicodeDecodeError)
_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS events "
    "(id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL)"
)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event that the broker has not acknowledged; ids grow in the order of events."""

    id: int
    topic: str
    payload: bytes


class EventStore:
    """At most `max_events` events in their order; beyond that the oldest is dropped and counted.

    The first of a series of dropped ones is logged.

    `path` None keeps them in memory only. All methods but `close` return at once: a background
    thread writes what differs between memory and file, so events that are acknowledged before
    `request_save` never touch the disk. Committed events survive a killed process, and a power cut
    once SQLite has synced its write-ahead log, a second after the last change. What cannot be
    written is logged once and tried again; a damaged file is renamed and a new one begun. The
    caller serializes the calls.
    """

    def __init__(self, path: Path | None, *, max_events: int) -> None:
        self.dropped = 0
        self._path = path
        self._max_events = max_events
        self._failure = ""
        self._connection: sqlite3.Connection | None = None
        self._unsynced = False
        self._saved: set[int] = set()
        loaded = self._load()
        # Replaced as a whole, so that the background thread reads one state of it.
        self._events = {event.id: event for event in loaded[-max_events:]}
        self._saved.update(event.id for event in loaded)
        # Beyond the ids in a file that cannot be read now, which would be overwritten.
        self._next_id = loaded[-1].id + 1 if loaded else time.time_ns()
        self._dropping = False
        self._writer: BackgroundWriter[object] = BackgroundWriter(
            "event-store",
            lambda _: self._save(),
            max_pending=1,
            on_idle=self._on_idle,
            on_end=self._disconnect,
        )

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[StoredEvent]:
        return iter(tuple(self._events.values()))

    def append(self, topic: str, payload: bytes) -> StoredEvent:
        """Add an event; beyond `max_events` drop the oldest one."""
        event = StoredEvent(self._next_id, topic, payload)
        self._next_id += 1
        events = self._events | {event.id: event}
        if len(events) > self._max_events:
            del events[next(iter(events))]
            self.dropped += 1
            if not self._dropping:
                self._dropping = True
                _log.warning(
                    "%d events wait for the broker; the oldest are dropped from now on",
                    self._max_events,
                )
        self._events = events
        return event

    def remove(self, event: StoredEvent) -> None:
        """Remove an event that was acknowledged, or was dropped before."""
        self._events = {id_: other for id_, other in self._events.items() if id_ != event.id}
        self._dropping = self._dropping and len(self._events) > self._max_events // 2
        if event.id in self._saved:
            self.request_save()

    def request_save(self) -> None:
        """Have the file brought up to date."""
        if self._path is not None:
            # If one request waits already, it will save this change too.
            self._writer.submit(self)

    def close(self) -> None:
        """Bring the file up to date, and wait for that 2 s at most."""
        self.request_save()
        if not self._writer.close(CLOSE_TIMEOUT_S):
            _log.warning("%s: the disk does not answer; waiting events are not saved", self._path)

    # -- the file ----------------------------------------------------------------------------

    def _load(self) -> list[StoredEvent]:
        if self._path is None or not self._path.exists():
            return []
        try:
            with closing(self._open()) as connection:
                rows = connection.execute("SELECT id, topic, payload FROM events ORDER BY id")
                found = [StoredEvent(*row) for row in rows]
        except _ERRORS as error:
            self._on_failure(error, "read")
            return []
        events = [event for event in found if _is_valid(event)]
        if len(events) < len(found):
            _log.warning(
                "%s: %d of %d waiting events are invalid and left out",
                self._path,
                len(found) - len(events),
                len(found),
            )
        return events

    def _save(self) -> None:
        """Write what differs between memory and file; runs in the background thread."""
        events = self._events
        added = [event for event in events.values() if event.id not in self._saved]
        removed = [(id_,) for id_ in self._saved if id_ not in events]
        if not added and not removed:
            return
        try:
            self._connection = self._connection or self._open()
            with self._connection as connection:
                connection.executemany("DELETE FROM events WHERE id = ?", removed)
                connection.executemany(
                    "INSERT OR REPLACE INTO events VALUES (?, ?, ?)",
                    [(event.id, event.topic, event.payload) for event in added],
                )
        except _ERRORS as error:
            self._on_failure(error, "saved")
            return
        self._saved = set(events)
        self._failure = ""
        self._unsynced = True

    def _open(self) -> sqlite3.Connection:
        assert self._path is not None
        make_private_folder(self._path.parent)
        # SQLite would follow a link, and let everybody read a new file. This releases the locks of
        # other connections of this process, of which there are none.
        os.close(open_regular_file(self._path, os.O_RDWR | os.O_CREAT))
        connection = sqlite3.connect(self._path, timeout=1.0)
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.execute("PRAGMA journal_mode=WAL")
        # The log is synced at each checkpoint, not at each event: an SD card wears with writes.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_CREATE)
        return connection

    def _on_idle(self) -> None:
        self._save()
        if self._unsynced and self._connection is not None:
            self._unsynced = False
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except _ERRORS as error:
                self._on_failure(error, "saved")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _on_failure(self, error: Exception, what: str) -> None:
        """Close the file, rename it if it is damaged, and log an error that is new."""
        assert self._path is not None
        self._disconnect()
        consequence = "they are lost if edgepose ends before the disk works again"
        if _is_damaged(error):
            self._saved = set()
            aside = self._path.with_name(self._path.name + ".damaged")
            with suppress(OSError):
                self._path.rename(aside)
                for suffix in ("-wal", "-shm"):
                    self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
                consequence = f"the damaged file is now {aside.name}"
        if str(error) != self._failure:
            self._failure = str(error)
            _log.warning(
                "%s: waiting events cannot be %s (%s); %s", self._path, what, error, consequence
            )


def _is_damaged(error: Exception) -> bool:
    """Return whether the file is damaged; an OperationalError is one of the disk or permissions."""
    damaged = isinstance(error, sqlite3.DatabaseError | UnicodeDecodeError)
    return damaged and not isinstance(error, sqlite3.OperationalError)


def _is_valid(event: StoredEvent) -> bool:
    """Return whether a broker accepts it: mosquitto ends a connection over a control character."""
    topic = event.topic
    typed = isinstance(topic, str) and isinstance(event.payload, bytes)
    return typed and topic != "" and topic.isprintable() and not set(topic) & set("+#")
