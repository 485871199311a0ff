"""What the sources share: capture time, pacing, file checks, and the loop over a camera."""

import logging
import stat
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final

from edgepose.clock import boottime_ns
from edgepose.datatypes import Frame, Image
from edgepose.errors import SourceError, SourceNotFoundError
from edgepose.protocols import FrameDemand, FrameStream

log = logging.getLogger(__name__)

MAX_AGE_NS: Final = 2_000_000_000
"""A driver timestamp older than this on arrival is from an unknown clock."""
MAX_LATENESS_NS: Final = 1_000_000_000
"""A recording played in real time continues from now if it is later than this."""


class CaptureClock:
    """Converts driver timestamps to strictly increasing CLOCK_BOOTTIME timestamps."""

    def __init__(self) -> None:
        self._last_ns = 0

    def stamp(self, driver_ns: int | None = None) -> int:
        """Return the capture time of a frame that arrived now, in ns.

        `driver_ns` is CLOCK_MONOTONIC or CLOCK_BOOTTIME; drivers do not report which, and the two
        differ by the time spent in suspend. If it fits neither, the time of arrival is returned.
        """
        now_ns = boottime_ns()
        timestamp_ns = now_ns
        if driver_ns:
            for clock_ns in (now_ns, time.monotonic_ns()):
                if 0 <= clock_ns - driver_ns <= MAX_AGE_NS:
                    timestamp_ns = now_ns - (clock_ns - driver_ns)
                    break
        self._last_ns = max(timestamp_ns, self._last_ns + 1)
        return self._last_ns


class Pacer:
    """Waits until the next frame of a recording is due, for playback in real time.

    A longer wait than `max_wait_ns` is shortened.
    """

    def __init__(self, max_wait_ns: int | None = None) -> None:
        self.start_ns = boottime_ns()
        self._max_wait_ns = max_wait_ns

    def wait_for(self, elapsed_ns: int) -> None:
        """Sleep until `elapsed_ns` after the start; if far too late, move the start instead."""
        late_ns = boottime_ns() - self.start_ns - elapsed_ns
        if late_ns < 0:
            wait_ns = min(-late_ns, self._max_wait_ns or -late_ns)
            self.start_ns += late_ns + wait_ns
            time.sleep(wait_ns / 1e9)
        elif late_ns > MAX_LATENESS_NS:
            # After a suspend, or on a machine that is too slow: frames must not have old times.
            self.start_ns += late_ns


class DamageCounter:
    """Counts a source's damaged frames, and logs how many there were when it is closed.

    The first one of a `live` source, which may never be closed, is logged at once.
    """

    def __init__(self, description: str, *, live: bool) -> None:
        self._description = description
        self._live = live
        self._count = 0

    def add(self) -> None:
        """Count a damaged frame."""
        self._count += 1
        if self._live and self._count == 1:
            log.warning("%s: a frame is damaged; further ones are counted", self._description)

    def close(self) -> None:
        """Log the number of damaged frames, unless all of it was logged."""
        if self._count > self._live:
            log.warning("%s: damaged frames: %d", self._description, self._count)


Captured = tuple[Image, int | None]
"""An image and the driver's timestamp, if there is one."""


def camera_frames(read: Callable[[FrameDemand | None], Captured | None]) -> FrameStream:
    """Yield frames as a camera delivers them.

    `read` waits for the next image and returns it, or None for one that is not wanted.
    """
    clock = CaptureClock()
    demand: FrameDemand | None = None
    for sequence in count():
        captured = read(demand)
        if captured is not None:
            image, driver_ns = captured
            demand = yield Frame(image, clock.stamp(driver_ns), sequence)
            # The consumer alone holds the frame while the next one is awaited.
            del image
        del captured


def warn_if_adjusted(
    description: str, requested_wh: tuple[int, int], actual_wh: tuple[int, int]
) -> None:
    """Log a warning if a camera delivers another frame size than was requested."""
    if actual_wh != requested_wh:
        log.warning(
            "%s: asked for %dx%d, the camera delivers %dx%d", description, *requested_wh, *actual_wh
        )


def check_file(path: Path, expected: str) -> int:
    """Return the size of a file in bytes; raises SourceError unless it is one that can be read.

    `expected` is the kind of file for the message. Raises SourceNotFoundError if there is none.
    """
    try:
        status = path.stat()
        is_file = stat.S_ISREG(status.st_mode)
        # Opening a pipe or a device may never return.
        if is_file:
            path.open("rb").close()
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"{path}: no such file") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot read the file: {error.strerror}") from error
    if not is_file:
        raise SourceError(f"{path}: expected {expected}, this is not a file")
    if not status.st_size:
        raise SourceError(f"{path}: expected {expected}, the file is empty")
    return status.st_size
