"""One camera's life: opened, online, stalled or lost, opened again, switched off and on."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, Protocol

from edgepose.clock import boottime_ns
from edgepose.daemon.capture import Capture, FrameMailbox
from edgepose.daemon.frame_rate_limit import FrameRateLimit
from edgepose.daemon.inference_thread import Result
from edgepose.daemon.reopening import LAST_UNSTABLE_PAUSE_NS, Reopening
from edgepose.datatypes import Event
from edgepose.errors import AcceleratorLostError, SourceError, SourceStalledError
from edgepose.events.detectors import Detectors
from edgepose.messages import encode, event_message
from edgepose.monitoring.counters import CameraCounters
from edgepose.monitoring.stage_stats import StageStatistics
from edgepose.mqtt import topics
from edgepose.mqtt.topics import Topics
from edgepose.pipeline import Detection, Pipeline
from edgepose.protocols import MAX_RESULT_DELAY_NS, FrameSource

log = logging.getLogger(__name__)

TICK_NS: Final = 100_000_000
"""Detectors take the time from frames; without one for so long, from the clock."""
CLOSING_POLL_NS: Final = 50_000_000
LONG_HANG_NS: Final = 600_000_000_000
MAX_THREADS: Final = 2
"""A camera has one thread, and another if a reload replaced a source that hangs."""


@dataclass(slots=True)
class CameraParts:
    """What one camera is made of.

    `new_source`, called in the capture thread, returns a new source for every attempt to open it;
    one that delivers no frame for `stall_timeout_ns` counts as stalled. `limit` is that of the
    frames that are processed.
    """

    name: str
    new_source: Callable[[], FrameSource]
    stall_timeout_ns: int
    pipeline: Pipeline
    detectors: Detectors
    limit: FrameRateLimit = field(default_factory=FrameRateLimit)


class StatePublisher(Protocol):
    """Where the states and events of a camera are published."""

    topics: Topics

    def set_state(self, topic: str, payload: bytes) -> None:
        """Publish a retained state."""
        ...

    def clear_state(self, topic: str) -> None:
        """Clear the topic of a retained state."""
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
        self._reopened = self._events = 0
        self._states: Mapping[str, str] = {}
        self._frames_without_model = self._lag_ns = self._detected_ns = 0
        self._online = self._status_online = False
        self._capture: Capture | None = None
        self._left: list[Capture] = []
        self._left_hangs = False
        self._long_hang_logged = False
        self._dropped_before = 0
        self._retry_at_ns: int | None = None
        self._reopening = Reopening()
        self._outage_logged = False

    def publish_states(self) -> None:
        """Publish every state of this camera."""
        self._publish_enabled()
        self._publish_status(topics.OFFLINE)
        self._publish_detected(())

    def start(self) -> None:
        """Open the source in its capture thread, unless the camera is switched off."""
        if not self.enabled or self.finished or self._capture is not None:
            return
        self._left = [capture for capture in self._left if not capture.join(0)]
        if len(self._left) >= MAX_THREADS or not all(
            capture.hung and capture.new_source is not self.parts.new_source
            for capture in self._left
        ):
            # The device is still open in a thread of ours, which usually ends with the next frame.
            self._retry_at_ns = self.clock() + CLOSING_POLL_NS
            return
        if self.failure is not None:
            self._reopened += 1
        capture = Capture(
            self.name,
            self.parts.new_source,
            self.parts.stall_timeout_ns,
            self.parts.pipeline,
            self.mailbox,
            self.parts.limit,
            clock=self.clock,
        )
        self.parts.limit.wake()
        try:
            capture.start()
        except RuntimeError as error:
            self._reopen_later(
                SourceError(
                    f"no thread can be started for it ({error}); check the limits of tasks and "
                    "memory (`systemctl status edgepose`)"
                )
            )
            return
        self._capture = capture

    def retry_now(self) -> None:
        """Open a camera that waits for its next attempt at once, as the next `tick` does."""
        if self._retry_at_ns is not None:
            self._retry_at_ns = self.clock()

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
                self._reopen_later(error)
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
        if now_ns - self._detected_ns >= TICK_NS:
            self._publish_detected(self.parts.detectors.tick(now_ns - self._lag_ns))
        self._check_stall()
        if self._left or self._left_hangs:
            self._check_left()
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
        self._reopening = Reopening()
        self.start()

    def stop(self) -> None:
        """Ask the source to close, and publish that it is closed; does not wait."""
        self._retry_at_ns = None
        self.failure = None
        self._release()
        self._close(topics.STALLED if self._is_left_open() else topics.OFFLINE)

    def join(self, deadline_ns: int) -> None:
        """Wait for the threads that `stop` asked to end, until a CLOCK_BOOTTIME."""
        for capture in self._left:
            wait_s = 0.0 if capture.hung else max(0.0, (deadline_ns - self.clock()) / 1e9)
            if not capture.join(wait_s):
                log.warning("camera %s: the source hangs; its thread is left behind", self.name)

    def counters(self) -> CameraCounters:
        """Return what was counted since the start."""
        overwritten = self._dropped_before + (self._capture.dropped if self._capture else 0)
        return CameraCounters(
            up=self._status_online,
            idle=self._capture is not None and self.parts.limit.idle,
            people=int(self._states.get("count", 0)),
            frames=self.statistics.frames,
            dropped={"overwritten": overwritten, "no_model": self._frames_without_model},
            reopened=self._reopened,
            verifications=self.parts.pipeline.verifications,
            stages=self.statistics.histograms(),
        )

    def _publish_detection(self, detection: Detection) -> None:
        result = self.parts.pipeline.publish(detection)
        self.statistics.add(result.timings, result.publish_ns)
        if not self._online:
            self._on_first_frame()
        # A file that is processed more slowly than it was recorded is behind the clock.
        self._detected_ns = self.clock()
        delay_ns = self._detected_ns - detection.frame.timestamp_ns
        self._lag_ns = max(0, delay_ns - MAX_RESULT_DELAY_NS)
        self._publish_detected(self.parts.detectors.update(result.tracked_frame))

    def _on_first_frame(self) -> None:
        if self._outage_logged:
            log.info("camera %s: delivers frames again", self.name)
        self.has_delivered = self._online = True
        self.failure = None
        self._outage_logged = self._long_hang_logged = False
        self._reopening.online(self.clock())

    def _check_stall(self) -> None:
        """Notice a source that delivers nothing; its thread goes on if it ever returns.

        Some drivers block for good: another thread would block too, or find the device busy.
        """
        capture = self._capture
        if capture is None or not capture.overdue_ns:
            return
        if not isinstance(self.failure, SourceStalledError):
            self._fail(
                SourceStalledError(
                    "no frame for too long (5 s once it delivers, 30 s after opening); check the "
                    "camera's cable, and `dmesg` for messages of its driver"
                )
            )
        if capture.overdue_ns >= LONG_HANG_NS and not self._long_hang_logged:
            self._long_hang_logged = True
            log.warning(
                "camera %s: its driver has not answered for %d minutes and cannot be interrupted; "
                "power-cycle the camera, then restart edgepose",
                self.name,
                capture.overdue_ns // 60_000_000_000,
            )

    def _check_left(self) -> None:
        """Report a source that was asked to close and does not, and that it did at last."""
        self._left = [capture for capture in self._left if not capture.join(0)]
        hangs = self._is_left_open()
        if hangs == self._left_hangs:
            return
        self._left_hangs = hangs
        if hangs:
            log.warning(
                "camera %s: the source does not close; its device is still open, until its driver "
                "answers or edgepose is restarted",
                self.name,
            )
        else:
            log.info("camera %s: the source that did not close is closed now", self.name)
        if self._capture is None:
            self._publish_status(topics.STALLED if hangs else topics.OFFLINE)

    def _is_left_open(self) -> bool:
        return any(capture.hung for capture in self._left)

    def _reopen_later(self, error: SourceError) -> None:
        self._fail(error)
        self._retry_at_ns = self.clock() + self._reopening.pause_ns(error)

    def _fail(self, error: SourceError) -> None:
        """Publish and log a failure."""
        stalled = isinstance(error, SourceStalledError)
        self._close(topics.STALLED if stalled else topics.OFFLINE)
        self.failure = error
        unstable = self._reopening.failed(self.clock())
        if self._reopening.is_new(error):
            self._outage_logged = True
            self.publisher.camera_failed(self.name, error)
        if unstable:
            log.warning(
                "camera %s: fails again and again soon after it was opened; trying again after "
                "longer pauses, up to %d s, and logging no more of it until it is stable; check "
                "its cable, power and network",
                self.name,
                LAST_UNSTABLE_PAUSE_NS // 1_000_000_000,
            )

    def _release(self) -> None:
        """Leave the capture thread to close the source."""
        if self._capture is not None:
            self._dropped_before += self._capture.dropped
            self._capture.stop()
            self._left.append(self._capture)
            self._capture = None

    def _close(self, status: bytes) -> None:
        self._online = self._status_online = False
        self._publish_status(status)
        self._clear_presence()

    def _clear_presence(self) -> None:
        """Publish that no person is visible any more."""
        self.parts.pipeline.publish_empty()
        self._publish_detected(self.parts.detectors.lost(self.clock() - self._lag_ns))

    def _publish_status(self, status: bytes) -> None:
        self.publisher.set_state(self._topics.status(self.name), status)

    def _publish_enabled(self) -> None:
        self.publisher.set_state(
            self._topics.enabled(self.name), topics.ON if self.enabled else topics.OFF
        )

    def _publish_detected(self, events: Sequence[Event]) -> None:
        """Publish events, then the states that changed, then that the camera is online.

        Not before the first verdict: after an outage, a person who is still there must not be seen
        to leave.
        """
        for event in events:
            self._events += 1
            message = event_message(event, self._events, node=self._topics.node, camera=self.name)
            self.publisher.send_event(self.name, encode(message))
        states = self.parts.detectors.states
        if states != self._states:
            self._publish_changes(states)
        if self._online and not self._status_online and self.parts.detectors.decided:
            self._status_online = True
            self._publish_status(topics.ONLINE)

    def _publish_changes(self, states: Mapping[str, str]) -> None:
        """Publish the states that changed, and clear those that a reload removed."""
        for name in self._states.keys() - states:
            self.publisher.clear_state(self._topics.camera_state(self.name, name))
        for name, payload in states.items():
            if self._states.get(name) != payload:
                topic = self._topics.camera_state(self.name, name)
                self.publisher.set_state(topic, payload.encode())
        self._states = states
