"""One run of the daemon: its process, log, notifications and pose messages."""

import itertools
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from edgepose import messages
from edgepose.messages import PoseMessage
from tests.chaos import judge
from tests.chaos.judge import ExpectedEvent, PoseRecord
from tests.chaos.observer import wait

LEAVE_DELAY_S: Final = 0.5
WATCHDOG_S: Final = 8.0
"""Shorter than the 20 s of the service."""
_count = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Line:
    """A pose message that the daemon wrote to stdout, and when."""

    at_s: float
    text: bytes
    message: PoseMessage


class DaemonRun:
    """One run of `edgepose run`, from its start to its end; its log is in `stderr`, if given."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], *, stderr: int | None = None
    ) -> None:
        number = next(_count)
        self.lines: list[Line] = []
        self.wall_clock_valid = True
        """Whether `captured_at` of the messages can be used: False if the clock was changed."""
        self.killed_at_s: float | None = None
        self.watchdog_gap_s = 0.0
        self._log = folder / f"daemon-{number}.log"
        address = f"edgepose-chaos-{os.getpid()}-{number}"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind("\0" + address)
        self._notify.settimeout(0.5)
        self._ready = 0
        self._may_read = threading.Event()
        self._may_read.set()
        self.complete = True
        """Whether `lines` has every pose message: False if its stdout was not read for a while."""
        with self._log.open("wb") as log:
            self.started_s = time.monotonic()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edgepose", "run", "-c", str(folder / "config.yaml")],
                stdout=subprocess.PIPE,
                stderr=log if stderr is None else stderr,
                env={
                    **os.environ,
                    **environment,
                    "NOTIFY_SOCKET": f"@{address}",
                    "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6)),
                },
            )
        self._threads = [
            threading.Thread(target=run, daemon=True)
            for run in (self._read, self._receive_notifications)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def log(self) -> str:
        """The log until now."""
        return self._log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether it notified systemd that it is ready."""
        return self._ready > 0

    def kill(self, number: int = signal.SIGKILL) -> float:
        """Kill it, as a power cut does or with another signal, and return when."""
        self.killed_at_s = time.monotonic()
        self.process.send_signal(number)
        self._finish()
        return self.killed_at_s

    def reload(self) -> float:
        """Reload its configuration as systemd does, and return how many seconds that took."""
        count, asked_s = self._ready, time.monotonic()
        self.process.send_signal(signal.SIGHUP)
        return wait(lambda: self._ready > count, "the end of the reload") - asked_s

    def stop_reading(self) -> None:
        """Leave its stdout unread until it is stopped."""
        self.complete = False
        self._may_read.clear()

    def stop(self) -> int:
        """Stop it with SIGTERM, as systemd does, and return its exit code."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._finish()
        return self.process.returncode

    def pose_records(self, camera: str) -> list[PoseRecord]:
        """Return the tracks in the pose messages of a camera."""
        day_s = time.time() - time.monotonic()
        found = []
        for line in list(self.lines):
            message = line.message
            if message.camera == camera:
                captured_s = datetime.fromisoformat(message.captured_at).timestamp() - day_s
                at_s = captured_s if self.wall_clock_valid else line.at_s
                ids = frozenset(pose.id for pose in message.poses)
                found.append(PoseRecord(at_s, ids, line.at_s))
        return found

    def expected_events(self, camera: str) -> list[ExpectedEvent]:
        """Return the expected events of a camera."""
        return judge.expected_events(
            self.pose_records(camera), leave_delay_s=LEAVE_DELAY_S, killed_at_s=self.killed_at_s
        )

    def wait_for_log(self, text: str, *, patience_s: float = 25.0) -> float:
        """Wait until it logs a text; return when."""
        return wait(lambda: text in self.log, f"{text!r} in the log", patience_s)

    def memory_kb(self) -> int:
        """Return its resident memory."""
        return self._status("VmRSS")

    def peak_memory_kb(self) -> int:
        """Return the most resident memory it had since it was last asked for."""
        peak_kb = self._status("VmHWM")
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return peak_kb

    def threads(self) -> int:
        """Return the number of its threads."""
        return self._status("Threads")

    def limit_descriptors(self, count: int) -> int:
        """Set how many descriptors it may have open, and return the previous limit."""
        kind = resource.RLIMIT_NOFILE
        previous, most = resource.prlimit(self.process.pid, kind)
        resource.prlimit(self.process.pid, kind, (count, most))
        return previous

    def _status(self, key: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(f"{key}:"))
        return int(line.split()[1])

    def _finish(self) -> None:
        self.process.wait()
        self._may_read.set()
        for thread in self._threads:
            thread.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._notify.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self._may_read.wait()
            # The last line of a killed process may be incomplete.
            if text.endswith(b"\n"):
                self.lines.append(Line(time.monotonic(), text[:-1], messages.decode(text)))

    def _receive_notifications(self) -> None:
        pinged_s = None
        while self.alive:
            try:
                notification = self._notify.recv(4096)
            except TimeoutError:
                notification = b""
            except OSError:
                return
            now_s = time.monotonic()
            assignments = notification.splitlines()
            self._ready += b"READY=1" in assignments
            if b"WATCHDOG=1" in assignments:
                pinged_s = now_s
            if pinged_s is not None:
                self.watchdog_gap_s = max(self.watchdog_gap_s, now_s - pinged_s)
