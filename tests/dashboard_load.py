"""The live page under load: `make test-dashboard`, or `python -m tests.dashboard_load SECONDS`.

Five cameras of three persons each publish 15 messages a second, and events. Memory is compared
between the end of the first fifth, when every list of the page is full, and the end.
"""

import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from tests.bodies import lying, standing, turned
from tests.browser import Browser
from tests.mosquitto import Mosquitto, wait_for
from tests.page import Page, pose, pose_message
from tests.processes import cpu_seconds, rss_mb
from tests.resource import Resource

CAMERAS: Final = ("attic", "door", "hall", "kitchen", "yard")
RATE: Final = 15
EVENT_EVERY: Final = 5
WARM_UP: Final = 0.2
MAX_TRANSFERRED: Final = 60_000
MAX_GROWTH_MB: Final = 1.0
MAX_NODES: Final = 20
"""The rows of facts are made anew every second."""

# What the page does with a message is measured from outside of its code: when it has parsed one,
# when it clears the canvas of that camera, and when the frame after it has been painted.
_OBSERVER: Final = """
const pending = new Map(), drawn = [];
window.observed = { delays: [], firstSkeletonMs: null, superseded: 0 };
const parse = JSON.parse;
JSON.parse = (text, ...more) => {
  const value = parse(text, ...more);
  if (value && value.poses && value.published_at) {
    const waiting = pending.get(value.camera) || [];
    waiting.push(Date.parse(value.published_at));
    pending.set(value.camera, waiting);
  }
  return value;
};
const channel = new MessageChannel();
channel.port1.onmessage = () => {
  const now = performance.timeOrigin + performance.now();
  for (const published of drawn.splice(0)) window.observed.delays.push(now - published);
};
const { clearRect } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.clearRect = function (...area) {
  const { camera } = this.canvas.closest(".camera").dataset;
  const waiting = pending.get(camera) || [];
  if (waiting.length) {
    window.observed.superseded += waiting.length - 1;
    window.observed.firstSkeletonMs ??= performance.now();
    drawn.push(...waiting.splice(0));
    channel.port2.postMessage(null);
  }
  clearRect.apply(this, area);
};
"""


@dataclass(frozen=True)
class Memory:
    """What is held: by the server, and by the page after its garbage is collected."""

    server_mb: float
    heap_mb: float
    nodes: int
    listeners: int
    elements: int


@dataclass(frozen=True)
class Figures:
    """What a run of the page has shown; delays are from `published_at` to the painted frame."""

    seconds: float
    delays_ms: tuple[float, ...]
    superseded: int
    first_skeleton_ms: float
    server_share: float
    before: Memory
    after: Memory
    transferred: int
    foreign: tuple[str, ...]

    @property
    def p95_ms(self) -> float:
        """The 95th percentile of the delays."""
        return statistics.quantiles(self.delays_ms, n=20)[-1]


class Publisher(Resource):
    """Publishes states once, then pose messages and events in a thread."""

    def __init__(self, broker: Mosquitto) -> None:
        self._broker = broker
        self._listener = broker.listener("nothing")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        # As a daemon does: a small message would otherwise wait for the delayed acknowledgement of
        # the one before it.
        sock: Any = self._listener.client.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def open(self) -> None:
        self._publish("info", {"version": "1.2.3", "zones": {}}, retain=True)
        for camera in CAMERAS:
            for name, payload in (("status", "online"), ("enabled", "ON"), ("count", "3")):
                topic = f"edgepose/gym/{camera}/{name}"
                self._listener.client.publish(topic, payload, 1, retain=True)
        self._listener.client.publish("edgepose/gym/availability", "online", 1, retain=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        step, due_s = 0, time.monotonic()
        while not self._stop.is_set():
            sequence, index = divmod(step, len(CAMERAS))
            camera = CAMERAS[index]
            message = pose_message(camera, sequence, _poses(sequence))
            self._publish(f"{camera}/poses", message)
            if sequence % EVENT_EVERY == 0:
                event = {"type": "enter", "track_id": sequence, "time": message["published_at"]}
                self._publish(f"{camera}/event", event)
            step += 1
            due_s += 1 / RATE / len(CAMERAS)
            time.sleep(max(0.0, due_s - time.monotonic()))

    def _publish(self, name: str, message: dict[str, Any], *, retain: bool = False) -> None:
        payload = json.dumps(message)
        self._listener.client.publish(f"edgepose/gym/{name}", payload, int(retain), retain)


def _poses(sequence: int) -> list[dict[str, Any]]:
    """Return three persons: one lies, one walks to and fro, and one is another every minute."""
    step = abs(sequence % 120 - 60)
    walker = turned(standing(200 + 5 * step, 430), 4 * np.sin(sequence / 2))
    passer = standing(600 - 3 * step, 300)
    return [
        pose(1, lying(60, 350), "lying"),
        pose(2, walker, "standing"),
        pose(3 + sequence // (60 * RATE), passer, "standing"),
    ]


def measure(seconds: float) -> Figures:
    """Run the page under load for so long, after it is opened in a new browser."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Mosquitto(Path(folder)) as broker,
        Page(broker) as page,
        Publisher(broker),
        Browser() as browser,
    ):
        browser.before_every_page(_OBSERVER)
        wait_for(lambda: page.get("healthz").read() == b"ok", "the page")
        browser.driver.get(page.address)
        for camera in CAMERAS:
            browser.find(f".camera[data-camera={camera}][data-poses='3']")
        requests = browser.requests()
        first_ms = browser.run("return observed.firstSkeletonMs")
        time.sleep(WARM_UP * seconds)
        before, cpu_s, began_s = _memory(page, browser), cpu_seconds(page.pid), time.monotonic()
        time.sleep((1 - WARM_UP) * seconds)
        elapsed_s = time.monotonic() - began_s
        observed = browser.run("return observed")
        share = (cpu_seconds(page.pid) - cpu_s) / elapsed_s
        assert browser.errors() == []
        return Figures(
            seconds=elapsed_s,
            delays_ms=tuple(observed["delays"]),
            superseded=observed["superseded"],
            first_skeleton_ms=first_ms,
            server_share=share,
            before=before,
            after=_memory(page, browser),
            transferred=sum(requests.values()),
            foreign=tuple(
                name
                for name in requests
                if urlsplit(name).scheme != "data" and not name.startswith(page.address)
            ),
        )


def _memory(page: Page, browser: Browser) -> Memory:
    # Without what the observer itself collects.
    browser.run("observed.delays.length = observed.superseded = 0")
    counters = browser.held()
    return Memory(
        server_mb=rss_mb(page.pid),
        heap_mb=counters["heap_bytes"] / 1e6,
        nodes=counters["nodes"],
        listeners=counters["listeners"],
        elements=browser.run("return document.querySelectorAll('*').length"),
    )


def main(seconds: float) -> int:
    """Print every figure beside what it may be at most; return 1 if one is above it."""
    load = os.getloadavg()[0]
    found = measure(seconds)
    before, after = found.before, found.after
    rows = (
        ("message to drawn, 95th percentile", found.p95_ms, 50, "ms"),
        ("first skeleton after opening", found.first_skeleton_ms, 1000, "ms"),
        ("server, of one processor core", 100 * found.server_share, 20, "%"),
        (
            "transferred before the first message",
            found.transferred / 1e3,
            MAX_TRANSFERRED / 1e3,
            "kB",
        ),
        ("growth of the server", after.server_mb - before.server_mb, MAX_GROWTH_MB, "MB"),
        ("growth of the page's heap", after.heap_mb - before.heap_mb, MAX_GROWTH_MB, "MB"),
        ("growth of the page's nodes", after.nodes - before.nodes, MAX_NODES, ""),
        ("growth of the page's listeners", after.listeners - before.listeners, 0, ""),
        ("requests to another host", len(found.foreign), 0, ""),
    )
    count, middle = len(found.delays_ms), statistics.median(found.delays_ms)
    lines = [
        *(
            f"{name:38} {value:8.1f} {unit:2} (at most {limit:g})"
            for name, value, limit, unit in rows
        ),
        f"{count} messages drawn in {found.seconds:.0f} s, {found.superseded} with a newer one",
        f"message to drawn, median {middle:23.1f} ms",
        f"load of the machine {load:.1f}, then {os.getloadavg()[0]:.1f}",
        *(repr(memory) for memory in (before, after)),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(any(value > limit for _, value, limit, _ in rows))


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 600.0))
