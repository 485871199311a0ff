"""The daemon in this process, with a trace of every frame it publishes."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepose.build import (
    build_occupancy,
    build_smoother,
    build_track_events,
    build_tracker,
)
from edgepose.clock import boottime_ns
from edgepose.config import Config
from edgepose.daemon.camera import CameraParts, SourceParts
from edgepose.daemon.daemon import Daemon, Reload
from edgepose.daemon.signals import Signals
from edgepose.daemon.switches import Switches
from edgepose.daemon.systemd import Notifier
from edgepose.datatypes import Frame, StageTimings
from edgepose.errors import ConfigError
from edgepose.inference.failover import SingleModel
from edgepose.mqtt.topics import Topics
from edgepose.pipeline import CropState, Detection, FrameResult, Pipeline
from edgepose.protocols import FrameSource, LoadedModel
from edgepose.sinks.mqtt import MqttSink

_CAMERA: Final = "main"
_STATS_INTERVAL_NS: Final = 30_000_000_000
_STALL_TIMEOUT_NS: Final = 10_000_000_000


@dataclass(frozen=True, slots=True)
class FrameTrace:
    """The times of one published frame.

    CLOCK_BOOTTIME: `frame_ns` its timestamp, `detect_ns` the start of its detection,
    `publish_from_ns` and `publish_to_ns` its publishing; durations: `timings`, and `publish_ns` of
    the sinks. `cpu_ns` is the processor time that this process has used by the end.
    """

    sequence: int
    frame_ns: int
    detect_ns: int
    publish_from_ns: int
    publish_to_ns: int
    cpu_ns: int
    timings: StageTimings
    publish_ns: int


class TracingPipeline(Pipeline):
    """The pipeline of the daemon, with a trace of every frame; images are not kept."""

    started_ns: dict[int, int]
    traces: list[FrameTrace]

    def detect(self, frame: Frame, crop: CropState) -> Detection:
        """Record when the detection starts."""
        self.started_ns[frame.sequence] = boottime_ns()
        return super().detect(frame, crop)

    def publish(self, detection: Detection) -> FrameResult:
        """Record when a frame is published, and the duration of its stages."""
        from_ns = boottime_ns()
        result = super().publish(detection)
        to_ns = boottime_ns()
        frame = detection.frame
        self.traces.append(
            FrameTrace(
                frame.sequence,
                frame.timestamp_ns,
                self.started_ns.pop(frame.sequence),
                from_ns,
                to_ns,
                time.process_time_ns(),
                result.timings,
                result.publish_ns,
            )
        )
        return result


def run_daemon(
    config: Config, topics: Topics, model: LoadedModel, open_source: Callable[[], FrameSource]
) -> list[FrameTrace]:
    """Run the daemon until the source ends, and return the traces of its frames.

    Raises EdgeposeError if a part fails, and KeyboardInterrupt if a signal stopped the daemon.
    """
    mqtt = MqttSink(
        address=config.mqtt.address,
        topics=topics,
        client_id=topics.node,
        cameras=(_CAMERA,),
        info=b"{}",
        username=config.mqtt.user,
        password=config.mqtt.read_password(),
        tls=config.mqtt.tls_files,
        protocol=config.mqtt.protocol,
    )
    models = SingleModel(model)
    pipeline = TracingPipeline(
        models,
        build_tracker(config),
        build_smoother(config.smoothing),
        [mqtt],
        node=topics.node,
        camera=_CAMERA,
        # Otherwise an image without a person would count as a lost message.
        every_frame=True,
    )
    pipeline.started_ns, pipeline.traces = {}, []
    camera = CameraParts(
        _CAMERA,
        SourceParts(open_source, _STALL_TIMEOUT_NS),
        pipeline,
        build_occupancy(config),
        build_track_events(config),
    )
    with tempfile.TemporaryDirectory(prefix="edgepose-benchmark-") as folder, Signals() as signals:
        Daemon(
            [camera],
            models,
            [mqtt],
            mqtt,
            topics,
            stats_interval_ns=_STATS_INTERVAL_NS,
            switches=Switches(Path(folder) / "switches.json", frozenset({_CAMERA})),
            notifier=Notifier(""),
            info=lambda _model: b"{}",
            reload=_no_reload,
        ).run(signals)
    if signals.stop_requested:
        raise KeyboardInterrupt
    return pipeline.traces


def _no_reload() -> Reload:
    raise ConfigError("a benchmark measures one configuration, which cannot be reloaded")
