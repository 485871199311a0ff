"""Counters as metrics, read by Prometheus's own parser."""

import dataclasses
import logging
import re
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgepose.errors import ConfigError
from edgepose.monitoring.counters import CameraCounters, NodeCounters
from edgepose.monitoring.metrics import Metrics
from edgepose.monitoring.stage_stats import BUCKETS_S, Histogram
from tests.documents import ROOT

STAGE = Histogram((0, 1, 1, *[3] * 8), 4, 1.3)
CAMERA = CameraCounters(
    up=True,
    idle=False,
    people=2,
    frames=1000,
    dropped={"overwritten": 5, "no_model": 1},
    reopened=3,
    verifications=7,
    stages={"invoke": STAGE},
)
NODE = NodeCounters(
    node="gym",
    cameras={"main": CAMERA},
    device="edgetpu",
    model="m",
    degraded=False,
    restarts=2,
    mqtt={
        "connected": True,
        "published": 9,
        "dropped_poses": 8,
        "waiting_events": 4,
        "dropped_events": 0,
        "reconnects": 1,
    },
    output_dropped=0,
    temperatures_c={"cpu-thermal": 48.5},
    throttling=("throttled_occurred",),
    memory_bytes=98e6,
)


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return each sample by name and labels but `node`, as a Prometheus server reads them."""
    return {
        (sample.name, tuple(sorted((k, v) for k, v in sample.labels.items() if k != "node"))): value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        for value in [sample.value]
    }


def page(metrics: Metrics) -> str:
    """Return what a scraper gets."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=60) as answer:
        text: bytes = answer.read()
    return text.decode()


def test_metrics_page() -> None:
    """Names, units and labels of every counter, and the page without any yet."""
    metrics = Metrics(("127.0.0.1", 0), None)
    try:
        assert page(metrics) == ""
        metrics.update(NODE)
        samples = parsed(page(metrics))
    finally:
        metrics.close()
        metrics.close()
    main = ("camera", "main")
    assert samples["edgepose_camera_up", (main,)] == 1
    assert samples["edgepose_people", (main,)] == 2
    assert samples["edgepose_frames_total", (main,)] == 1000
    assert samples["edgepose_frames_dropped_total", (main, ("reason", "overwritten"))] == 5
    assert samples["edgepose_frames_dropped_total", (main, ("reason", "no_model"))] == 1
    assert samples["edgepose_mqtt_events_waiting", ()] == 4
    assert samples["edgepose_mqtt_reconnects_total", ()] == 1
    assert samples["edgepose_accelerator_restarts_total", ()] == 2
    assert samples["edgepose_temperature_celsius", (("zone", "cpu-thermal"),)] == 48.5
    # It was throttled once, and is not now.
    assert samples["edgepose_throttled", ()] == 0
    assert samples["edgepose_resident_memory_bytes", ()] == 98e6
    invoke = ("stage", "invoke")
    for limit, count in zip([*map(str, BUCKETS_S), "+Inf"], [*STAGE.counts, 4], strict=True):
        bucket = tuple(sorted((main, invoke, ("le", limit))))
        assert samples["edgepose_stage_seconds_bucket", bucket] == count
    assert samples["edgepose_stage_seconds_sum", (main, invoke)] == 1.3
    assert samples["edgepose_stage_seconds_count", (main, invoke)] == 4


def test_metrics_of_what_is_not_there() -> None:
    """Without a broker, and on a board that reports nothing, there are fewer metrics."""
    metrics = Metrics(("127.0.0.1", 0), None)
    try:
        metrics.update(
            dataclasses.replace(
                NODE, mqtt={}, throttling=None, memory_bytes=None, temperatures_c={}, model=None
            )
        )
        names = {name for name, _ in parsed(page(metrics))}
    finally:
        metrics.close()
    absent = ("mqtt", "throttled", "memory", "temperature")
    assert not [name for name in names if any(word in name for word in absent)]


def test_metrics_textfile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The file is complete whenever it is read; a folder that is missing is logged once."""
    path = tmp_path / "collector" / "edgepose.prom"
    metrics = Metrics(None, path)
    metrics.update(NODE)
    with caplog.at_level(logging.WARNING):
        metrics.write()
        metrics.write()
    (record,) = caplog.records
    assert f"{path}: No such file or directory" in record.getMessage()
    path.parent.mkdir()
    metrics.write()
    assert parsed(path.read_text())["edgepose_people", (("camera", "main"),)] == 2
    assert list(path.parent.iterdir()) == [path]


def test_metrics_port_in_use() -> None:
    """The error names the address."""
    first = Metrics(("127.0.0.1", 0), None)
    try:
        with pytest.raises(ConfigError, match=rf"metrics\.listen: 127\.0\.0\.1:{first.port}"):
            Metrics(("127.0.0.1", first.port or 0), None)
    finally:
        first.close()


def test_grafana_dashboard_asks_for_metrics_that_exist() -> None:
    """Every metric of the dashboard and of the document is one of the page, and the reverse."""
    metrics = Metrics(("127.0.0.1", 0), None)
    try:
        metrics.update(NODE)
        exposed = {name for name, _ in parsed(page(metrics))}
    finally:
        metrics.close()
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in exposed}
    dashboard = (ROOT / "docs/grafana-dashboard.json").read_text()
    asked = set(re.findall(r"edgepose_\w+", dashboard))
    assert asked <= exposed
    documented = set(re.findall(r"`(edgepose_\w+)`", (ROOT / "docs/metrics.md").read_text()))
    assert documented == families
