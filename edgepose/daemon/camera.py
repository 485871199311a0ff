"""Cameras kept alive: opened, looked at, lost, opened again, switched off and on."""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from edgepose.clock import boottime_ns, isoformat_utc, realtime_of_boottime_ns
from edgepose.daemon.capture import CaptureThread
from edgepose.datatypes import Frame
from edgepose.errors import (
    AcceleratorLostError,
    EdgeposeError,
    SourceError,
    SourceStalledError,
)
from edgepose.events.occupancy import OccupancyChange, OccupancyDetector
from edgepose.events.track_events import TrackEvent, TrackEventDetector
from edgepose.messages import EventMessage, encode
from edgepose.monitoring.stage_stats import StageStatistics
from edgepose.mqtt import topics
from edgepose.mqtt.topics import Topics
from edgepose.pipeline import Look, Pipeline, Prepared
from edgepose.protocols import FrameSource

log = logging.getLogger(__name__)

Capture = CaptureThread[Frame | Prepared]

IDLE_S: Final = 0.1
"""How long a loop sleeps at most; an order to stop is heeded within it."""
CLOSE_TIMEOUT_S: Final = 5.0
MAX_WAITING: Final = 2
MAX_SHARE: Final = 0.5
"""How much of the time between two frames looking and telling may take in the capture thread."""
LATENESS_NS: Final = 1_000_000_000
"""A frame is told of within this time; an Edge TPU that hangs holds one up the longest."""
FIRST_RETRY_NS: Final = 1_000_000_000
LAST_RETRY_NS: Final = 3_000_000_000
"""Opening a camera that is away costs little, and one that is back is to be seen within 5 s."""


@dataclass(slots=True)
class Camera:
    """One camera's parts.

    `open_source` makes a fresh, unopened source each time; a source that was open and delivered
    nothing for `silence_ns` counts as stalled.
    """

    name: str
    open_source: Callable[[], FrameSource]
    pipeline: Pipeline
    presence: OccupancyDetector
    entrances: TrackEventDetector
    silence_ns: int


class News(Protocol):
    """Where states and events of a camera go."""

    topics: Topics

    def set_state(self, topic: str, payload: bytes) -> None:
        """Say what is so from now on."""
        ...

    def send_event(self, camera: str, payload: bytes) -> None:
        """Say what happened."""
        ...


class CameraSupervisor:
    """One camera's life: open, online, stalled or lost, opened again, switched off and on.

    Whoever calls holds the lock of the telling, but for `has_news` and `prepare`. `at_once` is
    offered every frame that may be looked at in the thread that captured it.
    """

    at_once: "Callable[[Waiting, int], bool] | None" = None

    def __init__(
        self,
        camera: Camera,
        wake: threading.Condition,
        news: News,
        *,
        enabled: bool,
    ) -> None:
        self.camera = camera
        self.statistics = StageStatistics()
        self.enabled = enabled
        self.reopened = 0
        self.unseen = 0
        self.ended = False
        self.delivered = False
        self._online = False
        self._wake = wake
        self._news = news
        self._topics = news.topics
        self._capture: Capture | None = None
        self._dropped_before = 0
        self._retry_at_ns: int | None = None
        self._retry_ns = FIRST_RETRY_NS
        self._failure = ""
        self._offered_ns = 0

    @property
    def failed(self) -> bool:
        """Whether the source is away and waited for."""
        return bool(self._failure)

    def announce(self) -> None:
        """Publish every state of this camera as it stands."""
        name = self.camera.name
        self._news.set_state(self._topics.enabled(name), topics.ON if self.enabled else topics.OFF)
        self._status(topics.OFFLINE)
        self._publish_presence(
            OccupancyChange(0, self.camera.presence.present, self.camera.presence.count)
        )

    def start(self) -> None:
        """Open the source in its capture thread, unless the camera is switched off."""
        if self.enabled and self._capture is None and not self.ended:
            self._capture = CaptureThread(
                self.camera.open_source(),
                self.camera.pipeline.prepare_ahead,
                name=self.camera.name,
                at_once=self._offer,
                wake=self._wake,
            )
            self._capture.start()

    def has_news(self) -> bool:
        """Whether there is something to look at: a frame, the end, or a failure."""
        capture = self._capture
        return capture is not None and capture.has_news() and self.camera.pipeline.can_look

    def prepare(self) -> "Waiting | None":
        """Take the newest frame, in the looking thread; None where there is nothing new."""
        capture = self._capture
        if capture is None or not self.has_news():
            return None
        try:
            frame = capture.take(0)
            if frame is not None:
                return Waiting(self, capture, self.camera.pipeline.prepare(frame))
            return Waiting(self, capture, None) if capture.claim_end() else None
        except EdgeposeError as error:
            return Waiting(self, capture, error)

    def _offer(self, capture: Capture, frame: Frame | Prepared) -> bool:
        """Have a frame looked at at once, in the capture thread; False where it is to wait."""
        if self.at_once is None or not isinstance(frame, Prepared):
            return False
        timestamp_ns = frame.frame.timestamp_ns
        interval_ns, self._offered_ns = timestamp_ns - self._offered_ns, timestamp_ns
        return self.at_once(Waiting(self, capture, frame), interval_ns)

    def tell(self, seen: "Seen") -> None:
        """Tell of what was seen.

        Raises SourceError the first time that a source fails which never delivered a frame (it is
        tried again all the same, unless the caller gives up), and any other error of the line.
        """
        if seen.capture is not self._capture:
            # Seen by a capture that was closed since: nothing of it may leave any more.
            return
        match seen.what:
            case None:
                self.ended = True
                self._close(topics.OFFLINE)
            case SourceError() as error:
                self._lose(error)
            case AcceleratorLostError():
                # Nothing stands in for it. The frame is lost, the camera is not.
                self.unseen += 1
                self._blind()
            case EdgeposeError() as error:
                raise error
            case Look() as look:
                if not self._online:
                    self._recovered()
                step = self.camera.pipeline.tell(look)
                self.statistics.add(step.timings, step.publish_ns)
                seen_ns = look.frame.timestamp_ns
                self._publish_presence(self.camera.presence.update(len(step.tracked), seen_ns))
                self._publish_events(
                    self.camera.entrances.update(step.tracked.track_ids.tolist(), seen_ns)
                )

    def tick(self, now_ns: int) -> None:
        """Do what time alone asks for: let presence fall, and open a lost source again."""
        self._publish_presence(self.camera.presence.tick(now_ns))
        # A frame taken by then may still be looked at, and show that nobody has left.
        self._publish_events(self.camera.entrances.tick(now_ns - LATENESS_NS))
        if self._capture is not None and self._capture.silent_since(self.camera.silence_ns):
            # Some drivers block for good; their thread is left behind, the source opened afresh.
            self._lose(
                SourceStalledError(
                    "no frame for too long (5 s once it delivers, 30 s after opening); check the "
                    "camera's cable, and `dmesg` for what the kernel says of it"
                )
            )
        if self._retry_at_ns is not None and now_ns >= self._retry_at_ns and self.enabled:
            self._retry_at_ns = None
            self.reopened += 1
            self.start()

    def switch(self, *, enabled: bool) -> None:
        """Switch the camera on or off; off closes it."""
        if enabled != self.enabled:
            self.enabled = enabled
            log.info("camera %s: switched %s", self.camera.name, "on" if enabled else "off")
            if enabled:
                self.start()
            else:
                self._retry_at_ns = None
                self._close(topics.OFFLINE)
        self._news.set_state(
            self._topics.enabled(self.camera.name), topics.ON if enabled else topics.OFF
        )

    def close(self) -> None:
        """Close the source and say so."""
        self._close(topics.OFFLINE)

    def stats(self, now_ns: int) -> dict[str, object]:
        """Return this camera's part of the stats message."""
        dropped = self._dropped_before + (self._capture.dropped if self._capture else 0)
        return {
            **self.statistics.take(now_ns),
            "dropped": dropped,
            "unseen": self.unseen,
            "reopened": self.reopened,
        }

    def _recovered(self) -> None:
        if self._failure:
            log.info("camera %s: delivers frames again", self.camera.name)
        self.delivered = self._online = True
        self._failure = ""
        self._retry_ns = FIRST_RETRY_NS
        self._status(topics.ONLINE)

    def _lose(self, error: SourceError) -> None:
        stalled = isinstance(error, SourceStalledError)
        self._close(topics.STALLED if stalled else topics.OFFLINE)
        never_there = not self.delivered and not self.failed
        if str(error) != self._failure and not never_there:
            log.warning("camera %s: %s; trying again until it is back", self.camera.name, error)
        self._failure = str(error)
        # Jitter keeps several cameras on one hub from being opened at the same instant.
        self._retry_at_ns = boottime_ns() + int(self._retry_ns * random.uniform(0.8, 1.2))  # noqa: S311
        self._retry_ns = min(2 * self._retry_ns, LAST_RETRY_NS)
        if never_there:
            raise error

    def _close(self, status: bytes) -> None:
        if self._capture is not None:
            self._dropped_before += self._capture.dropped
            self._capture.close()
            self._capture = None
        self._online = False
        self._blind()
        self._status(status)

    def _blind(self) -> None:
        """Say that nobody is seen any more."""
        self.camera.pipeline.leave()
        self._publish_presence(self.camera.presence.lost(boottime_ns()))
        self._publish_events(self.camera.entrances.lost())

    def _status(self, status: bytes) -> None:
        self._news.set_state(self._topics.status(self.camera.name), status)

    def _publish_presence(self, change: OccupancyChange | None) -> None:
        if change is None:
            return
        name = self.camera.name
        if change.count is not None:
            self._news.set_state(self._topics.count(name), str(change.count).encode())
        if change.present is not None:
            self._news.set_state(
                self._topics.presence(name), topics.ON if change.present else topics.OFF
            )

    def _publish_events(self, entrances: Iterable[TrackEvent]) -> None:
        camera = self.camera.name
        for entrance in entrances:
            message = EventMessage(
                type=entrance.kind,
                node=self._topics.node,
                camera=camera,
                track_id=entrance.track_id,
                time=isoformat_utc(realtime_of_boottime_ns(entrance.time_ns)),
            )
            self._news.send_event(camera, encode(message))


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits to be looked at: a prepared frame, an error, or None for the end of the source."""

    runner: CameraSupervisor
    capture: Capture
    what: Prepared | EdgeposeError | None

    def again(self) -> "Waiting":
        """Return it as it is to be looked at now; raises AcceleratorLostError without a model."""
        if not isinstance(self.what, Prepared):
            return self
        prepared = self.runner.camera.pipeline.prepare(self.what)
        return self if prepared is self.what else replace(self, what=prepared)

    def see(self) -> "Seen":
        """Look at it."""
        if not isinstance(self.what, Prepared):
            return Seen(self.runner, self.capture, self.what)
        try:
            look = self.runner.camera.pipeline.see(self.what)
        except EdgeposeError as error:
            return Seen(self.runner, self.capture, error)
        return Seen(self.runner, self.capture, look)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the looking thread hands over: a look, an error, or None for the end of the source."""

    runner: CameraSupervisor
    capture: Capture
    what: Look | EdgeposeError | None


class InferenceThread:
    """Looks at the newest frame of each camera in turn, and hands over what it saw.

    A live camera's frame that comes while nothing else goes on is looked at and told of in the
    thread that captured it: to wake two other threads takes longer than all of the telling. Which
    thread does what is settled by two locks: whoever looks has the turn, and whoever tells, or
    changes what telling depends on, holds `telling`.
    """

    def __init__(
        self,
        runners: Sequence[CameraSupervisor],
        wake: threading.Condition,
        telling: threading.Lock,
    ) -> None:
        self._runners = runners
        self._wake = wake
        self._telling = telling
        self._turn = threading.Lock()
        # Not `queue.Queue`: that one is written in Python, and this is between two invokes. Nor
        # `queue.SimpleQueue`: a signal that comes just as its time is up makes it wait for ever.
        self._seen: deque[Seen] = deque()
        self._nothing_new = threading.Lock()
        self._nothing_new.acquire()
        self._held: Seen | None = None
        self._handed_over = 0
        self._told = 0
        self._took_ns: int | None = None
        self._closing = False
        self._failure: Exception | None = None
        self.turned_ns = boottime_ns()
        """When it last began to look round, CLOCK_BOOTTIME: what hangs stops it."""
        self._thread = threading.Thread(target=self._run, name="looking", daemon=True)

    def start(self) -> None:
        """Start looking."""
        for runner in self._runners:
            runner.at_once = self._look_at_once
        self._thread.start()

    def take(self, timeout_s: float) -> Seen | None:
        """Return what was seen next, or None when nothing was in time.

        Raises whatever ended the looking: without it nothing would ever be seen again.
        """
        # What is new since the last time is in the queue.
        self._nothing_new.acquire(blocking=False)
        if not self._seen:
            self._nothing_new.acquire(timeout=timeout_s)
        if self._seen:
            return self._seen.popleft()
        if self._failure is not None:
            raise self._failure
        return None

    def told(self) -> None:
        """Hear that what was taken has been told of: what comes next may be told of elsewhere."""
        self._told += 1

    def close(self) -> None:
        """Stop looking; a model that hangs is left to its thread."""
        self._closing = True
        with self._wake:
            self._wake.notify_all()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        try:
            self._look()
        except Exception as error:  # noqa: BLE001 - handed to the thread that takes
            self._failure = error

    def _look(self) -> None:
        while not self._closing:
            self.turned_ns = boottime_ns()
            idle = True
            for runner in self._runners:
                with self._turn:
                    waiting = runner.prepare()
                    if waiting is None:
                        continue
                    idle = False
                    # What was seen before is handed over just before the model runs, which lets go
                    # of Python's lock: earlier, telling of it would hold up preparing.
                    self._hand_over()
                    self._held = self._see(waiting)
            if idle:
                with self._turn:
                    self._hand_over()
                with self._wake:
                    self._wake.wait_for(self._has_work, IDLE_S)

    def _see(self, waiting: Waiting) -> Seen:
        started_ns = boottime_ns()
        seen = waiting.see()
        self._took_ns = boottime_ns() - started_ns
        return seen

    def _hand_over(self) -> None:
        if self._held is None:
            return
        # Two wait at most: a slow teller slows the looking, not the memory.
        while len(self._seen) >= MAX_WAITING and not self._closing:
            time.sleep(0.001)
        self._handed_over += 1
        self._seen.append(self._held)
        self._held = None
        if self._nothing_new.locked():
            self._nothing_new.release()

    def _look_at_once(self, waiting: Waiting, interval_ns: int) -> bool:
        """Look at a frame and tell of it in the capture thread; False where it is to wait.

        It is where somebody else looks or tells, and where the model takes so long that the next
        frame may come meanwhile: it is the capture thread that has to take it out of the driver.
        """
        took_ns = self._took_ns
        if took_ns is None or took_ns > interval_ns * MAX_SHARE or not self._turn.acquire(False):
            return False
        try:
            if self._closing or self._held is not None or self._handed_over != self._told:
                # Older frames come first.
                return False
            started_ns = boottime_ns()
            try:
                self._held = waiting.again().see()
            except AcceleratorLostError:
                return False
            if isinstance(self._held.what, Look) and self._telling.acquire(False):
                seen, self._held = self._held, None
                try:
                    seen.runner.tell(seen)
                finally:
                    self._telling.release()
            self._hand_over()
            self._took_ns = boottime_ns() - started_ns
        except EdgeposeError as error:
            self._held = Seen(waiting.runner, waiting.capture, error)
            self._hand_over()
        except Exception as error:  # noqa: BLE001 - handed to the thread that takes
            self._failure = error
        finally:
            self._turn.release()
        return True

    def _has_work(self) -> bool:
        return self._closing or any(runner.has_news() for runner in self._runners)
