"""One camera's life: opened, online, stalled or lost, opened again, switched off and on."""

import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Final, Protocol

from edgepose.clock import boottime_ns, utc_of_boottime
from edgepose.daemon.capture import Capture, FrameMailbox
from edgepose.daemon.inference_thread import Result
from edgepose.errors import AcceleratorLostError, SourceError, SourceStalledError
from edgepose.events.occupancy import OccupancyDetector
from edgepose.events.track_events import TrackEvent, TrackEventDetector
from edgepose.messages import EventMessage, encode
from edgepose.monitoring.stage_stats import StageStatistics
from edgepose.mqtt import topics
from edgepose.mqtt.topics import Topics
from edgepose.pipeline import Detection, Pipeline
from edgepose.protocols import FrameSource

log = logging.getLogger(__name__)

MAX_RESULT_DELAY_NS: Final = 1_000_000_000
"""A captured frame is published within this time; an Edge TPU that hangs delays one the longest."""
FIRST_RETRY_NS: Final = 1_000_000_000
LAST_RETRY_NS: Final = 3_000_000_000
"""Opening an absent camera costs little, and one that is back is to be online within 5 s."""
CLOSING_POLL_NS: Final = 50_000_000
MAX_HUNG: Final = 2
"""How many hung threads a camera may leave behind; with so many it is not opened again."""


@dataclass(slots=True)
class CameraParts:
    """What one camera is made of.

    `new_source` returns a new source for every attempt to open it; one that was open and delivered
    no frame for `stall_timeout_ns` counts as stalled.
    """

    name: str
    new_source: Callable[[], FrameSource]
    stall_timeout_ns: int
    pipeline: Pipeline
    occupancy: OccupancyDetector
    track_events: TrackEventDetector


class StatePublisher(Protocol):
    """Where the states and events of a camera are published."""

    topics: Topics

    def set_state(self, topic: str, payload: bytes) -> None:
        """Publish a retained state."""
        ...

    def send_event(self, camera: str, payload: bytes) -> None:
        """Publish an event."""
        ...

    def camera_failed(self, camera: str, error: SourceError) -> None:
        """Report a failure once; raises the error if the daemon cannot go on without a camera."""
        ...


@dataclass(eq=False)
class CameraSupervisor:
    """Keeps one camera going; all of it runs on the main thread and waits for nothing.

    `has_delivered` means that a frame arrived at least once, `failure` is why none arrives now, and
    `finished` that the source came to its end, as a file does. `clock` is CLOCK_BOOTTIME in ns.
    """

    parts: CameraParts
    mailbox: FrameMailbox
    publisher: StatePublisher
    _: KW_ONLY
    enabled: bool
    clock: Callable[[], int] = boottime_ns

    def __post_init__(self) -> None:
        self.name = self.parts.name
        self.statistics = StageStatistics()
        self.finished = False
        self.has_delivered = False
        self.failure: SourceError | None = None
        self._topics = self.publisher.topics
        self._reopened = 0
        self._frames_without_model = 0
        self._online = False
        self._capture: Capture | None = None
        self._left: list[Capture] = []
        self._dropped_before = 0
        self._retry_at_ns: int | None = None
        self._retry_delay_ns = FIRST_RETRY_NS

    def publish_states(self) -> None:
        """Publish every state of this camera."""
        self._publish_enabled()
        self._publish_status(topics.OFFLINE)
        self._publish_occupancy()

    def start(self) -> None:
        """Open the source in its capture thread, unless the camera is switched off."""
        if not self.enabled or self.finished or self._capture is not None:
            return
        self._left = [capture for capture in self._left if not capture.join(0)]
        if len(self._left) >= MAX_HUNG or not all(capture.hung for capture in self._left):
            # The device is still open in a thread of ours, which usually ends with the next frame.
            self._retry_at_ns = self.clock() + CLOSING_POLL_NS
            return
        if self.failure is not None:
            self._reopened += 1
        self._capture = Capture(
            self.name,
            self.parts.new_source(),
            self.parts.stall_timeout_ns,
            self.parts.pipeline,
            self.mailbox,
            clock=self.clock,
        )
        self._capture.start()

    def handle(self, result: Result) -> None:
        """Take what became of a captured frame.

        Raises the error of a source if the daemon cannot go on without it, and any other exception
        that is not expected.
        """
        if result.capture is not self._capture:
            # Nothing of a capture that was closed since may be published.
            return
        match result.outcome:
            case Detection() as detection:
                self._publish_detection(detection)
            case None:
                self.finished = True
                self._release()
                self._close(topics.OFFLINE)
            case SourceError() as error:
                self._release()
                self._on_source_error(error)
            case AcceleratorLostError():
                # Without a fallback the frame is lost, the camera is not.
                self._frames_without_model += 1
                self._clear_presence()
            case error:
                raise error

    def tick(self, now_ns: int) -> None:
        """Do what is due: let presence fall, notice a stalled source, open a lost one again.

        Raises as `handle` does.
        """
        if self.parts.occupancy.tick(now_ns):
            self._publish_occupancy()
        # A frame captured by then may still be published and continue a track.
        self._publish_events(self.parts.track_events.tick(now_ns - MAX_RESULT_DELAY_NS))
        if self._capture is not None and self._capture.is_stalled():
            # Some drivers block for good: the thread is left behind, the source opened again.
            self._release(hung=True)
            self._on_source_error(
                SourceStalledError(
                    "no frame for too long (5 s once it delivers, 30 s after opening); check the "
                    "camera's cable, and `dmesg` for messages of its driver"
                )
            )
        if self._retry_at_ns is not None and now_ns >= self._retry_at_ns and self.enabled:
            self._retry_at_ns = None
            self.start()

    def set_enabled(self, *, enabled: bool) -> None:
        """Switch the camera on or off; off closes it."""
        if enabled != self.enabled:
            self.enabled = enabled
            log.info("camera %s: switched %s", self.name, "on" if enabled else "off")
            if enabled:
                self.start()
            else:
                self.stop()
        self._publish_enabled()

    def replace_source(self, new_source: Callable[[], FrameSource], stall_timeout_ns: int) -> None:
        """Close the source and open another in its place."""
        self.stop()
        self.parts.new_source = new_source
        self.parts.stall_timeout_ns = stall_timeout_ns
        self.finished = False
        self.start()

    def stop(self) -> None:
        """Ask the source to close, and publish that it is closed; does not wait."""
        self._retry_at_ns = None
        self.failure = None
        self._release()
        self._close(topics.OFFLINE)

    def join(self, deadline_ns: int) -> None:
        """Wait for the threads that `stop` asked to end, until a CLOCK_BOOTTIME."""
        for capture in self._left:
            if not capture.join(max(0.0, (deadline_ns - self.clock()) / 1e9)):
                log.warning("camera %s: the source hangs; its thread is left behind", self.name)

    def stats(self, now_ns: int) -> dict[str, object]:
        """Return this camera's part of the stats message."""
        dropped = self._dropped_before + (self._capture.dropped if self._capture else 0)
        return {
            **self.statistics.take(now_ns),
            "dropped": dropped,
            "frames_without_model": self._frames_without_model,
            "reopened": self._reopened,
        }

    def _publish_detection(self, detection: Detection) -> None:
        result = self.parts.pipeline.publish(detection)
        self.statistics.add(result.timings, result.publish_ns)
        captured_ns = detection.frame.timestamp_ns
        tracked = result.tracked
        if self.parts.occupancy.update(len(tracked), captured_ns):
            self._publish_occupancy()
        self._publish_events(
            self.parts.track_events.update(tracked.track_ids.tolist(), captured_ns)
        )
        if not self._online:
            self._on_first_frame()

    def _on_first_frame(self) -> None:
        if self.failure is not None:
            log.info("camera %s: delivers frames again", self.name)
        self.has_delivered = self._online = True
        self.failure = None
        self._retry_delay_ns = FIRST_RETRY_NS
        self._publish_status(topics.ONLINE)

    def _on_source_error(self, error: SourceError) -> None:
        stalled = isinstance(error, SourceStalledError)
        self._close(topics.STALLED if stalled else topics.OFFLINE)
        known = self.failure is not None and str(self.failure) == str(error)
        self.failure = error
        # Jitter keeps several cameras on one hub from being opened at the same instant.
        self._retry_at_ns = self.clock() + int(self._retry_delay_ns * random.uniform(0.8, 1.2))  # noqa: S311
        self._retry_delay_ns = min(2 * self._retry_delay_ns, LAST_RETRY_NS)
        if not known:
            self.publisher.camera_failed(self.name, error)

    def _release(self, *, hung: bool = False) -> None:
        """Leave the capture thread to close the source; `hung` if it will not."""
        if self._capture is not None:
            self._dropped_before += self._capture.dropped
            self._capture.stop(hung=hung)
            self._left.append(self._capture)
            self._capture = None

    def _close(self, status: bytes) -> None:
        self._online = False
        self._publish_status(status)
        self._clear_presence()

    def _clear_presence(self) -> None:
        """Publish that no person is visible any more."""
        self.parts.pipeline.publish_empty()
        if self.parts.occupancy.lost(self.clock()):
            self._publish_occupancy()
        self._publish_events(self.parts.track_events.lost())

    def _publish_status(self, status: bytes) -> None:
        self.publisher.set_state(self._topics.status(self.name), status)

    def _publish_enabled(self) -> None:
        self.publisher.set_state(
            self._topics.enabled(self.name), topics.ON if self.enabled else topics.OFF
        )

    def _publish_occupancy(self) -> None:
        occupancy = self.parts.occupancy
        self.publisher.set_state(self._topics.count(self.name), str(occupancy.count).encode())
        self.publisher.set_state(
            self._topics.presence(self.name), topics.ON if occupancy.present else topics.OFF
        )

    def _publish_events(self, events: Iterable[TrackEvent]) -> None:
        for event in events:
            message = EventMessage(
                type=event.kind,
                node=self._topics.node,
                camera=self.name,
                track_id=event.track_id,
                time=utc_of_boottime(event.time_ns),
            )
            self.publisher.send_event(self.name, encode(message))
