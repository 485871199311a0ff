"""A broker, an observer and a real daemon with two cameras, and the expected messages.

The camera `main` always shows a person, so poses should never cease; at the camera `door` a person
appears or vanishes every 1.2 s, so events are always due. The daemon's own pose messages are read
from its stdout, which no broker can lose.
"""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgepose import messages
from edgepose.datatypes import Image
from edgepose.mqtt.topics import Topics
from edgepose.sources.synthetic import SyntheticSource
from tests.chaos import judge
from tests.chaos.daemon_run import LEAVE_DELAY_S, WATCHDOG_S, DaemonRun, Line
from tests.chaos.judge import Row
from tests.chaos.observer import Observer, WaitTimeoutError, retained, wait
from tests.chaos.registry import UnavailableError
from tests.edgetpu import FakeEdgeTpu
from tests.media import write_video
from tests.mosquitto import Mosquitto
from tests.resource import Resource

TOPICS: Final = Topics(node="chaos")
CLIENT_ID: Final = "chaos-node"
MODEL: Final = "movenet-lightning-int8"
SIZE_WH: Final = (320, 240)
MAIN_FPS: Final = 20
DOOR_FPS: Final = 10
SYNTHETIC: Final = f"synthetic:?width={SIZE_WH[0]}&height={SIZE_WH[1]}&fps={{}}"
PRESENT_FRAMES: Final = 12
"""Number of frames with a person at the door, then of empty ones."""
OBSERVER_LOGIN: Final = ("observer", "observes")
NAMESPACE_VARIABLE: Final = "EDGEPOSE_CHAOS_NAMESPACE"
"""Set in the environment of a process with its own network and mount namespaces."""
_RELOADING: Final = "Reloading config."
_BACKGROUND: Final = 90
_BUILDING: Final = threading.Lock()


def door_images(visits: int) -> Iterator[Image]:
    """Yield the frames of the camera at the door for a number of visits."""
    empty: Image = np.full((SIZE_WH[1], SIZE_WH[0], 3), _BACKGROUND, np.uint8)
    count = visits * 2 * PRESENT_FRAMES
    source = SyntheticSource(size_wh=SIZE_WH, fps=DOOR_FPS, live=False)
    for frame in itertools.islice(source.frames(), count):
        yield empty if frame.sequence // PRESENT_FRAMES % 2 else frame.image


class Broker(Mosquitto):
    """A mosquitto that may keep its state over a restart, and may require passwords.

    `own_network` starts it in a new network namespace, on all addresses there. `settings` are
    further lines of its configuration.
    """

    def __init__(
        self,
        folder: Path,
        *,
        persistent: bool = False,
        password: bool = False,
        own_network: bool = False,
        settings: Sequence[str] = (),
    ) -> None:
        folder.mkdir()
        super().__init__(folder, password=password)
        self._folder = folder
        self._own_network = own_network
        text = self._config.read_text()
        if persistent:
            text = text.replace(
                "persistence false",
                f"persistence true\npersistence_location {folder}/\n"
                "autosave_on_changes true\nautosave_interval 1",
            )
        if own_network:
            text = text.replace(" 127.0.0.1\n", " 0.0.0.0\n")
        self._config.write_text("\n".join((text.rstrip(), *settings, "")))
        if password:
            self.set_password(*OBSERVER_LOGIN)

    @property
    def process_id(self) -> int:
        """Its process id, also the way into its network namespace."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start; in its own network namespace without waiting until it listens."""
        if not self._own_network:
            super().start()
            return
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "--net", "--", self._program, "-c", str(self._config)],
                stdout=log,
                stderr=log,
            )

    def set_password(self, user: str, password: str) -> None:
        """Change a user's password; in effect after `reload` or a start."""
        passwords = self._folder / f"passwords-{self.port}"
        subprocess.run(
            ["mosquitto_passwd", "-b", str(passwords), user, password],
            check=True,
            capture_output=True,
        )

    def reload(self) -> None:
        """Read passwords again, and end the connections of users whose password changed.

        Wait until that begins: mosquitto 2.0.11 ends the connection of a client that left shortly
        before, and has a session, once more, and crashes when later ones leave (a use after free in
        session_expiry__add).
        """
        count = self._log.read_text().count(_RELOADING)
        os.kill(self.process_id, signal.SIGHUP)
        wait(lambda: self._log.read_text().count(_RELOADING) > count, "the broker to reload")


class Rig(Resource):
    """The parts of a fault test; inside `with`, poses of both cameras reach the observer.

    `tpu` adds a fake Edge TPU, `no_fallback` removes the CPU file of its model. `host` and `port`
    are the daemon's address of the broker, by default the real one. `more_cameras` stand beside the
    two, `settings` are further sections of the configuration.
    """

    def __init__(
        self,
        folder: Path,
        broker: Broker | None = None,
        *,
        tpu: bool = False,
        no_fallback: bool = False,
        host: str = "127.0.0.1",
        port: int | None = None,
        observer_host: str = "127.0.0.1",
        main: str = SYNTHETIC.format(MAIN_FPS),
        door_options: str = "loop=1&realtime=1",
        more_cameras: Sequence[Mapping[str, Any]] = (),
        settings: Mapping[str, Any] | None = None,
        mqtt: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        user: tuple[str, str] | None = None,
        stderr: int | None = None,
    ) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.broker = broker or Broker(folder / "broker")
        self.runs: list[DaemonRun] = []
        self.fake_edgetpu: FakeEdgeTpu | None = None
        self._environment = dict(environment or {})
        self._observer_host, self._user = observer_host, user
        self._stderr = stderr
        self._stack = contextlib.ExitStack()
        model, self.device = MODEL, "cpu"
        if tpu:
            # Built once for all faults, by one thread.
            with _BUILDING:
                self.fake_edgetpu = FakeEdgeTpu(folder / "edgetpu")
                path = self.fake_edgetpu.compiled_model(MODEL)
            if no_fallback:
                path.with_name(f"{MODEL}.tflite").unlink()
            model, self.device = str(path), "edgetpu"
            self._environment |= self.fake_edgetpu.environment()
        door = folder / "door.avi"
        write_video(door, door_images(4), DOOR_FPS)
        self.config: dict[str, Any] = {
            "node": "chaos",
            "cameras": [
                {"name": "main", "source": main},
                {"name": "door", "source": f"{door}?{door_options}"},
                *more_cameras,
            ],
            "model": {"name": model},
            "accelerator": "auto",
            "presence": {"on_delay_ms": 0, "off_delay_ms": round(LEAVE_DELAY_S * 1000)},
            "tracking": {"max_age_ms": round(LEAVE_DELAY_S * 1000)},
            "mqtt": {
                "url": f"mqtt://{host}:{port or self.broker.port}",
                "client_id": CLIENT_ID,
                **(mqtt or {}),
            },
            "output": {"ndjson": True},
            "stats_interval_s": 1,
            "state_directory": str(self.state),
            **(settings or {}),
        }
        self.write_config(json.dumps(self.config))

    def open(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.broker)
            self.connect()
            stack.enter_context(self.observe())
            stack.callback(self._kill_all)
            self.start()
            self.wait_until_publishing()
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def connect(self) -> None:
        """Set up the network to the broker; nothing to do on this machine's own."""

    def observe(self) -> Observer:
        """Return a new observer, kept as `observer`."""
        self.observer = Observer(self._observer_host, self.broker.port, user=self._user)
        return self.observer

    def write_config(self, text: str) -> None:
        """Write the configuration file."""
        (self.folder / "config.yaml").write_text(text)

    def start(self) -> DaemonRun:
        """Start the daemon, kept as `daemon`."""
        self.daemon = DaemonRun(self.folder, self._environment, stderr=self._stderr)
        self.runs.append(self.daemon)
        return self.daemon

    def wait_until_publishing(self) -> None:
        """Wait for poses of both cameras from the expected device."""
        now_s = time.monotonic()
        for camera in ("main", "door"):
            self.next_pose(now_s, device=self.device, camera=camera)

    def next_pose(
        self,
        after_s: float,
        *,
        device: str | None = None,
        camera: str = "main",
        patience_s: float = 25.0,
    ) -> float:
        """Return the arrival of the first message with poses that was published after `after_s`."""

        def matches(payload: bytes) -> bool:
            message = messages.decode(payload)
            if not message.poses or device not in (None, message.accelerator):
                return False
            # One that was waiting in a socket does not count.
            age_s = time.time() - datetime.fromisoformat(message.published_at).timestamp()
            return time.monotonic() - age_s >= after_s

        return self.observer.wait_for(
            TOPICS.poses(camera), matches, after_s=after_s, patience_s=patience_s
        ).at_s

    def longest_gap_s(self, since_s: float) -> float:
        """Return the longest time until now without a pose message of the main camera."""
        topic = TOPICS.poses("main")
        times = [a.at_s for a in list(self.observer.arrivals) if a.topic == topic]
        times = [since_s, *(at_s for at_s in times if at_s > since_s), time.monotonic()]
        return max(b - a for a, b in itertools.pairwise(times))

    def switch(self, camera: str, payload: bytes) -> float:
        """Switch a camera ON or OFF by MQTT, and return how many seconds that took."""
        asked_s = time.monotonic()
        self.broker.publish(TOPICS.command(camera, "enabled"), payload)
        status = b"online" if payload == b"ON" else b"offline"
        self.observer.wait_for(TOPICS.enabled(camera), payload.__eq__, after_s=asked_s)
        self.observer.wait_for(TOPICS.status(camera), status.__eq__, after_s=asked_s)
        return time.monotonic() - asked_s

    def evaluate(self, row: Row, *, degraded: bool = False, without: Collection[str] = ()) -> Row:
        """Check the states, stop the daemon, count the lost messages and judge the row.

        The topics `without` a state are those that the fault does not allow.
        """
        daemon = self.daemon
        row.survived = row.survived and daemon.alive
        if daemon.alive:
            running = self._running_states(degraded)
            self._check_states(row, {t: running[t] for t in running if t not in without})
            # One more visit must be reported correctly after the fault.
            try:
                self._wait_for_visit()
            except WaitTimeoutError as error:
                row.states_lost += 1
                row.failures.append(str(error))
            code = daemon.stop()
            if code != 0:
                row.survived = False
                row.failures.append(f"exit code {code} at the end")
            self._check_states(row, self._final_states())
        for each in self.runs:
            if "Traceback" in each.log:
                row.survived = False
                row.failures.append("a traceback in the log")
            if each.watchdog_gap_s > WATCHDOG_S:
                row.survived = False
                row.failures.append(
                    f"no watchdog ping for {each.watchdog_gap_s:.1f} s: systemd would have "
                    "killed the daemon"
                )
        self._count(row)
        row.judge()
        return row

    def _running_states(self, degraded: bool) -> dict[str, bytes | Mapping[str, object]]:
        states: dict[str, bytes | Mapping[str, object]] = {
            TOPICS.availability: b"online",
            TOPICS.info: {"node": "chaos"},
            TOPICS.accelerator: {"device": self.device, "degraded": degraded},
            TOPICS.presence("main"): b"ON",
            TOPICS.count("main"): b"1",
        }
        for camera in ("main", "door"):
            states[TOPICS.status(camera)] = b"online"
            states[TOPICS.enabled(camera)] = b"ON"
        return states

    def _final_states(self) -> dict[str, bytes | Mapping[str, object]]:
        states: dict[str, bytes | Mapping[str, object]] = {TOPICS.availability: b"offline"}
        for camera in ("main", "door"):
            states[TOPICS.status(camera)] = b"offline"
            states[TOPICS.enabled(camera)] = b"ON"
            states[TOPICS.presence(camera)] = b"OFF"
            states[TOPICS.count(camera)] = b"0"
        return states

    def _check_states(self, row: Row, expected: Mapping[str, bytes | Mapping[str, object]]) -> None:
        """Compare the retained messages with the expected states, for up to 5 s."""
        wrong: list[str] = []

        def all_right() -> bool:
            nonlocal wrong
            wrong = judge.wrong_states(expected, self.retained())
            return not wrong

        try:
            wait(all_right, "the states to be right", 5.0)
        except WaitTimeoutError:
            row.states_lost += len(wrong)
            row.failures += wrong

    def retained(self) -> dict[str, bytes]:
        """Return the retained messages of the broker."""
        return retained(self._observer_host, self.broker.port, self._user)

    def _wait_for_visit(self) -> None:
        """Wait until presence at the door was published as ON and as OFF."""
        topic, count = TOPICS.presence("door"), len(self.observer.arrivals)
        wait(
            lambda: (
                len({a.payload for a in self.observer.arrivals[count:] if a.topic == topic}) == 2
            ),
            "presence at the door",
            8.0,
        )

    def _count(self, row: Row) -> None:
        self.observer.drain()
        for run in self.runs:
            if not run.complete:
                run.lines[:] = self._received_lines()
        made = [line.text for run in self.runs for line in run.lines]
        poses = [*map(TOPICS.poses, ("main", "door"))]
        arrived = [a.payload for a in self.observer.arrivals if a.topic in poses]
        row.poses_lost = judge.lost_poses(made, arrived)
        for camera in ("main", "door"):
            expected = [event for run in self.runs for event in run.expected_events(camera)]
            received = judge.arrivals(self.observer.payloads(TOPICS.event(camera)))
            lost, unexplained = judge.lost_events(expected, received)
            row.events += len(expected)
            row.events_lost += len(lost)
            if lost:
                names = ", ".join(f"{event.kind} {event.track_id}" for event in lost[:10])
                row.remarks.append(f"{camera}: lost {names}; expected {len(expected)}")
            if unexplained:
                row.remarks.append(
                    f"{camera}: {unexplained} events without a matching pose message"
                )

    def _received_lines(self) -> list[Line]:
        """Return the pose messages that arrived at the observer."""
        topics = [*map(TOPICS.poses, ("main", "door"))]
        return [
            Line(a.at_s, a.payload, messages.decode(a.payload))
            for a in self.observer.arrivals
            if a.topic in topics
        ]

    def _kill_all(self) -> None:
        for run in self.runs:
            if run.alive:
                run.kill()


def is_installed(name: str) -> bool:
    """Return whether a program is installed."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def run(*command: str) -> None:
    """Run a program that must succeed."""
    subprocess.run(command, check=True, capture_output=True, text=True)


def preloaded(folder: Path, name: str) -> dict[str, str]:
    """Compile a library of this folder and return the environment in which it is preloaded."""
    compiler = shutil.which("gcc")
    if compiler is None:
        raise UnavailableError("needs gcc")
    library, source = folder / f"{name}.so", Path(__file__).with_name(f"{name}.c")
    run(compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl")
    return {"LD_PRELOAD": str(library)}


def has_own_network() -> bool:
    """Return whether this process has its own network and mount namespaces."""
    return NAMESPACE_VARIABLE in os.environ and all(map(is_installed, ("ip", "nsenter", "unshare")))
