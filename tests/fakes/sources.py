"""Sources that a test controls."""

import threading
import weakref
from collections.abc import Iterable

import numpy as np

from edgepose.datatypes import Frame, Image
from edgepose.errors import SourceError
from edgepose.protocols import FrameStream
from tests.builders import SECOND_NS, frame_of

PATIENCE_S = 60.0


class ScriptedSource:
    """Plays a script: an int is a frame at that second, an error is raised, the rest is the end."""

    def __init__(
        self,
        script: Iterable[int | Frame | SourceError],
        *,
        live: bool = False,
        description: str = "scripted",
    ) -> None:
        self.live = live
        self.description = description
        self._script = script

    def frames(self) -> FrameStream:
        for item in self._script:
            if isinstance(item, SourceError):
                raise item
            if isinstance(item, int):
                item = frame_of(timestamp_ns=item * SECOND_NS, sequence=item)
            yield item


class SteppedSource:
    """Delivers one frame for each `allow`, then ends or fails; `requested` counts the reads."""

    description = "stepped"

    def __init__(
        self,
        count: int,
        *,
        live: bool,
        failure: BaseException | None = None,
        open_failure: BaseException | None = None,
    ) -> None:
        self.live = live
        self.count = count
        self.failure = failure
        self.open_failure = open_failure
        self.allowed = threading.Semaphore(0)
        self.requested = threading.Semaphore(0)
        self.opened_in: str | None = None
        self.closed = threading.Event()
        self.images: list[weakref.ref[Image]] = []

    def allow(self, count: int = 1) -> None:
        self.allowed.release(count)

    def wait_until_requested(self, count: int = 1) -> None:
        """Wait until the reader asked for another frame, `count` times."""
        for _ in range(count):
            assert self.requested.acquire(timeout=PATIENCE_S)

    def frames(self) -> FrameStream:
        self.opened_in = threading.current_thread().name
        if self.open_failure is not None:
            raise self.open_failure
        try:
            for sequence in range(self.count):
                self.requested.release()
                self.allowed.acquire()
                image = np.full((4, 4, 3), sequence, np.uint8)
                self.images.append(weakref.ref(image))
                frame = Frame(image, 100 + sequence, sequence)
                del image
                yield frame
                del frame
            self.requested.release()
            self.allowed.acquire()
            if self.failure is not None:
                raise self.failure
        finally:
            self.closed.set()


class ScriptedDemand:
    """Wants the frames that its script does; once the script is over, all of them."""

    def __init__(self, *wanted: bool, idle: bool = False) -> None:
        self.idle = idle
        self._wanted = list(wanted)

    def wanted(self) -> bool:
        return self._wanted.pop(0) if self._wanted else True
