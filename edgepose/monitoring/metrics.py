"""Counters as Prometheus metrics: a page for a scraper, or a file for node_exporter."""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edgepose import __version__
from edgepose.errors import ConfigError
from edgepose.monitoring.counters import CameraCounters, NodeCounters
from edgepose.monitoring.host import OCCURRED
from edgepose.monitoring.stage_stats import BUCKETS_S

log = logging.getLogger(__name__)


class Metrics(Collector):
    """Publishes the newest counters, on an address, in a file, or both.

    `update` is called by the main thread; the page is served by a thread of its server, which reads
    the counters that were set last. Raises ConfigError if the address cannot be used.
    """

    def __init__(self, listen: tuple[str, int] | None, textfile: Path | None) -> None:
        self._counters: NodeCounters | None = None
        self._textfile = textfile
        self._failed = False
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._server: WSGIServer | None = None
        if listen is not None:
            host, port = listen
            try:
                self._server, _ = start_http_server(port, host, self._registry)
            except OSError as error:
                raise ConfigError(
                    f"metrics.listen: {host}:{port} cannot be used ({error.strerror}); choose "
                    "another port"
                ) from None

    @property
    def port(self) -> int | None:
        """The port of the page, None without one."""
        return None if self._server is None else self._server.server_port

    def update(self, counters: NodeCounters) -> None:
        """Take the newest counters; the file is written by `write`."""
        self._counters = counters

    def write(self) -> None:
        """Write the file, if there is one; a failure is logged once. Called in the background."""
        if self._textfile is None:
            return
        try:
            write_to_textfile(str(self._textfile), self._registry)
        except OSError as error:
            if not self._failed:
                log.warning("metrics.textfile: %s: %s", self._textfile, error.strerror)
            self._failed = True
        else:
            self._failed = False

    def close(self) -> None:
        """End the server; closing twice is fine."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of the newest counters."""
        return () if self._counters is None else list(metrics_of(self._counters))


def metrics_of(counters: NodeCounters) -> Iterator[Metric]:
    """Yield every metric; names end in their unit, those of counters in `_total`."""
    node = counters.node
    info = InfoMetricFamily("edgepose", "Version and model.", labels=["node"])
    model = counters.model or "none"
    info.add_metric(
        [node], {"version": __version__, "model": model, "accelerator": counters.device}
    )
    yield info
    yield from _of_cameras(counters)
    yield _gauge("degraded", "1 while the fallback runs, or no model.", node, counters.degraded)
    yield _counter("accelerator_restarts", "Losses of the accelerator.", node, counters.restarts)
    yield _counter("output_dropped", "Messages of outputs on disk.", node, counters.output_dropped)
    mqtt = counters.mqtt
    if mqtt:
        yield _gauge("mqtt_connected", "1 with a broker.", node, mqtt["connected"])
        yield _gauge("mqtt_events_waiting", "Events to send.", node, mqtt["waiting_events"])
        for name, key, text in (
            ("mqtt_published", "published", "Published messages."),
            ("mqtt_reconnects", "reconnects", "Connections after the first."),
            ("mqtt_dropped_poses", "dropped_poses", "Pose messages without a connection."),
            ("mqtt_dropped_events", "dropped_events", "Events for which there was no room."),
        ):
            yield _counter(name, text, node, mqtt[key])
    temperatures = GaugeMetricFamily(
        "edgepose_temperature_celsius", "Of each thermal zone.", labels=["node", "zone"]
    )
    for zone, value in counters.temperatures_c.items():
        temperatures.add_metric([node, zone], value)
    yield temperatures
    if counters.throttling is not None:
        now = any(not flag.endswith(OCCURRED) for flag in counters.throttling)
        yield _gauge("throttled", "1 while heat or power limits the board.", node, now)
    if counters.memory_bytes is not None:
        text = "Resident memory of the daemon."
        yield _gauge("resident_memory_bytes", text, node, counters.memory_bytes)


def _of_cameras(counters: NodeCounters) -> Iterator[Metric]:
    labels = ["node", "camera"]
    for name, text, value in (
        ("camera_up", "1 while the camera is online.", lambda c: c.up),
        ("camera_idle", "1 while fewer frames are processed.", lambda c: c.idle),
        ("people", "Persons who have entered.", lambda c: c.people),
    ):
        gauge = GaugeMetricFamily(f"edgepose_{name}", text, labels=labels)
        yield _of_each(gauge, counters, value)
    for name, text, value in (
        ("frames", "Processed frames.", lambda c: c.frames),
        ("camera_reopened", "Openings after a failure.", lambda c: c.reopened),
        ("verifications", "Inferences that verified a pose.", lambda c: c.verifications),
    ):
        counter = CounterMetricFamily(f"edgepose_{name}", text, labels=labels)
        yield _of_each(counter, counters, value)
    dropped = CounterMetricFamily(
        "edgepose_frames_dropped", "Frames that were not processed.", labels=[*labels, "reason"]
    )
    stages = HistogramMetricFamily(
        "edgepose_stage_seconds", "Time of a frame in each stage.", labels=[*labels, "stage"]
    )
    for name, camera in counters.cameras.items():
        for reason, count in camera.dropped.items():
            dropped.add_metric([counters.node, name, reason], count)
        for stage, histogram in camera.stages.items():
            buckets = [
                *zip(map(str, BUCKETS_S), histogram.counts, strict=True),
                ("+Inf", histogram.total),
            ]
            stages.add_metric([counters.node, name, stage], buckets, histogram.sum_s)
    yield dropped
    yield stages


def _of_each(
    family: GaugeMetricFamily | CounterMetricFamily,
    counters: NodeCounters,
    value: Callable[[CameraCounters], float],
) -> Metric:
    for name, camera in counters.cameras.items():
        family.add_metric([counters.node, name], value(camera))
    return family


def _gauge(name: str, text: str, node: str, value: float) -> Metric:
    family = GaugeMetricFamily(f"edgepose_{name}", text, labels=["node"])
    family.add_metric([node], value)
    return family


def _counter(name: str, text: str, node: str, value: float) -> Metric:
    family = CounterMetricFamily(f"edgepose_{name}", text, labels=["node"])
    family.add_metric([node], value)
    return family
