"""Which cameras are switched off, remembered over restarts."""

import json
import logging
import os
from pathlib import Path
from typing import Final

import msgspec

from edgepose.util.background import BackgroundWriter
from edgepose.util.files import open_regular_file, read_regular_file, replace_file

log = logging.getLogger(__name__)

WRITE_TIMEOUT_S: Final = 2.0
_MAX_BYTES: Final = 1 << 20


class Switches:
    """The privacy switches: kept in memory first, and in a file for the next start.

    A switch holds as long as the process even if the file cannot be written. The file is written
    in the background, since a disk may block, and again until that succeeds; until then it is
    emptied, since a file that cannot be read leaves all cameras off. `off` may have cameras that
    are not configured now and return later. Without that file, `earlier`, if given, is read.
    """

    def __init__(self, path: Path, cameras: frozenset[str], *, earlier: Path | None = None) -> None:
        self.off = _read(path, cameras, earlier)
        self._saved: frozenset[str] | None = self.off
        self._path = path
        self._failure = ""
        self._writer: BackgroundWriter[object] = BackgroundWriter(
            "switches", lambda _: self._save(), max_pending=1, on_idle=self._save
        )
        # Starts the thread, for which there may be no room later.
        self._writer.submit(self)

    def set(self, camera: str, *, enabled: bool) -> None:
        """Remember that a camera is switched on or off."""
        self.off = self.off - {camera} if enabled else self.off | {camera}
        # Dropped if one waits already, which will save this change too.
        self._writer.submit(self)

    def close(self) -> None:
        """Wait for the file, 2 s at most."""
        if not self._writer.close(WRITE_TIMEOUT_S):
            log.warning("%s: the disk does not answer; the switches are not saved", self._path)

    def _save(self) -> None:
        """Write the file if it is out of date; a failure is logged once and tried again."""
        off = self.off
        if off == self._saved:
            return
        try:
            replace_file(self._path, json.dumps({"off": sorted(off)}).encode())
        except OSError as error:
            if self._saved is not None and off - self._saved and self._try_empty():
                self._saved = None
            failure = error.strerror or str(error)
            if failure != self._failure:
                log.warning(
                    "%s: cannot save which cameras are switched off (%s); trying again, but if "
                    "edgepose restarts before that succeeds, %s",
                    self._path,
                    failure,
                    "cameras stay off"
                    if self._saved is None or off <= self._saved
                    else "it opens them",
                )
            self._failure = failure
            return
        self._saved = off
        self._failure = ""

    def _try_empty(self) -> bool:
        """Empty the file, for which a full disk has room; return False if that fails too."""
        try:
            os.close(open_regular_file(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
        except OSError:
            return False
        return True


def _read(path: Path, cameras: frozenset[str], earlier: Path | None) -> frozenset[str]:
    """Return which cameras are off, also of those that are not configured now.

    A file that exists but cannot be read leaves them all off: some camera was switched off once,
    and which one is not known any more.
    """
    try:
        content = msgspec.json.decode(
            read_regular_file(path, _MAX_BYTES), type=dict[str, list[str]]
        )
        return frozenset(content["off"])
    except FileNotFoundError:
        return frozenset() if earlier is None else _read(earlier, cameras, None)
    # Unlimited nesting is a RecursionError, which is no ValueError.
    except (OSError, ValueError, KeyError, RecursionError) as error:
        log.warning(
            "%s: expected the cameras that are switched off, but it cannot be read (%s); all "
            "cameras stay off until they are switched on over MQTT, or the file is deleted",
            path,
            error,
        )
        return cameras
