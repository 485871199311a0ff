"""Metrics of a running daemon."""

import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from edgepose.mqtt.local_broker import free_port
from tests.daemon import Daemon
from tests.mosquitto import Mosquitto, wait_for


def test_daemon_serves_metrics_and_writes_the_file(tmp_path: Path, broker: Mosquitto) -> None:
    """Both have the frames that were processed, and the connection to the broker."""
    port, file = free_port(), tmp_path / "edgepose.prom"
    config = (
        "cameras: [{name: main, source: 'synthetic:?fps=10'}]\n"
        f"metrics: {{listen: '127.0.0.1:{port}', textfile: {file}}}\n"
    )
    daemon = Daemon(tmp_path, "--mqtt", broker.url, config=config)

    def value(text: str, name: str) -> float:
        families = text_string_to_metric_families(text)
        samples = [sample for family in families for sample in family.samples]
        return max((sample.value for sample in samples if sample.name == name), default=0.0)

    def page() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                text: bytes = answer.read()
        except OSError:
            # It is served a moment after the start.
            return ""
        return text.decode()

    try:
        wait_for(lambda: value(page(), "edgepose_frames_total") > 0, "frames on the page")
        assert value(page(), "edgepose_mqtt_connected") == 1
        wait_for(
            lambda: file.exists() and value(file.read_text(), "edgepose_people") == 1, "the file"
        )
    finally:
        code, _, stderr = daemon.end()
    assert code == 0
    assert "Traceback" not in stderr
