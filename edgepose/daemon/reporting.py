"""What a node counts, as the `stats` message and as metrics."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from edgepose.clock import utc_of_boottime
from edgepose.daemon.camera import CameraSupervisor
from edgepose.inference.failover import AcceleratorState
from edgepose.messages import boot_id
from edgepose.monitoring.counters import NodeCounters
from edgepose.monitoring.host import resident_memory_mb, temperatures_c, throttling
from edgepose.protocols import Sink
from edgepose.sinks.mqtt import MqttSink
from edgepose.sinks.queued import QueuedSink
from edgepose.util.background import BackgroundWriter

log = logging.getLogger(__name__)

METRICS_INTERVAL_NS: Final = 5_000_000_000


class MetricsExporter(Protocol):
    """Where the counters go besides the broker."""

    def update(self, counters: NodeCounters) -> None:
        """Take the newest counters; does not wait."""
        ...

    def write(self) -> None:
        """Write them to a disk, in a background thread."""
        ...

    def close(self) -> None:
        """End; closing twice is fine."""
        ...


class Reporting:
    """Publishes `stats` at an interval, and updates the metrics; used by the main thread.

    `accelerator` returns the present state. What may block, such as the firmware of a Pi 5 that
    answers through another process, is read and written in a background thread.
    """

    def __init__(
        self,
        node: str,
        cameras: Mapping[str, CameraSupervisor],
        accelerator: Callable[[], AcceleratorState],
        sinks: Sequence[Sink],
        mqtt: MqttSink | None,
        *,
        stats_interval_ns: int,
        metrics: MetricsExporter | None,
    ) -> None:
        self._node = node
        self._cameras = cameras
        self._accelerator = accelerator
        self._queued = [sink for sink in sinks if isinstance(sink, QueuedSink)]
        self._mqtt = mqtt
        self._metrics = metrics
        self._stats_interval_ns = stats_interval_ns
        self._next_stats_ns = self._next_metrics_ns = 0
        self._temperatures_c: Mapping[str, float] = {}
        self._throttling: tuple[str, ...] | None = None
        self._background: BackgroundWriter[object] = BackgroundWriter(
            "host", lambda _: self._in_background(), max_pending=1
        )

    def start(self, now_ns: int) -> None:
        """Begin to count."""
        self._background.submit(self)
        self._next_stats_ns = now_ns + self._stats_interval_ns
        for camera in self._cameras.values():
            camera.statistics.take(now_ns)

    def tick(self, now_ns: int) -> None:
        """Publish what is due."""
        if self._metrics is not None and now_ns >= self._next_metrics_ns:
            self._next_metrics_ns = now_ns + METRICS_INTERVAL_NS
            self._metrics.update(self.counters())
            self._background.submit(self)
        if now_ns >= self._next_stats_ns:
            self._next_stats_ns = now_ns + self._stats_interval_ns
            self._publish_stats(now_ns)
            self._background.submit(self)

    def close(self) -> None:
        """Stop without waiting for what is read or written."""
        self._background.close(0)
        if self._metrics is not None:
            self._metrics.close()

    def counters(self) -> NodeCounters:
        """Return what was counted until now."""
        state = self._accelerator()
        memory_mb = resident_memory_mb()
        return NodeCounters(
            node=self._node,
            cameras={name: camera.counters() for name, camera in self._cameras.items()},
            device=state.device,
            model=None if state.model is None else state.model.name,
            degraded=state.degraded,
            restarts=state.restarts,
            mqtt={} if self._mqtt is None else self._mqtt.counters(),
            output_dropped=sum(sink.dropped for sink in self._queued),
            temperatures_c=self._temperatures_c,
            throttling=self._throttling,
            memory_bytes=None if memory_mb is None else memory_mb * 1e6,
        )

    def _publish_stats(self, now_ns: int) -> None:
        counted = self.counters()
        memory = counted.memory_bytes
        stats: dict[str, object] = {
            "boot": boot_id(),
            "time": utc_of_boottime(now_ns),
            "cameras": {
                name: {
                    **camera.statistics.take(now_ns),
                    "dropped": of_camera.dropped["overwritten"],
                    "frames_without_model": of_camera.dropped["no_model"],
                    "reopened": of_camera.reopened,
                    "verifications": of_camera.verifications,
                    "idle": of_camera.idle,
                }
                for (name, camera), of_camera in zip(
                    self._cameras.items(), counted.cameras.values(), strict=True
                )
            },
            "memory_mb": None if memory is None else round(memory / 1e6, 1),
            "temperatures_c": counted.temperatures_c,
            "throttling": counted.throttling,
            "accelerator": {"device": counted.device, "restarts": counted.restarts},
        }
        if self._queued:
            stats["output_working"] = {sink.name: sink.working for sink in self._queued}
            stats["output_dropped"] = counted.output_dropped
        if self._mqtt is not None:
            stats["mqtt"] = counted.mqtt
            self._mqtt.send_stats(json.dumps(stats).encode())
        log.debug("stats: %s", stats)

    def _in_background(self) -> None:
        self._temperatures_c, self._throttling = temperatures_c(), throttling()
        if self._metrics is not None:
            self._metrics.write()
