"""The daemon: keeps cameras, models and sinks going until it is stopped.

Each camera has a capture thread, the model an inference thread, and MQTT its network thread. The
main thread publishes what was detected and does everything else, so that the model never waits for
tracking, messages or the broker. What may take its time, such as loading a model, is done in
background threads. Signals only set a flag that the main loop reads.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import KW_ONLY, InitVar, dataclass
from functools import partial
from typing import Final, Protocol

from edgepose.clock import boottime_ns, utc_of_boottime
from edgepose.daemon.camera import CameraParts, CameraSupervisor
from edgepose.daemon.capture import FrameMailbox
from edgepose.daemon.inference_thread import POLL_S, InferenceThread
from edgepose.daemon.reporting import MetricsExporter, Reporting
from edgepose.daemon.signals import Signals
from edgepose.daemon.switches import Switches
from edgepose.daemon.systemd import Notifier, has_service_manager, watchdog_interval_ns
from edgepose.errors import EdgeposeError, SourceError
from edgepose.inference.failover import AcceleratorState, Models
from edgepose.messages import AcceleratorMessage, encode
from edgepose.mqtt.commands import Command, parse_switch
from edgepose.mqtt.topics import OFF, Topics
from edgepose.protocols import Sink
from edgepose.sinks.mqtt import MqttSink
from edgepose.util.background import run_in_background
from edgepose.util.process import return_free_memory

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10.0
CLOSE_SOURCES_NS: Final = 2_000_000_000
"""How long all sources together may take to close; what hangs is left to its thread."""
CLOSE_MODEL_S: Final = 3.0
WATCHDOG_NS: Final = 20_000_000_000
"""The interval of the unit's watchdog, with which hung threads are reported without it too."""
COMMAND_INTERVAL_NS: Final = 1_000_000_000
"""Between two commands on one topic; so long a camera that was switched off stays off at least."""
RESTART_INTERVAL_NS: Final = 60_000_000_000
"""After a start, and so between two restarts by commands."""


class NodeSettings(Protocol):
    """The configuration of the running node."""

    def discovery(self) -> Mapping[str, bytes]:
        """Return the discovery messages by topic."""
        ...

    def states(self) -> Mapping[str, bytes]:
        """Return the retained states that follow from the configuration, by topic."""
        ...

    def reload(self) -> Callable[[], None]:
        """Load a changed configuration, in a background thread; return what applies it.

        That is called on the main thread. Raises EdgeposeError if the configuration is invalid.
        """
        ...

    def change(self, command: Command, /) -> Callable[[], None]:
        """Prepare what a command sets, as `reload` does."""
        ...


@dataclass(frozen=True, slots=True)
class _Change:
    """A change that is prepared in the background, and what is logged about it."""

    prepared: Future[Callable[[], None]]
    done: str
    failed: str


@dataclass(eq=False)
class Daemon:
    """Runs the given parts; `run` returns after a signal, or at the end of every file.

    `mqtt` may be None (NDJSON or a recording only). `sinks` are closed at the end, in reverse.
    SIGHUP, and commands that set something, change the `settings` in the background. After `run`,
    `restart_requested` is whether a command asked for a restart.
    """

    parts: InitVar[Sequence[CameraParts]]
    models: Models
    sinks: Sequence[Sink]
    mqtt: MqttSink | None
    topics: Topics
    _: KW_ONLY
    stats_interval_ns: int
    switches: Switches
    settings: NodeSettings
    metrics: MetricsExporter | None = None

    def __post_init__(self, parts: Sequence[CameraParts]) -> None:
        self._pending_commands: dict[tuple[str | None, str], Command] = {}
        self._applied_ns: dict[tuple[str | None, str], int] = {}
        self._published_accelerator: AcceleratorState | None = None
        self._changing: _Change | None = None
        self._settings_changed = False
        self.restart_requested = False
        self._started_ns = boottime_ns()
        self._hung: list[str] = []
        self._notifier = Notifier()
        mailbox = FrameMailbox()
        self._inference = InferenceThread(mailbox)
        self.cameras = {
            camera.name: CameraSupervisor(
                camera, mailbox, self, enabled=camera.name not in self.switches.off
            )
            for camera in parts
        }
        self._reporting = Reporting(
            self.topics.node,
            self.cameras,
            lambda: self.models.state,
            self.sinks,
            self.mqtt,
            stats_interval_ns=self.stats_interval_ns,
            metrics=self.metrics,
        )

    def command(self, command: Command) -> None:
        """Take a command from another thread; of several on one topic the newest counts."""
        self._pending_commands[command.camera, command.name] = command

    def publish_settings_soon(self) -> None:
        """Publish the states that follow from the configuration again; from any thread."""
        self._settings_changed = True

    def run(self, signals: Signals) -> None:
        """Run until SIGTERM, SIGINT or the end of every source.

        Raises SourceError if no camera can be opened at the start and no service manager is there
        to wait for one.
        """
        try:
            self._start()
            self._loop(signals)
        finally:
            self._notifier.send("STOPPING=1")
            self._stop()
            self._notifier.close()

    def set_state(self, topic: str, payload: bytes) -> None:
        """Publish a retained state."""
        if self.mqtt is not None:
            self.mqtt.set_state(topic, payload)

    def clear_state(self, topic: str) -> None:
        """Clear the topic of a retained state."""
        if self.mqtt is not None:
            self.mqtt.clear_state(topic)

    def send_event(self, camera: str, payload: bytes) -> None:
        """Publish an event."""
        if self.mqtt is not None:
            self.mqtt.send_event(camera, payload)

    def camera_failed(self, camera: str, error: SourceError) -> None:
        """Log that a camera failed; raises the error if no camera is left at a terminal.

        A service waits for its cameras, and one of several must not stop the others.
        """
        if not has_service_manager() and all(
            not other.has_delivered and (other.failure is not None or other.finished)
            for other in self.cameras.values()
        ):
            raise error
        log.warning("camera %s: %s; trying again until it is available", camera, error)

    def _start(self) -> None:
        self._publish_accelerator()
        for camera in self.cameras.values():
            camera.publish_states()
        if self.mqtt is not None:
            # A service waits for its broker without limit; a user at a terminal gets an error.
            self.mqtt.open(
                require_connection_within_s=None if has_service_manager() else CONNECT_TIMEOUT_S
            )
        self.models.start()
        self._inference.start()
        self._reporting.start(boottime_ns())
        for camera in self.cameras.values():
            camera.start()
        self._notifier.send("READY=1")

    def _loop(self, signals: Signals) -> None:
        now_ns = boottime_ns()
        watchdog_ns = watchdog_interval_ns() or WATCHDOG_NS
        next_watchdog_ns = now_ns
        while not (signals.stop_requested or self.restart_requested):
            self._reload_config(signals)
            result = self._inference.next_result(POLL_S)
            if result is not None:
                self.cameras[result.capture.name].handle(result)
            now_ns = boottime_ns()
            self._apply_commands(now_ns)
            for camera in self.cameras.values():
                camera.tick(now_ns)
            self._publish_accelerator()
            if self._settings_changed:
                self._settings_changed = False
                self._publish_settings()
            self._reporting.tick(now_ns)
            if now_ns >= next_watchdog_ns:
                next_watchdog_ns = now_ns + watchdog_ns // 4
                if not self.hung_threads(now_ns, watchdog_ns // 2):
                    self._notifier.send("WATCHDOG=1", wait=False)
            if all(camera.finished for camera in self.cameras.values()):
                log.info("every source has ended")
                return

    def hung_threads(self, now_ns: int, patience_ns: int) -> list[str]:
        """Return which of inference and network thread make no progress; a change is logged.

        The main thread asks, so it does. Cameras and outputs report a hang themselves, as a restart
        would disturb the others.
        """
        hung = []
        if now_ns - self._inference.heartbeat_ns >= patience_ns:
            hung.append("inference")
        if self.mqtt is not None and not self.mqtt.alive:
            hung.append("mqtt")
        if hung and hung != self._hung:
            log.error("hung: the thread %s; the watchdog restarts the service", ", ".join(hung))
        elif self._hung and not hung:
            log.warning("no longer hung: the thread %s", ", ".join(self._hung))
        self._hung = hung
        return hung

    def _reload_config(self, signals: Signals) -> None:
        """Prepare a reload in the background; apply a change once it is prepared."""
        if self._changing is None:
            if signals.reload_requested:
                signals.reload_requested = False
                microseconds = time.monotonic_ns() // 1000
                self._notifier.send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")
                self._changing = _Change(
                    run_in_background("reload", self.settings.reload),
                    "configuration reloaded",
                    "reload failed, keeping the previous configuration",
                )
            return
        change = self._changing
        if not change.prepared.done():
            return
        self._changing = None
        try:
            change.prepared.result()()
        # OSError: the process may have no descriptor left to read a file.
        except (EdgeposeError, OSError) as error:
            log.error("%s: %s", change.failed, error)
        else:
            self._publish_settings()
            log.info("%s", change.done)
        self._notifier.send("READY=1")

    def _publish_settings(self) -> None:
        """Publish the discovery messages and the states that follow from the configuration."""
        if self.mqtt is not None:
            self.mqtt.announce(self.settings.discovery())
        for topic, payload in self.settings.states().items():
            self.set_state(topic, payload)

    def replace_models(self, models: Models) -> None:
        """Run other models, and close the previous ones in the background: a device may hang."""
        previous, self.models = self.models, models
        for camera in self.cameras.values():
            camera.parts.pipeline.models = models

        def close_previous() -> None:
            if not self._inference.finish_current(CLOSE_MODEL_S):
                log.warning("the previous model does not answer; closing it all the same")
            # The previous ones first: an Edge TPU serves one process.
            try:
                previous.close()
            finally:
                models.start()
            return_free_memory()

        run_in_background("close-model", close_previous)

    def _publish_accelerator(self) -> None:
        state = self.models.state
        if state is self._published_accelerator:
            return
        self._published_accelerator = state
        model = state.model
        message = AcceleratorMessage(
            device=state.device,
            degraded=state.degraded,
            reason=state.reason,
            since=utc_of_boottime(state.since_ns),
            model=None if model is None else model.name,
            pose_threshold=None if model is None else model.pose_threshold,
            keypoint_threshold=None if model is None else model.keypoint_threshold,
            restarts=state.restarts,
        )
        self._publish_settings()
        self.set_state(self.topics.accelerator, encode(message))
        status = "no model" if model is None else f"running {model.name} on {state.device}"
        if state.reason:
            status += f": {state.reason}"
        self._notifier.send("STATUS=" + status.replace("\n", " "))

    def _apply_commands(self, now_ns: int) -> None:
        for key in list(self._pending_commands):
            command = self._pending_commands.pop(key)
            if not self._may_apply(command, now_ns):
                # Unless a newer one has arrived.
                self._pending_commands.setdefault(key, command)
                continue
            self._applied_ns[key] = now_ns
            match command.name:
                case "enabled":
                    self._switch(command)
                case "restart":
                    self._restart(now_ns)
                case _:
                    self._change(command)

    def _may_apply(self, command: Command, now_ns: int) -> bool:
        """Return whether a command takes effect now; off does so at once.

        All others wait, so that a flood neither wears out the SD card nor keeps this loop busy.
        """
        if command.payload == OFF:
            return True
        if self._changing is not None and command.name not in ("enabled", "restart"):
            return False
        applied_ns = self._applied_ns.get((command.camera, command.name))
        return applied_ns is None or now_ns >= applied_ns + COMMAND_INTERVAL_NS

    def _switch(self, command: Command) -> None:
        camera = self.cameras.get(command.camera or "")
        if camera is not None:
            enabled = parse_switch(command.payload)
            camera.set_enabled(enabled=enabled)
            self.switches.set(camera.name, enabled=enabled)

    def _change(self, command: Command) -> None:
        """Begin what a command sets; it is applied when it is prepared."""
        prepared = run_in_background("reload", partial(self.settings.change, command))
        topic = "/".join(filter(None, (command.camera, command.name)))
        what = f"command {topic} {command.payload.decode()}"
        self._changing = _Change(prepared, f"{what}: applied", f"{what} failed")

    def _restart(self, now_ns: int) -> None:
        if not has_service_manager():
            log.warning("command restart: ignored, no service manager would start edgepose again")
        elif now_ns < self._started_ns + RESTART_INTERVAL_NS:
            log.warning("command restart: ignored, edgepose was started less than a minute ago")
        else:
            log.info("command restart: ending, for the service manager to start edgepose again")
            self.restart_requested = True

    def _stop(self) -> None:
        """Set every stop flag, then wait for the threads: together they take no longer than one."""
        self._inference.stop()
        self._reporting.close()
        for camera in self.cameras.values():
            camera.stop()
        deadline_ns = boottime_ns() + CLOSE_SOURCES_NS
        for camera in self.cameras.values():
            camera.join(deadline_ns)
        if not self._inference.join(CLOSE_MODEL_S):
            log.warning("the model does not answer; its thread is left behind")
        self.models.close()
        for sink in reversed(self.sinks):
            try:
                sink.close()
            except EdgeposeError as error:
                log.warning("%s", error)
        # MQTT has received and acknowledged commands until now; a camera must not miss its OFF.
        for command in list(self._pending_commands.values()):
            if command.camera in self.cameras and command.payload == OFF:
                self.switches.set(command.camera, enabled=False)
        self.switches.close()
