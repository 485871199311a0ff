"""A machine on which edgepose is installed, for the tests of the service."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.mosquitto import wait_for
from tests.systemd.container import Container, Subscriber

CHECKOUT: Final = "/home/person/edgepose"
CONFIG: Final = "/etc/edgepose/config.yaml"
STATE: Final = "/var/lib/edgepose"
BASIC: Final = """
node: gym
cameras:
  - source: "synthetic:"
"""
# Folders in which the installation creates files; python3-venv from apt has none in these.
FOLDERS: Final = (
    "/etc",
    "/opt",
    "/usr/local",
    "/usr/lib/systemd",
    "/usr/lib/udev",
    "/var/lib/edgepose",
)
# The service's user is kept as long as its files are, and so are these entries.
USERS: Final = re.compile(r"/etc/(passwd|shadow|group|gshadow|subuid|subgid)-?")


class Machine:
    """A container with edgepose in it."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.before: frozenset[str] = frozenset()
        """The files before `make install`."""
        self.install_output = ""
        """The output of `make install`."""

    def make(self, target: str) -> str:
        """Run a target of the Makefile as a user with sudo and return its output."""
        done = self.container.run(
            *("runuser", "-u", "person", "--", "make", "-C", CHECKOUT, target), timeout_s=300
        )
        return done.stdout + done.stderr

    def files(self) -> frozenset[str]:
        """Return all files and folders in FOLDERS, without USERS."""
        found = self.container.run("find", *FOLDERS, "-xdev", check=False).stdout
        return frozenset(path for path in found.splitlines() if not USERS.fullmatch(path))

    @contextmanager
    def serving(
        self, log: Path, config: str = BASIC, unit: str = "edgepose", node: str = "gym"
    ) -> Iterator[Subscriber]:
        """Run a unit with a configuration and wait for poses; restore everything at the end."""
        container = self.container
        file = CONFIG if unit == "edgepose" else f"/etc/edgepose/{unit.partition('@')[2]}.yaml"
        previous = container.read(file) if container.exists(file) else None
        container.write(file, config)
        container.run("systemctl", "stop", unit)
        try:
            with Subscriber(container, log) as subscriber:
                container.run("systemctl", "start", unit)
                subscriber.wait_for(f"edgepose/{node}/main/poses")
                yield subscriber
        finally:
            container.run("systemctl", "stop", unit, check=False)
            container.run("systemctl", "reset-failed", unit, check=False)
            container.run("systemctl", "revert", unit, check=False)
            if previous is None:
                container.run("rm", file)
            else:
                container.write(file, previous)

    def drop_in(self, unit: str, text: str) -> None:
        """Change a unit as `systemctl edit` does; `serving` reverts it."""
        self.container.write(f"/etc/systemd/system/{unit}.service.d/test.conf", text)
        self.container.run("systemctl", "daemon-reload")

    def pid(self, unit: str = "edgepose") -> int:
        """Return the daemon's process id inside."""
        return int(self.container.property(unit, "MainPID"))

    def wait_for_restart(self, pid: int, unit: str = "edgepose", patience_s: float = 40) -> None:
        """Wait until the daemon is ready in a new process."""

        def is_restarted() -> bool:
            return (
                self.pid(unit) not in (0, pid)
                and self.container.property(unit, "ActiveState") == "active"
            )

        wait_for(is_restarted, f"{unit} to be started again", patience_s)

    def times_connected(self, node: str = "gym") -> int:
        """Return how often a node's client has connected to the broker."""
        log = self.container.read("/var/log/mosquitto/mosquitto.log")
        return len(re.findall(rf"New client connected .* as edgepose-{node} ", log))

    def processes(self) -> list[str]:
        """Return the ids of all processes of the service's user."""
        return self.container.run("pgrep", "-u", "edgepose", check=False).stdout.split()

    def libc(self) -> tuple[int, ...]:
        """Return the version of the C library inside."""
        return libc_of(self.container.output("getconf", "GNU_LIBC_VERSION"))

    def exposure(self, unit: str) -> float:
        """Return the exposure of a running unit by `systemd-analyze security`, 0 to 10."""
        text = self.container.output("systemd-analyze", "security", "--no-pager", unit)
        found = re.search(rf"Overall exposure level for {re.escape(unit)}.*: ([0-9.]+) ", text)
        assert found, text
        return float(found[1])


def libc_of(name: str | None) -> tuple[int, ...]:
    """Return a version such as (2, 36) from `glibc 2.36`."""
    assert name is not None
    return tuple(int(part) for part in name.split()[-1].split("."))
