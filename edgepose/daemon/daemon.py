"""The daemon: keeps cameras, pipelines and sinks going until it is told to stop.

Each camera has a capture thread, and MQTT its network thread. One thread looks, at the newest frame
of each camera in turn; the main thread tells what was seen, and does everything else. So the model
never waits for tracking, messages or the broker. Where a camera leaves time enough between two
frames, its own thread does both: see `InferenceThread`. Signals only set a flag that the main loop
reads.
"""

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from edgepose.clock import boottime_ns, isoformat_utc, realtime_of_boottime_ns
from edgepose.daemon.camera import IDLE_S, Camera, CameraSupervisor, InferenceThread, Seen
from edgepose.daemon.systemd import Notifier, watchdog_interval_ns
from edgepose.errors import EdgeposeError, SourceError
from edgepose.inference.failover import AcceleratorState, Models
from edgepose.messages import AcceleratorMessage, encode
from edgepose.monitoring.host import resident_memory_mb, temperatures_c, throttling
from edgepose.mqtt.topics import Topics
from edgepose.protocols import Sink
from edgepose.sinks.mqtt import MqttSink

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10.0
PAUSE_NS: Final = 1_000_000_000
"""How long a camera that was switched off stays so at least."""


class _Switches(msgspec.Struct, frozen=True):
    off: list[str]


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
            content = msgspec.json.decode(self._path.read_bytes(), type=_Switches)
            return cameras.intersection(content.off)
        except FileNotFoundError:
            return frozenset()
        # Nesting without end is a RecursionError, which is no ValueError.
        except (OSError, ValueError, RecursionError) as error:
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


@dataclass(frozen=True, slots=True)
class Eyes:
    """What a configuration sees with: its cameras, and the models they share."""

    cameras: Sequence[Camera]
    models: Models


class Daemon:
    """Runs the given parts; `run` returns when a signal, or the end of every file, says so.

    `mqtt` may be None (NDJSON or a recording only). `sinks` are closed at the end, in reverse.
    SIGHUP calls `reload`, which returns new eyes or raises EdgeposeError for the old ones to stay;
    models that are the same object as before go on as they are.
    """

    def __init__(
        self,
        eyes: Eyes,
        sinks: Sequence[Sink],
        mqtt: MqttSink | None,
        topics_: Topics,
        *,
        stats_interval_ns: int,
        switch_file: SwitchFile,
        notifier: Notifier,
        reload: Callable[[], Eyes],
    ) -> None:
        self.topics = topics_
        self._mqtt = mqtt
        self._sinks = tuple(sinks)
        self._orders: dict[str, bool] = {}
        self._switched_off_ns: dict[str, int] = {}
        self._stop_signal: int | None = None
        self._reload_wanted = False
        self._reload = reload
        self._stats_interval_ns = stats_interval_ns
        self._switch_file = switch_file
        self._notifier = notifier
        self._said_of_accelerator: AcceleratorState | None = None
        # Whoever tells, or changes what telling depends on, holds it.
        self._telling = threading.Lock()
        self._take_on(eyes)

    def _take_on(self, eyes: Eyes) -> None:
        wake = threading.Condition()
        off = self._switch_file.read(frozenset(camera.name for camera in eyes.cameras))
        self._models = eyes.models
        self._runners: Mapping[str, CameraSupervisor] = {
            camera.name: CameraSupervisor(camera, wake, self, enabled=camera.name not in off)
            for camera in eyes.cameras
        }
        self._looking = InferenceThread(list(self._runners.values()), wake, self._telling)

    def command(self, camera: str, enabled: bool) -> None:
        """Take a switch command from another thread; of several the newest counts."""
        self._orders[camera] = enabled

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

    def set_state(self, topic: str, payload: bytes) -> None:
        """Say what is so from now on."""
        if self._mqtt is not None:
            self._mqtt.set_state(topic, payload)

    def send_event(self, camera: str, payload: bytes) -> None:
        """Say what happened."""
        if self._mqtt is not None:
            self._mqtt.send_event(camera, payload)

    def _open(self) -> None:
        self._announce()
        if self._mqtt is not None:
            # A service waits for its broker as long as it takes; a person at a terminal wants to
            # hear that there is none.
            self._mqtt.open(
                require_connection_within_s=None if self._notifier.heard else CONNECT_TIMEOUT_S
            )
        self._models.start()
        with self._telling:
            self._start()
        self._notifier.ready()

    def _announce(self) -> None:
        self._tell_of_accelerator()
        for runner in self._runners.values():
            runner.announce()

    def _start(self) -> None:
        now_ns = boottime_ns()
        for runner in self._runners.values():
            runner.statistics.take(now_ns)
            runner.start()
        self._looking.start()

    def _take_up_changes(self) -> None:
        """Go on with a changed configuration, or with the old one where the new one is no good."""
        self._notifier.reloading()
        try:
            eyes = self._reload()
        except EdgeposeError as error:
            log.error("the changed configuration is refused and the old one stays: %s", error)
        else:
            with self._telling:
                self._change_to(eyes)
            log.info("the changed configuration is in effect")
        self._notifier.ready()

    def _change_to(self, eyes: Eyes) -> None:
        self._stop_looking()
        if eyes.models is not self._models:
            # First the old ones: an Edge TPU serves one process.
            self._models.close()
            eyes.models.start()
        self._take_on(eyes)
        self._announce()
        self._start()

    def _stop_looking(self) -> None:
        for runner in self._runners.values():
            runner.close()
        self._looking.close()

    def _loop(self) -> None:
        now_ns = boottime_ns()
        next_stats_ns = now_ns + self._stats_interval_ns
        watchdog_ns = watchdog_interval_ns()
        next_watchdog_ns = now_ns
        while self._stop_signal is None:
            if self._reload_wanted:
                self._reload_wanted = False
                self._take_up_changes()
            seen = self._looking.take(IDLE_S)
            now_ns = boottime_ns()
            with self._telling:
                if seen is not None:
                    self._tell(seen)
                    self._looking.told()
                    now_ns = boottime_ns()
                self._take_orders(now_ns)
                for runner in self._runners.values():
                    runner.tick(now_ns)
                if now_ns >= next_stats_ns:
                    self._publish_stats(now_ns)
                    next_stats_ns = now_ns + self._stats_interval_ns
                self._tell_of_accelerator()
            if watchdog_ns is not None and now_ns >= next_watchdog_ns:
                next_watchdog_ns = now_ns + watchdog_ns // 4
                if self._makes_progress(now_ns, watchdog_ns // 2):
                    self._notifier.watchdog()
            if all(runner.ended for runner in self._runners.values()):
                log.info("every source has ended")
                return

    def _makes_progress(self, now_ns: int, patience_ns: int) -> bool:
        """Whether all three loops turn; this one does, since it asks."""
        looking = now_ns - self._looking.turned_ns < patience_ns
        return looking and (self._mqtt is None or self._mqtt.alive)

    def _tell_of_accelerator(self) -> None:
        state = self._models.state
        if state is self._said_of_accelerator:
            return
        self._said_of_accelerator = state
        model = state.model
        message = AcceleratorMessage(
            device=state.device,
            degraded=state.degraded,
            reason=state.reason,
            since=isoformat_utc(realtime_of_boottime_ns(state.since_ns)),
            model=None if model is None else model.name,
            pose_threshold=None if model is None else model.pose_threshold,
            restarts=state.restarts,
        )
        self.set_state(self.topics.accelerator, encode(message))
        looks = "nothing looks" if model is None else f"{model.name} looks on {state.device}"
        self._notifier.status(f"{looks}: {state.reason}" if state.reason else looks)

    def _tell(self, seen: Seen) -> None:
        runner = seen.runner
        try:
            runner.tell(seen)
        except SourceError as error:
            others = [other for other in self._runners.values() if other is not runner]
            # A service stays, says what is missing, and takes it up when it comes. So does one of
            # several cameras: its being away must not keep the others dark.
            if not self._notifier.heard and all(
                not other.delivered and (other.failed or other.ended) for other in others
            ):
                raise
            log.warning("camera %s: %s; trying again until it is there", runner.camera.name, error)

    def _take_orders(self, now_ns: int) -> None:
        for camera, runner in self._runners.items():
            # Off is at once. On waits a second after it, so that a flood of both neither wears out
            # the SD card nor keeps this loop busy.
            if (
                self._orders.get(camera)
                and now_ns < self._switched_off_ns.get(camera, 0) + PAUSE_NS
            ):
                continue
            enabled = self._orders.pop(camera, None)
            if enabled is None:
                continue
            changed = runner.enabled != enabled
            runner.switch(enabled=enabled)
            if changed:
                if not enabled:
                    self._switched_off_ns[camera] = now_ns
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
            "accelerator": {
                "device": self._models.state.device,
                "restarts": self._models.state.restarts,
            },
        }
        if self._mqtt is not None:
            stats["mqtt"] = self._mqtt.counters()
            self._mqtt.send_stats(json.dumps(stats).encode())
        log.debug("stats: %s", stats)

    def _close(self) -> None:
        with self._telling:
            self._stop_looking()
        self._models.close()
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
