"""A real daemon for a test: a process with a configuration, and its output."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.mosquitto import Listener, Mosquitto, wait_for

NODE = "edgepose/testnode"
CAMERA = f"{NODE}/main"


class Daemon:
    """`edgepose run` as a process, with its configuration in a folder.

    `redirections` are those of a shell, such as `2>&-`.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        config: str = "",
        node: str = "testnode",
        environment: Mapping[str, str] | None = None,
        redirections: str = "",
    ) -> None:
        self._folder = folder
        self._node = node
        path = self.configure(config)
        self.process = subprocess.Popen(
            [
                *("sh", "-c", f'exec "$@" {redirections}', "sh"),
                *(sys.executable, "-m", "edgepose", "run", "-c", str(path), *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"}
            | dict(environment or {}),
        )

    def configure(self, config: str) -> Path:
        """Write its configuration, at the start or for a reload, and return the file."""
        path = self._folder / "config.yaml"
        path.write_text(
            f"node: {self._node}\nstate_directory: {self._folder / 'state'}\nstats_interval_s: 1\n"
            f"{config}"
        )
        return path

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal and return exit code, stdout and stderr."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str, str]:
        """Wait for the end and return exit code, stdout and stderr."""
        stdout, stderr = self.process.communicate(timeout=60)
        return self.process.returncode, stdout, stderr


@contextmanager
def running(
    folder: Path,
    broker: Mosquitto,
    source: str = "synthetic:",
    *arguments: str,
    config: str = "",
    node: str = "testnode",
    environment: Mapping[str, str] | None = None,
    redirections: str = "",
) -> Iterator[Daemon]:
    """Run a daemon that publishes to a broker."""
    given = ("--source", source, "--mqtt", broker.url, *arguments)
    daemon = Daemon(
        folder,
        *given,
        config=config,
        node=node,
        environment=environment,
        redirections=redirections,
    )
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.end(signal.SIGKILL)


def last(listener: Listener, topic: str) -> bytes | None:
    """Return the newest payload of a topic."""
    payloads = listener.payloads(topic)
    return payloads[-1] if payloads else None


def wait_for_last(listener: Listener, topic: str, payload: bytes) -> None:
    """Wait until the newest payload of a topic is this one."""
    wait_for(lambda: last(listener, topic) == payload, f"{topic} to become {payload!r}")


def wait_for_more_poses(listener: Listener) -> None:
    """Wait for five more pose messages."""
    count = len(listener.payloads(f"{CAMERA}/poses"))
    wait_for(lambda: len(listener.payloads(f"{CAMERA}/poses")) > count + 5, "more poses")
