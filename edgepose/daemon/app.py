"""From a configuration to a running daemon, and from a changed one to what changes in it."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Final

from edgepose import __version__, messages
from edgepose.build import (
    apply_tracking,
    build_cpu_model,
    build_edgetpu_model,
    build_replay_model,
    build_smoother,
    build_tracker,
    edgetpu_accelerator,
    model_files,
    source_opener,
    stall_timeout_ns,
    verifier_adder,
)
from edgepose.build_events import apply_detectors, build_detectors, build_postures
from edgepose.config.changes import changed_keys
from edgepose.config.fields import ReloadEffect, dotted
from edgepose.config.people import IdleConfig
from edgepose.config.schema import Config, MetricsConfig, OutputConfig
from edgepose.daemon.camera import CameraParts
from edgepose.daemon.daemon import Daemon
from edgepose.daemon.frame_rate_limit import FrameRateLimit
from edgepose.daemon.page_process import PageProcess
from edgepose.daemon.reporting import MetricsExporter
from edgepose.daemon.settings import Settings, with_command
from edgepose.daemon.signals import Signals
from edgepose.daemon.state_folder import StateFolder
from edgepose.daemon.switches import Switches
from edgepose.daemon.systemd import Notifier, has_service_manager
from edgepose.errors import ConfigError, EdgeposeError
from edgepose.homeassistant.discovery import discovery_messages
from edgepose.homeassistant.host import read_host
from edgepose.imaging.crop import WHOLE
from edgepose.inference.failover import Failover, Models, SingleModel
from edgepose.inference.thread_cache import ThreadCache
from edgepose.monitoring.host import device_name
from edgepose.mqtt.commands import Command
from edgepose.mqtt.topics import DiscoveryTopics, Topics
from edgepose.pipeline import Pipeline
from edgepose.protocols import FrameSource, LoadedModel, Sink
from edgepose.sinks.mqtt import MqttSink
from edgepose.sinks.ndjson import NdjsonSink
from edgepose.sinks.queued import QueuedSink
from edgepose.sinks.recorder import RecorderSink
from edgepose.util.address import parse_listen
from edgepose.util.extras import require_extra

log = logging.getLogger(__name__)

SWITCHES_FILE: Final = "switches.json"
SETTINGS_FILE: Final = "settings.json"
RESTART_EXIT_CODE: Final = 1
"""After which systemd starts the service again."""
LONGEST_PAUSE_S: Final = 8
"""Between attempts to start, of which each loads the model."""


def launch(load: Callable[[], Config], *, config_file: Path | None) -> None:
    """Build every part of a configuration and run the daemon until it ends.

    `load` is called again for a reload. Raises EdgeposeError with what is missing or wrong, after
    closing what was opened; a service waits for it instead, unless the configuration is invalid.
    """
    with Signals(starting=True) as signals, ExitStack() as stack:
        app = _when_available(lambda: _build(load, config_file, stack))
        config, loaded = app.config, app.daemon.models.loaded
        log.info(
            "edgepose %s: node %s, %s, %s, configuration %s",
            __version__,
            config.node_name,
            " and ".join(f"{model.name} on {model.device}" for model in loaded),
            f"broker {config.mqtt.address}" if config.mqtt.enabled else "no broker",
            config_file or "built in",
        )
        if config.dashboard.listen is not None:
            page = stack.enter_context(closing(PageProcess(config)))
            page.start()
        signals.starting = False
        app.daemon.run(signals)
    if app.daemon.restart_requested:
        raise SystemExit(RESTART_EXIT_CODE)


def _build(load: Callable[[], Config], config_file: Path | None, stack: ExitStack) -> "App":
    """Build every part; `stack` unlocks the node's state."""
    config = load()
    with ExitStack() as opened:
        folder = StateFolder(config.state_path, topics_of(config), config_file)
        app = App(config, load, opened.enter_context(closing(folder)))
        opened.callback(app.close)
        stack.enter_context(opened.pop_all())
        return app


def _when_available(build: Callable[[], "App"]) -> "App":
    """Build the parts; a service tries again until nothing is missing, such as a mount.

    Ending would be worse: systemd starts it again every 3 s without limit.
    """
    failure, pause_s = "", 1
    with closing(Notifier()) as notifier:
        while True:
            try:
                return build()
            except EdgeposeError as error:
                # Once it waits, an invalid configuration is one that is being edited.
                if not has_service_manager() or (error.exit_code == 2 and not failure):
                    raise
                if str(error) != failure:
                    failure = str(error)
                    log.warning(
                        "%s; trying again until it succeeds; `edgepose doctor` checks every part",
                        failure,
                    )
            status = failure.replace("\n", " ")
            for _ in range(pause_s):
                notifier.send(f"READY=1\nWATCHDOG=1\nSTATUS=waiting: {status}")
                time.sleep(1)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def topics_of(config: Config) -> Topics:
    """Return the topics of the node."""
    return Topics(node=config.node_name, base=config.mqtt.base_topic)


class App:
    """The parts of the running configuration: that of the file, with what commands have set.

    A benchmark passes its own `models`, `new_source` of its camera and `new_pipeline`.
    """

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        state: StateFolder,
        *,
        models: Models | None = None,
        new_source: Callable[[], FrameSource] | None = None,
        new_pipeline: Callable[..., Pipeline] = Pipeline,
    ) -> None:
        self._load = load
        self._state = state
        self._in_file = config
        self._settings = Settings(state.path / SETTINGS_FILE)
        self.config = config = self._settings.applied_to(config)
        self._host = read_host(restartable=has_service_manager())
        topics = topics_of(config)
        self._thread_cache = ThreadCache(
            state.path, on_new=lambda: self.daemon.publish_settings_soon()
        )
        models = models or build_models(config, self._thread_cache, wait=not has_service_manager())
        mqtt = self._mqtt_sink(topics) if config.mqtt.enabled else None
        sinks = [*([] if mqtt is None else [mqtt]), *output_sinks(config.output)]
        cameras, turn = [], threading.Lock()
        for camera in config.cameras:
            pipeline = new_pipeline(
                models,
                build_tracker(config),
                build_smoother(config.smoothing),
                sinks,
                node=config.node_name,
                camera=camera.name,
                turn=turn,
                publish_raw=config.publish.raw,
                publish_angles=config.publish.angles,
                postures=build_postures(config),
                region=camera.region or WHOLE,
            )
            parts = CameraParts(
                camera.name,
                new_source or source_opener(camera),
                stall_timeout_ns(camera),
                pipeline,
                build_detectors(config, camera),
                FrameRateLimit(camera.max_fps),
            )
            _apply_idle(parts, config.idle)
            cameras.append(parts)
        self.daemon = Daemon(
            cameras,
            models,
            sinks,
            mqtt,
            topics,
            stats_interval_ns=round(config.stats_interval_s * 1e9),
            switches=Switches(
                state.path / SWITCHES_FILE,
                frozenset(camera.name for camera in cameras),
                earlier=state.shared / SWITCHES_FILE,
            ),
            settings=self,
            metrics=build_metrics(config.metrics),
        )

    def _mqtt_sink(self, topics: Topics) -> MqttSink:
        config = self.config
        return MqttSink(
            config.mqtt.connect_options(config.client_id),
            topics,
            cameras=tuple(camera.name for camera in config.cameras),
            state_directory=self._state.path,
            on_command=lambda command: self.daemon.command(command),
            previous_root=self._state.previous_root,
            forget_previous=self._state.forget_previous,
            discovery=DiscoveryTopics(topics.node, config.homeassistant.discovery_prefix),
        )

    def discovery(self) -> Mapping[str, bytes]:
        """Return the discovery messages by topic."""
        return discovery_messages(self.config, self._host)

    def states(self) -> Mapping[str, bytes]:
        """Return `info`, and the states of what commands can set, by topic."""
        config, models, topics = self.config, self.daemon.models, self.daemon.topics
        states = {
            topics.info: info_message(config, models),
            topics.node_state("smoothing"): config.smoothing.preset.encode(),
        }
        if models.state.model is not None:
            threshold = models.state.model.pose_threshold
            states[topics.node_state("pose_threshold")] = f"{threshold:g}".encode()
        for camera in config.cameras:
            states[topics.camera_state(camera.name, "max_fps")] = f"{camera.max_fps:g}".encode()
        return states

    def reload(self) -> Callable[[], None]:
        """Load the configuration again, in a background thread, and return what applies it.

        Raises ConfigError, or what logins, sources and models raise; nothing is applied then.
        """
        in_file = self._load()
        apply = self._prepare(self._settings.applied_to(in_file))

        def apply_all() -> None:
            apply()
            self._in_file = in_file
            self._settings.forget_outdated(in_file)

        return apply_all

    def change(self, command: Command) -> Callable[[], None]:
        """Prepare what a command sets, as `reload` does."""
        apply = self._prepare(with_command(self.config, command))

        def apply_and_keep() -> None:
            apply()
            self._settings.keep(command, self._in_file)

        return apply_and_keep

    def close(self) -> None:
        """Save what was set."""
        self._settings.close()

    def _prepare(self, config: Config) -> Callable[[], None]:
        changes = changed_keys(self.config, config)
        if changes[ReloadEffect.RESTART]:
            raise ConfigError(
                f"{', '.join(map(dotted, changes[ReloadEffect.RESTART]))} changed, which a reload "
                "cannot apply; restart edgepose to apply all changes"
            )
        # Keys of a camera begin with `cameras` and its index.
        changed = {config.cameras[int(key[1])] for key in changes[ReloadEffect.CAMERA]}
        for camera in changed:
            if camera.password_file is not None:
                camera.stream_url()
        sources = {
            camera.name: (source_opener(camera), stall_timeout_ns(camera)) for camera in changed
        }
        models = (
            build_models(config, self._thread_cache, wait=False)
            if changes[ReloadEffect.MODEL]
            else None
        )
        return partial(self._apply, config, models, sources)

    def _apply(
        self,
        config: Config,
        models: Models | None,
        sources: Mapping[str, tuple[Callable[[], FrameSource], int]],
    ) -> None:
        """Apply a configuration, on the main thread; nothing here fails or waits."""
        for camera_config in config.cameras:
            camera = self.daemon.cameras[camera_config.name]
            camera.parts.limit.max_fps = camera_config.max_fps
            _apply_settings(camera.parts, self.config, config)
            # Its password may have been corrected in a file.
            camera.retry_now()
        self.config = config
        if models is not None:
            self.daemon.replace_models(models)
        for name, (new_source, timeout_ns) in sources.items():
            self.daemon.cameras[name].replace_source(new_source, timeout_ns)


def build_metrics(config: MetricsConfig) -> MetricsExporter | None:
    """Return the exporter of metrics, None if none is configured; raises what is missing."""
    if config.listen is None and config.textfile is None:
        return None
    require_extra("prometheus_client", "metrics", "metrics")
    # Imported on demand: it is an extra.
    from edgepose.monitoring.metrics import Metrics

    address = None if config.listen is None else parse_listen(config.listen)
    return Metrics(address, config.textfile)


def output_sinks(output: OutputConfig) -> Iterator[Sink]:
    """Yield the sinks beside MQTT; raises ConfigError if stdout is needed and closed."""
    if output.ndjson:
        if sys.__stdout__ is None:
            raise ConfigError(
                "output.ndjson writes to stdout, which is closed: connect it to a file or a "
                "program, or set output.ndjson to false"
            )
        # Unbuffered: the lock of a buffer, held by a blocked write, would block the exit.
        stdout = open(sys.stdout.fileno(), "wb", buffering=0, closefd=False)  # noqa: SIM115
        yield QueuedSink(NdjsonSink(stdout), name="stdout")
    if output.record is not None:
        recorder = RecorderSink(
            output.record,
            max_bytes=round(output.record_max_mb * 1_000_000),
            keep=output.record_keep,
        )
        yield QueuedSink(recorder, name="recording", prepare=recorder.open)


def _apply_settings(camera: CameraParts, old: Config, new: Config) -> None:
    """Apply changed settings to a running camera; its tracks, ids and presence stay."""
    if new.smoothing != old.smoothing:
        camera.pipeline.smoother = build_smoother(new.smoothing)
    pipeline = camera.pipeline
    pipeline.publish_raw, pipeline.publish_angles = new.publish.raw, new.publish.angles
    pipeline.postures = build_postures(new, pipeline.postures)
    apply_tracking(camera.pipeline.tracker, new)
    (settings,) = (each for each in new.cameras if each.name == camera.name)
    pipeline.region = settings.region or WHOLE
    apply_detectors(camera.detectors, new, settings)
    _apply_idle(camera, new.idle)


def _apply_idle(camera: CameraParts, idle: IdleConfig) -> None:
    camera.limit.set_idle(fps=idle.fps if idle.enabled else 0, after_s=idle.after_s)


def build_models(
    config: Config, thread_cache: ThreadCache | None = None, *, wait: bool = True
) -> Models:
    """Load the configured model, with `threads: auto` from the cache.

    An Edge TPU that is required is opened before this returns; with `wait` False, or if the CPU can
    run meanwhile and `accelerator` is auto, it is opened in the background. Raises ModelError or
    AcceleratorError.
    """
    if config.accelerator == "replay":
        return SingleModel(build_replay_model(config))
    files = model_files(config.model.name)
    edgetpu = edgetpu_accelerator(config, files)
    add_verifier = verifier_adder(config)

    def on_cpu() -> LoadedModel:
        return add_verifier(build_cpu_model(config, files, thread_cache))

    if edgetpu is None:
        return SingleModel(on_cpu(), reason=files.missing if config.accelerator == "auto" else None)
    fallback = None if files.cpu is None else on_cpu()
    if fallback is None:
        log.warning("there is no fallback for the Edge TPU: %s", files.missing)

    def opener() -> LoadedModel:
        return add_verifier(build_edgetpu_model(config, files, edgetpu))

    required = config.accelerator == "edgetpu" or fallback is None
    try:
        primary = opener() if wait and required else None
    except BaseException:
        if fallback is not None:
            fallback.close()
        raise
    return Failover(opener, fallback, primary=primary, fingerprint=edgetpu.fingerprint)


def info_message(config: Config, models: Models) -> bytes:
    """Return the `info` payload: what this node is and how to read its messages."""
    # The keypoint threshold is that of the model that runs.
    model = models.state.model
    threshold = config.pose.keypoint_threshold if model is None else model.keypoint_threshold
    verifier = None if model is None else model.verifier
    return messages.info_message(
        node=config.node_name,
        device=device_name(),
        cameras=[camera.name for camera in config.cameras],
        zones={camera.name: camera.zones for camera in config.cameras},
        models=[model.name for model in models.loaded],
        verifier=None if verifier is None else verifier.name,
        threads={
            model.name: choice for model in models.loaded if (choice := model.threads()) is not None
        },
        keypoint_threshold=threshold,
    )
