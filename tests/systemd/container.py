"""A Debian container with systemd as PID 1, in which edgepose is installed.

Its image is built once, in a folder of `~/.cache/edgepose-tests`. A container is booted on top of
it and keeps no changes. Inside there is no network but loopback: apt and pip install from folders.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import IO, Final

from tests.chroot import MIRROR, cached
from tests.mosquitto import wait_for
from tests.processes import children
from tests.requirements import missing
from tests.resource import Resource

ROOT: Final = Path(__file__).parents[2]
CGROUPS: Final = Path("/sys/fs/cgroup")
PACKAGES: Final = (
    *("systemd-sysv", "udev", "procps", "sudo", "make", "python3", "python3-venv"),
    *("mosquitto", "mosquitto-clients"),
)
# Removed after the wheels are downloaded, so that `make install` installs it with apt.
INSTALLED_BY_MAKE: Final = ("python3-venv", "python3.*-venv", "python3-*-whl")
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
BOOT_PATIENCE_S: Final = 60.0
RECIPE: Final = 2
"""Increased when the build changes, so that older images are not used."""


class Image:
    """The image of a Debian suite in a folder of the cache, built if it is missing."""

    def __init__(self, suite: str) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        self._suite = suite
        self._requirements = (
            *project["project"]["dependencies"],
            *project["build-system"]["requires"],
        )

    def make(self) -> Path:
        """Return the folder; building it takes a minute and the network."""
        name = f"systemd-{self._suite}-{os.uname().machine}"
        recipe = json.dumps([RECIPE, PACKAGES, self._requirements])
        return cached(name, recipe, f"a Debian {self._suite} with systemd", self._build)

    def _build(self, root: Path) -> None:
        include = ",".join(PACKAGES)
        _run(
            *("debootstrap", "--variant=minbase", f"--include={include}"),
            *(self._suite, str(root), MIRROR),
        )
        debs = root / "srv/debs"
        wheels = root / "srv/wheels"
        debs.mkdir()
        wheels.mkdir()
        self._download_wheels(root)
        for pattern in INSTALLED_BY_MAKE:
            for deb in (root / "var/cache/apt/archives").glob(f"{pattern}_*.deb"):
                shutil.move(deb, debs)
        names = [_run("dpkg-deb", "-f", str(deb), "Package").strip() for deb in debs.iterdir()]
        _run("chroot", str(root), "dpkg", "--purge", *names)
        shutil.rmtree(root / "var/cache/apt/archives")
        _make_fake_picamera2(debs)
        _write_index(debs)
        (root / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/srv/debs ./\n")
        (root / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /srv/wheels\n")

    def _download_wheels(self, root: Path) -> None:
        # pip needs the same settings as outside.
        for path in ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf"):
            if Path(path).exists():
                shutil.copy(path, root / path[1:])
        (root / "srv/requirements.txt").write_text("\n".join(self._requirements))
        environment = dict(ENVIRONMENT)
        for name, value in os.environ.items():
            if name.lower().endswith("_proxy") or name == "PIP_INDEX_URL":
                environment[name] = value
        certificates = Path("/etc/ssl/certs/ca-certificates.crt")
        if certificates.exists():
            shutil.copy(certificates, root / "srv/certificates.crt")
            environment["PIP_CERT"] = "/srv/certificates.crt"
        python = "/srv/download/bin/python"
        _run("chroot", str(root), "python3", "-m", "venv", "/srv/download")
        _run(
            *("chroot", str(root), "env", "-i"),
            *(f"{name}={value}" for name, value in environment.items()),
            *(python, "-m", "pip", "download", "-q", "-d", "/srv/wheels"),
            *("-r", "/srv/requirements.txt"),
        )
        shutil.rmtree(root / "srv/download")
        (root / "etc/resolv.conf").unlink(missing_ok=True)
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n")


class Container(Resource):
    """A booted image, from `open` to `close`.

    Inside, the checkout is /srv/checkout, read-only, and the folder `share` is /srv/share.
    """

    def __init__(self, image: Path, checkout: Path, folder: Path) -> None:
        self._image = image
        self._checkout = checkout
        self._folder = folder
        self._log = folder / "console.log"
        self.share = folder / "share"
        self.share.mkdir()
        self._cgroup: Path | None = None
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def open(self) -> None:
        command = [
            *("systemd-nspawn", "--quiet", "--register=no", "--private-network"),
            *("--volatile=overlay", "--kill-signal=SIGRTMIN+3"),
            *(f"--bind-ro={self._checkout}:/srv/checkout", f"--bind={self.share}:/srv/share"),
            *("-D", str(self._image), "--boot"),
        ]
        unified = CGROUPS / "unified"
        parent = unified if unified.is_dir() else CGROUPS
        if unified.is_dir() or not Path("/run/systemd/system").is_dir():
            # Without systemd on the host there is no control group for it.
            command.insert(1, "--keep-unit")
            self._cgroup = parent / f"edgepose-test-{os.getpid()}-{self._folder.name}"
            self._cgroup.mkdir()
            enter = f'echo $$ > "{self._cgroup}/cgroup.procs" && exec "$@"'
            command = ["sh", "-c", enter, "sh", *command]
        with self._log.open("wb") as log:
            self._nspawn = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                start_new_session=True,
            )
        try:
            wait_for(self._is_up, "the container to boot", BOOT_PATIENCE_S)
        except BaseException:
            self._end()
            raise

    def close(self) -> None:
        self._end()

    def run(
        self, *command: str, stdin: str = "", check: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root; raise AssertionError with its output if it fails."""
        done = subprocess.run(
            self._inside(command), input=stdin, capture_output=True, text=True, timeout=timeout_s
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def output(self, *command: str) -> str:
        """Return the output of a command."""
        return self.run(*command).stdout.strip()

    def spawn(self, *command: str, stdout: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a command that runs inside until its stdin is closed."""
        # A signal would only reach nsenter.
        until_closed = ("sh", "-c", '"$@" & read -r _; kill $!', "sh", *command)
        return subprocess.Popen(
            self._inside(until_closed), stdin=subprocess.PIPE, stdout=stdout, stderr=stdout
        )

    def write(self, path: str, text: str) -> None:
        """Write a file; an existing one keeps its owner and mode."""
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && cat > "$1"', "sh", path, stdin=text)

    def read(self, path: str) -> str:
        """Return the text of a file."""
        return self.run("cat", path).stdout

    def exists(self, path: str) -> bool:
        """Return whether a file, folder or link exists."""
        return self.run("test", "-e", path, check=False).returncode == 0

    def property(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.output("systemctl", "show", "--value", "-p", name, unit)

    def journal(self, unit: str) -> str:
        """Return the journal of a unit."""
        return self.output("journalctl", "--no-pager", "-o", "cat", "-u", unit)

    def _inside(self, command: tuple[str, ...]) -> list[str]:
        return [
            *("nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "--"),
            *("env", "-i", *(f"{name}={value}" for name, value in ENVIRONMENT.items()), *command),
        ]

    def _is_up(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, self._log.read_text(errors="replace")
        for child in children(self._nspawn.pid):
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                self._leader = child
        if not self._leader:
            return False
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")

    def _end(self) -> None:
        if self._nspawn is not None:
            # systemd's signal for powering off.
            if self._leader:
                os.kill(self._leader, signal.SIGRTMIN + 4)
            try:
                self._nspawn.wait(20)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait()
            self._nspawn = None
        if self._cgroup is not None:
            for folder, _, _ in os.walk(self._cgroup, topdown=False):
                Path(folder).rmdir()
            self._cgroup = None


class Subscriber(Resource):
    """The messages that a mosquitto_sub inside receives, in order."""

    def __init__(self, container: Container, log: Path, *options: str) -> None:
        self._container = container
        self._log = log
        self._options = options

    def open(self) -> None:
        publish = ("mosquitto_pub", "-t", "subscriber", "-m", "ready", *self._options)
        # A broker that has just been started may not listen yet.
        wait_for(lambda: self._container.run(*publish, check=False).returncode == 0, "a broker", 20)
        command = ("mosquitto_sub", "-t", "#", "-q", "1", "-F", "%r %t %p", *self._options)
        with self._log.open("wb") as file:
            self._process = self._container.spawn(*command, stdout=file)

        def receives() -> bool:
            self._container.run(*publish)
            return bool(self.payloads("subscriber"))

        wait_for(receives, "the subscriber to be subscribed", 20)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def payloads(self, topic: str, *, retained: bool = True) -> list[str]:
        """Return the payloads of a topic, with or without retained ones."""
        found = []
        for line in self._log.read_text().splitlines():
            flag, _, rest = line.partition(" ")
            name, _, payload = rest.partition(" ")
            if name == topic and (retained or flag == "0"):
                found.append(payload)
        return found

    def wait_for(self, topic: str, payload: str | None = None, *, more_than: int = 0) -> str:
        """Wait for a message that is not retained, after the first `more_than`; return it."""

        def matching() -> list[str]:
            received = self.payloads(topic, retained=False)[more_than:]
            return [text for text in received if payload in (None, text)]

        wait_for(matching, f"{payload or 'a message'} on {topic}", 40)
        return matching()[0]


def require_container_tools() -> None:
    """Skip, or in CI fail, if no container can be booted."""
    if os.geteuid() != 0:
        missing("booting a container needs root: sudo make test-systemd")
    for program in ("debootstrap", "systemd-nspawn", "nsenter", "dpkg-deb"):
        if shutil.which(program) is None:
            missing(f"{program} is not installed; `make test-systemd` installs it")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        # Only the last lines: debootstrap writes hundreds.
        lines = (done.stdout + done.stderr).splitlines()[-20:]
        raise AssertionError(f"{command[0]} ended with {done.returncode}:\n" + "\n".join(lines))
    return done.stdout


def _make_fake_picamera2(debs: Path) -> None:
    """Build an empty package with the name of one that Raspberry Pi OS has and Debian has not."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        tree.chmod(0o755)
        module = tree / "usr/lib/python3/dist-packages/picamera2"
        module.mkdir(parents=True)
        (module / "__init__.py").write_text("")
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(
            "Package: python3-picamera2\nVersion: 0.3.1\nArchitecture: all\n"
            "Maintainer: tests <tests@example.org>\nDescription: a fake\n"
        )
        _run("dpkg-deb", "--build", "--root-owner-group", folder, str(debs))


def _write_index(debs: Path) -> None:
    entries = []
    for deb in sorted(debs.glob("*.deb")):
        content = deb.read_bytes()
        entries.append(
            _run("dpkg-deb", "-f", str(deb)).strip()
            + f"\nFilename: ./{deb.name}\nSize: {len(content)}\n"
            + f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
        )
    (debs / "Packages").write_text("\n".join(entries))
