"""The folder of one node's state: used by one process, and kept when the node is renamed."""

import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from edgepose.errors import AlreadyRunningError
from edgepose.mqtt.topics import Topics
from edgepose.sinks.mqtt import EVENTS_FILE
from edgepose.util.background import BackgroundWriter
from edgepose.util.files import make_private_folder, open_regular_file

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S: Final = 2.0
_MAX_RECORD_BYTES: Final = 1 << 20


class _Record(msgspec.Struct, frozen=True):
    """What the lock file contains; messages may be retained under the prefix `root`."""

    pid: int = 0
    config: str = ""
    root: str = ""


class StateFolder:
    """`nodes/<node>` in the state directory, locked until `close` or the end of the process.

    A node that was renamed, which is another one with the same configuration file, keeps its
    folder; `previous_root` is the prefix of the topics on which it published before, if that was
    another. Earlier versions kept the files of all nodes in the state directory, `shared`. A folder
    that cannot be written is logged and not locked.
    Raises AlreadyRunningError if another process uses the folder.
    """

    def __init__(self, shared: Path, topics: Topics, config_file: Path | None) -> None:
        self.shared = shared
        self.path = node_folder(shared, topics.node)
        self.previous_root: str | None = None
        self._lock: int | None = None
        self._record = _Record(
            os.getpid(), str(config_file and config_file.absolute()), topics.root
        )
        self._writer = BackgroundWriter("state-folder", self._write, max_pending=1)
        try:
            self._open()
        except OSError as error:
            log.warning(
                "%s: the folder cannot be locked (%s), so a second edgepose with this node id "
                "would not be noticed; set state_directory to a folder that edgepose may write",
                self.path,
                error.strerror,
            )

    def forget_previous(self) -> None:
        """Remember that nothing is retained under the previous prefix; returns at once."""
        self._writer.submit(self._record)

    def close(self) -> None:
        """Unlock the folder, after 2 s at most."""
        if self._writer.close(CLOSE_TIMEOUT_S) and self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open(self) -> None:
        make_private_folder(self.path.parent)
        if not self.path.exists():
            self._lock = self._take_over()
        if self._lock is None:
            self.path.mkdir(mode=0o700, exist_ok=True)
            lock = open_regular_file(self.path / "lock", os.O_RDWR | os.O_CREAT)
            if not _try_lock(lock):
                other = _read(lock).pid
                os.close(lock)
                raise AlreadyRunningError(
                    f"{self.path}: another edgepose (process {other}) runs with the node id "
                    f"{self.path.name!r}; stop it, or give this one another node id"
                )
            self._lock = lock
        earlier = _read(self._lock).root
        if earlier not in ("", self._record.root):
            self.previous_root = earlier
            self._write(msgspec.structs.replace(self._record, root=earlier))
        else:
            self._write(self._record)
        self._move_events()

    def _take_over(self) -> int | None:
        """Rename the folder of this configuration file's earlier node, and return its lock."""
        for other in self.path.parent.iterdir():
            try:
                lock = open_regular_file(other / "lock", os.O_RDWR)
            except OSError:
                continue
            if _try_lock(lock) and _read(lock).config == self._record.config:
                log.info("node %s is now %s: its state is kept", other.name, self.path.name)
                other.rename(self.path)
                return lock
            os.close(lock)
        return None

    def _move_events(self) -> None:
        """Take the waiting events of an earlier version; their topics have the node of each."""
        # The file itself last: until then, the next start tries again.
        for name in (f"{EVENTS_FILE}-wal", EVENTS_FILE):
            if not (self.path / EVENTS_FILE).exists():
                with suppress(FileNotFoundError):
                    (self.shared / name).rename(self.path / name)

    def _write(self, record: _Record) -> None:
        if self._lock is not None:
            content = msgspec.json.encode(record)
            with suppress(OSError):
                os.pwrite(self._lock, content, 0)
                os.ftruncate(self._lock, len(content))


def node_folder(shared: Path, node: str) -> Path:
    """Return the folder of a node in the state directory."""
    return shared / "nodes" / node


def lock_holder(shared: Path, node: str) -> int | None:
    """Return the process that uses the folder of a node, None if none does or it is not readable.

    `shared` is the state directory. Nothing is created.
    """
    try:
        lock = open_regular_file(node_folder(shared, node) / "lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        return None if _try_lock(lock) else _read(lock).pid
    finally:
        os.close(lock)


def _try_lock(lock: int) -> bool:
    """Lock an open file; return False if another process has locked it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(lock: int) -> _Record:
    """Return the content of a lock file; it is empty if a power cut interrupted the first start."""
    try:
        return msgspec.json.decode(os.pread(lock, _MAX_RECORD_BYTES, 0), type=_Record)
    except (msgspec.DecodeError, RecursionError):
        return _Record()
