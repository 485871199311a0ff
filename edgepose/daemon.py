"""The daemon: keeps cameras, pipelines and sinks going until it is told to stop.

Each camera has a capture thread, and MQTT its network thread. One thread looks, at the newest frame
of each camera in turn; the main thread tells what was seen, and does everything else. So the model
never waits for tracking, messages or the broker. Signals only set a flag that the main loop reads.
"""

import json
import logging
import os
import queue
import random
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from edgepose import topics
from edgepose.capture import CaptureThread
from edgepose.clock import boottime_ns, isoformat_utc, realtime_of_boottime_ns
from edgepose.errors import EdgeposeError, SourceError, SourceStalledError
from edgepose.events.presence import Presence, PresenceChange
from edgepose.host import resident_memory_mb, temperatures_c, throttling
from edgepose.pipeline import Look, Pipeline
from edgepose.protocols import FrameSource, Sink
from edgepose.sinks.mqtt import MqttSink
from edgepose.statistics import StageStatistics
from edgepose.systemd import Notifier, watchdog_interval_ns
from edgepose.topics import Topics

log = logging.getLogger(__name__)

IDLE_S: Final = 0.1
"""How long the loop sleeps at most; a signal is heeded within it."""
CONNECT_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_NS: Final = 5_000_000_000
SILENCE_NS: Final = 5_000_000_000
"""A camera that was open and delivered nothing for so long counts as stalled."""
FIRST_RETRY_NS: Final = 1_000_000_000
LAST_RETRY_NS: Final = 30_000_000_000


@dataclass(slots=True)
class Camera:
    """One camera's parts: `open_source` makes a fresh, unopened source each time."""

    name: str
    open_source: Callable[[], FrameSource]
    pipeline: Pipeline
    presence: Presence


class SwitchFile:
    """Remembers which cameras were switched off, so that no restart opens a camera again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, cameras: frozenset[str]) -> frozenset[str]:
        """Return which of the cameras are off.

        A file that is there but cannot be read leaves them all off: it exists because somebody once
        switched one off, and which one is not known any more.
        """
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            return cameras.intersection(content["off"])
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning(
                "%s: expected the cameras that are switched off, but it cannot be read (%s); all "
                "cameras stay off until they are switched on over MQTT, or the file is deleted",
                self._path,
                error,
            )
            return cameras

    def write(self, off: frozenset[str]) -> None:
        """Write the names down; what cannot be written is logged and holds until the next start."""
        fresh = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("w", encoding="utf-8") as file:
                json.dump({"off": sorted(off)}, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            log.warning(
                "%s: cannot remember which cameras are off (%s); a restart will open them all",
                self._path,
                error.strerror,
            )


class _CameraRunner:
    """One camera's life: open, online, stalled or lost, opened again, switched off and on.

    Everything is called by the main thread, but for `has_news` and `look`.
    """

    def __init__(
        self,
        camera: Camera,
        wake: threading.Condition,
        set_state: Callable[[str, bytes], None],
        topics_: Topics,
        *,
        enabled: bool,
    ) -> None:
        self.camera = camera
        self.statistics = StageStatistics()
        self.enabled = enabled
        self.reopened = 0
        self.ended = False
        self.delivered = False
        self._wake = wake
        self._topics = topics_
        self._set_state = set_state
        self._capture: CaptureThread | None = None
        self._dropped_before = 0
        self._retry_at_ns: int | None = None
        self._retry_ns = FIRST_RETRY_NS
        self._failure = ""

    def announce(self) -> None:
        """Publish every state of this camera as it stands."""
        name = self.camera.name
        self._set_state(self._topics.enabled(name), topics.ON if self.enabled else topics.OFF)
        self._status(topics.OFFLINE)
        self._publish_presence(
            PresenceChange(0, self.camera.presence.present, self.camera.presence.count)
        )

    def start(self) -> None:
        """Open the source in its capture thread, unless the camera is switched off."""
        if self.enabled and self._capture is None and not self.ended:
            self._capture = CaptureThread(
                self.camera.open_source(), name=self.camera.name, wake=self._wake
            )
            self._capture.start()

    def has_news(self) -> bool:
        """Whether there is something to look at: a frame, the end, or a failure."""
        capture = self._capture
        return capture is not None and capture.has_news()

    def look(self) -> "_Seen | None":
        """Look at the newest frame, in the looking thread; None where there is nothing new."""
        capture = self._capture
        if capture is None or not capture.has_news():
            return None
        try:
            frame = capture.take(0)
            if frame is not None:
                return _Seen(self, capture, self.camera.pipeline.look(frame))
            return _Seen(self, capture, None) if capture.claim_end() else None
        except EdgeposeError as error:
            return _Seen(self, capture, error)

    def tell(self, seen: "_Seen") -> None:
        """Tell of what was seen.

        Raises SourceError where the source fails before it ever delivered a frame, and any other
        error of the line as it is.
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
            case EdgeposeError() as error:
                raise error
            case Look() as look:
                if not self.delivered or self._failure:
                    self._recovered()
                step = self.camera.pipeline.tell(look)
                self.statistics.add(step.timings, step.publish_ns)
                self._publish_presence(
                    self.camera.presence.update(len(step.tracked), look.frame.timestamp_ns)
                )

    def tick(self, now_ns: int) -> None:
        """Do what time alone asks for: let presence fall, and open a lost source again."""
        self._publish_presence(self.camera.presence.tick(now_ns))
        if self._capture is not None and self._capture.silent_since(SILENCE_NS):
            # Some drivers block for good; their thread is left behind, the source opened afresh.
            self._lose(
                SourceStalledError(
                    f"no frame for {SILENCE_NS // 1_000_000_000} s; check the camera's cable, and "
                    "`dmesg` for what the kernel says of it"
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
        self._set_state(
            self._topics.enabled(self.camera.name), topics.ON if enabled else topics.OFF
        )

    def close(self) -> None:
        """Close the source and say so."""
        self._close(topics.OFFLINE)

    def stats(self, now_ns: int) -> dict[str, object]:
        """Return this camera's part of the stats message."""
        dropped = self._dropped_before + (self._capture.dropped if self._capture else 0)
        return {**self.statistics.take(now_ns), "dropped": dropped, "reopened": self.reopened}

    def _recovered(self) -> None:
        if self._failure:
            log.info("camera %s: delivers frames again", self.camera.name)
        self.delivered = True
        self._failure = ""
        self._retry_ns = FIRST_RETRY_NS
        self._status(topics.ONLINE)

    def _lose(self, error: SourceError) -> None:
        stalled = isinstance(error, SourceStalledError)
        self._close(topics.STALLED if stalled else topics.OFFLINE)
        if not self.delivered and not self._failure:
            raise error
        if str(error) != self._failure:
            log.warning("camera %s: %s; trying again until it is back", self.camera.name, error)
            self._failure = str(error)
        # Jitter keeps several cameras on one hub from being opened at the same instant.
        self._retry_at_ns = boottime_ns() + int(self._retry_ns * random.uniform(0.8, 1.2))  # noqa: S311
        self._retry_ns = min(2 * self._retry_ns, LAST_RETRY_NS)

    def _close(self, status: bytes) -> None:
        if self._capture is not None:
            self._dropped_before += self._capture.dropped
            self._capture.close()
            self._capture = None
        self.camera.pipeline.leave()
        self._publish_presence(self.camera.presence.lost(boottime_ns()))
        self._status(status)

    def _status(self, status: bytes) -> None:
        self._set_state(self._topics.status(self.camera.name), status)

    def _publish_presence(self, change: PresenceChange | None) -> None:
        if change is None:
            return
        name = self.camera.name
        if change.count is not None:
            self._set_state(self._topics.count(name), str(change.count).encode())
        if change.present is not None:
            self._set_state(
                self._topics.presence(name), topics.ON if change.present else topics.OFF
            )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the looking thread hands over: a look, an error, or None for the end of the source."""

    runner: _CameraRunner
    capture: CaptureThread
    what: Look | EdgeposeError | None


class _LookingThread:
    """Looks at the newest frame of each camera in turn, and hands over what it saw."""

    def __init__(self, runners: Sequence[_CameraRunner], wake: threading.Condition) -> None:
        self._runners = runners
        self._wake = wake
        # Two results wait at most: a slow teller slows the looking, not the memory.
        self._seen: queue.Queue[_Seen] = queue.Queue(maxsize=2)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="looking", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def take(self, timeout_s: float) -> _Seen | None:
        """Return what was seen next, or None when nothing was in time."""
        try:
            return self._seen.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Stop looking; a model that hangs is left to its thread."""
        self._closing = True
        with self._wake:
            self._wake.notify_all()
        deadline_ns = boottime_ns() + CLOSE_TIMEOUT_NS
        while self._thread.is_alive() and boottime_ns() < deadline_ns:
            # The thread may be waiting for room.
            self.take(0.05)

    def _run(self) -> None:
        while not self._closing:
            busy = False
            for runner in self._runners:
                seen = runner.look()
                if seen is not None:
                    busy = True
                    self._seen.put(seen)
            if not busy:
                with self._wake:
                    self._wake.wait_for(self._has_work, IDLE_S)

    def _has_work(self) -> bool:
        return self._closing or any(runner.has_news() for runner in self._runners)


class Daemon:
    """Runs the given parts; `run` returns when a signal, or the end of every file, says so.

    `mqtt` may be None (NDJSON or a recording only). `sinks` are closed at the end, in reverse.
    SIGHUP calls `reload`, which returns new cameras or raises EdgeposeError for the old ones to
    stay.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        sinks: Sequence[Sink],
        mqtt: MqttSink | None,
        topics_: Topics,
        *,
        stats_interval_ns: int,
        switch_file: SwitchFile,
        notifier: Notifier,
        reload: Callable[[], Sequence[Camera]],
    ) -> None:
        self._mqtt = mqtt
        self._sinks = tuple(sinks)
        self._topics = topics_
        self._commands: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
        self._stop_signal: int | None = None
        self._reload_wanted = False
        self._reload = reload
        self._stats_interval_ns = stats_interval_ns
        self._switch_file = switch_file
        self._notifier = notifier
        self._take_on(cameras)

    def _take_on(self, cameras: Sequence[Camera]) -> None:
        wake = threading.Condition()
        off = self._switch_file.read(frozenset(camera.name for camera in cameras))
        self._runners: Mapping[str, _CameraRunner] = {
            camera.name: _CameraRunner(
                camera, wake, self._set_state, self._topics, enabled=camera.name not in off
            )
            for camera in cameras
        }
        self._looking = _LookingThread(list(self._runners.values()), wake)

    def command(self, camera: str, enabled: bool) -> None:
        """Take a switch command from another thread."""
        self._commands.put((camera, enabled))

    def run(self) -> None:
        """Run until SIGTERM, SIGINT or the end of every source.

        Raises SourceError where no camera can be opened at the start.
        """
        with self._signals():
            try:
                self._open()
                self._loop()
            finally:
                self._notifier.stopping()
                self._close()

    def _open(self) -> None:
        for runner in self._runners.values():
            runner.announce()
        if self._mqtt is not None:
            # A service waits for its broker as long as it takes; a person at a terminal wants to
            # hear that there is none.
            self._mqtt.open(
                require_connection_within_s=None if self._notifier.heard else CONNECT_TIMEOUT_S
            )
        self._start()
        self._notifier.ready()

    def _start(self) -> None:
        now_ns = boottime_ns()
        for runner in self._runners.values():
            runner.statistics.take(now_ns)
            runner.start()
        self._looking.start()

    def _take_up_changes(self) -> None:
        """Go on with a changed configuration, or with the old one where the new one is no good."""
        try:
            cameras = self._reload()
        except EdgeposeError as error:
            log.error("the changed configuration is refused and the old one stays: %s", error)
            return
        for runner in self._runners.values():
            runner.close()
        self._looking.close()
        self._take_on(cameras)
        for runner in self._runners.values():
            runner.announce()
        self._start()
        log.info("the changed configuration is in effect")

    def _loop(self) -> None:
        now_ns = boottime_ns()
        next_stats_ns = now_ns + self._stats_interval_ns
        watchdog_ns = watchdog_interval_ns()
        next_watchdog_ns = now_ns
        while self._stop_signal is None:
            if self._reload_wanted:
                self._reload_wanted = False
                self._take_up_changes()
            runners = list(self._runners.values())
            seen = self._looking.take(IDLE_S)
            if seen is not None:
                self._tell(seen)
            self._take_commands()
            now_ns = boottime_ns()
            for runner in runners:
                runner.tick(now_ns)
            if now_ns >= next_stats_ns:
                self._publish_stats(now_ns)
                next_stats_ns = now_ns + self._stats_interval_ns
            if watchdog_ns is not None and now_ns >= next_watchdog_ns:
                self._notifier.watchdog()
                next_watchdog_ns = now_ns + watchdog_ns // 3
            if all(runner.ended for runner in runners):
                log.info("every source has ended")
                return

    def _tell(self, seen: _Seen) -> None:
        runner = seen.runner
        try:
            runner.tell(seen)
        except SourceError as error:
            others = [other for other in self._runners.values() if other is not runner]
            if not others:
                raise
            # One of several cameras being away at the start must not keep the others dark.
            log.warning("camera %s: %s", runner.camera.name, error)
            runner.ended = True
            if all(other.ended and not other.delivered for other in others):
                raise

    def _take_commands(self) -> None:
        while not self._commands.empty():
            camera, enabled = self._commands.get()
            runner = self._runners.get(camera)
            if runner is None:
                continue
            changed = runner.enabled != enabled
            runner.switch(enabled=enabled)
            if changed:
                self._switch_file.write(
                    frozenset(name for name, other in self._runners.items() if not other.enabled)
                )

    def _publish_stats(self, now_ns: int) -> None:
        stats: dict[str, object] = {
            "time": isoformat_utc(realtime_of_boottime_ns(now_ns)),
            "cameras": {name: runner.stats(now_ns) for name, runner in self._runners.items()},
            "memory_mb": resident_memory_mb(),
            "temperatures_c": temperatures_c(),
            "throttling": throttling(),
        }
        if self._mqtt is not None:
            stats["mqtt"] = self._mqtt.counters()
            self._mqtt.send_stats(json.dumps(stats).encode())
        log.debug("stats: %s", stats)

    def _set_state(self, topic: str, payload: bytes) -> None:
        if self._mqtt is not None:
            self._mqtt.set_state(topic, payload)

    def _close(self) -> None:
        for runner in self._runners.values():
            runner.close()
        self._looking.close()
        for sink in reversed(self._sinks):
            try:
                sink.close()
            except EdgeposeError as error:
                log.warning("%s", error)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, _frame: FrameType | None) -> None:
            self._stop_signal = number

        def reload(_number: int, _frame: FrameType | None) -> None:
            self._reload_wanted = True

        previous = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, stop),
            signal.SIGINT: signal.signal(signal.SIGINT, stop),
            signal.SIGHUP: signal.signal(signal.SIGHUP, reload),
        }
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
