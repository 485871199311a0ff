"""A real Home Assistant and a real mosquitto in a network of their own; needs root.

The first run makes a Debian with Home Assistant in the user's cache (1.7 GB, some minutes).
"""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from tests.chroot import MIRROR, TEST_FOLDER, Chroot, cached, environment

HERE: Final = Path(__file__).parent
# Of each Debian the last release that runs with its Python.
RELEASES: Final = {"testing": "2026.11.0", "trixie": "2026.2.3"}
PACKAGES: Final = "python3,python3-venv,python3-dev,gcc,g++,libc6-dev,libturbojpeg0,ca-certificates"
PYTHON: Final = "/opt/hass/bin/python"
PORT: Final = 1883
ADDRESS: Final = f"mqtt://127.0.0.1:{PORT}"

CONFIGURATION: Final = """\
homeassistant: {name: Test, latitude: 52, longitude: 5, elevation: 0, unit_system: metric,
  time_zone: UTC, currency: EUR, country: NL, internal_url: "http://127.0.0.1:8123"}
http: {server_host: 127.0.0.1}
api:
logger: {default: info}
"""
# Logged however well a device behaves, and without the broker.
_NOISE: Final = re.compile(
    r"ffmpeg|Skipping pip|any enabled IPv4|mqtt\.client\]|failed to receive on socket"
)
# Mistakes of a device that are only logged at INFO.
_MISTAKES: Final = re.compile(r"No matching payload found|needs to include a name")
_RECORD: Final = re.compile(r"^\S+ \S+ ([A-Z]+) \(\S+\) (\[\S+\] [\s\S]*)")
# Without a route for mDNS, whole parts of Home Assistant do not load.
_NETWORK: Final = (
    "ip link set lo multicast on up && ip route add 224.0.0.0/4 dev lo && exec sleep infinity"
)

T = TypeVar("T")


def prepared(suite: str) -> Chroot:
    """Return a Debian with Home Assistant, built first if there is none."""
    recipe = f"1 {suite} {RELEASES[suite]} {PACKAGES}"

    def make(fresh: Path) -> None:
        fresh.mkdir()
        chroot = Chroot(fresh, HERE)
        with fresh.with_suffix(".log").open("w") as log:
            subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, fresh, MIRROR],
                check=True,
                stdout=log,
                stderr=log,
                env=environment(),
            )
            chroot.furnish()
            pip = (PYTHON, "-m", "pip", "install", "--quiet")
            chroot.run("python3", "-m", "venv", "/opt/hass", log=log)
            chroot.run(*pip, f"homeassistant=={RELEASES[suite]}", log=log)
            needed = subprocess.run(
                chroot.command((PYTHON, f"{TEST_FOLDER}/inside.py", "requirements"), HERE),
                check=True,
                text=True,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(),
            ).stdout
            (fresh / "srv/requirements.txt").write_text(needed)
            pattern = "opt/hass/lib/*/site-packages/homeassistant/package_constraints.txt"
            (limits,) = fresh.glob(pattern)
            limits = "/" / limits.relative_to(fresh)
            chroot.run(*pip, "-r", "/srv/requirements.txt", "-c", str(limits), log=log)

    what = f"Home Assistant {RELEASES[suite]} (1.7 GB, some minutes)"
    return Chroot(cached(f"homeassistant-{suite}", recipe, what, make), HERE)


def until(condition: Callable[[], T], what: str, seconds: float = 120) -> T:
    """Return what `condition` returns, once that is true."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.1)
    return result


class Home:
    """Both of them, which `with` starts and ends; logs and what they store go into `folder`."""

    def __init__(self, folder: Path, suite: str) -> None:
        self._folder, self._chroot = folder, prepared(suite)
        self._network, self._token, self._seen = "", "", 0
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        (self._folder / "db").mkdir(parents=True)
        (self._folder / "configuration.yaml").write_text(CONFIGURATION)
        (self._folder / "mosquitto.conf").write_text(
            f"listener {PORT} 127.0.0.1\nallow_anonymous true\nuser root\nlog_type all\n"
            f"persistence true\npersistence_location {self._folder}/db/\nautosave_interval 2\n"
        )
        try:
            network = self._start("network", "unshare", "--net", "sh", "-euc", _NETWORK)
            self._network = f"/proc/{network.pid}/ns/net"
            # Until then it is that of this machine, which has a route too.
            own = Path("/proc/self/ns/net").readlink()
            until(lambda: Path(self._network).readlink() != own, "a network of its own")
            route = self.command("ip", "route", "get", "224.0.0.251")
            until(lambda: not subprocess.run(route, capture_output=True).returncode, "a network")
            self.start_broker()
            self._start_hass()
            self._token = until(lambda: self._answer("onboard"), "the page of Home Assistant")
            self.ask("add_mqtt", str(PORT))
            self._until_ready(0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("hass", "broker", "network"):
            self._end(name)

    def command(self, *words: str) -> list[str]:
        """Return the command that runs `words` beside the broker, as the very process started."""
        return ["nsenter", f"--net={self._network}", "--", *words]

    def publish(self, topic: str, payload: str) -> None:
        """Publish a retained message as another client; an empty one clears the topic."""
        message = ("-m", payload) if payload else ("-n",)
        words = ("mosquitto_pub", "-r", "-q", "1", "-t", topic, *message)
        subprocess.run(self.command(*words), check=True)

    def ask(self, what: str, *words: str) -> Any:
        """Return what a function of inside.py returns."""
        script = (HERE / "inside.py").read_text()
        done = subprocess.run(
            self._inside(what, *words), input=script, env=environment(), text=True,
            capture_output=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{what} {words}: {done.stderr[-2000:]}")
        return json.loads(done.stdout)

    def entities(self, prefix: str = "edgepose/") -> dict[str, dict[str, Any]]:
        """Return what a user sees of each MQTT entity whose unique id begins so, by entity id."""
        return {row["entity_id"]: row for row in self.ask("entities", prefix)}

    def states(self) -> dict[str, str | None]:
        """Return the state of each entity; None of one that is disabled."""
        return {entity: row["state"] for entity, row in self.entities().items()}

    def wait(self, entity_id: str, state: str, seconds: float = 40) -> list[str]:
        """Return the states it went through until this one.

        `absent` is no such entity, `restored` one that no discovery has named since the start.
        """
        seen: list[str] = self.ask("wait", entity_id, state, str(seconds))
        assert seen[-1] == state, f"{entity_id}: waited {seconds:g} s for {state}, saw {seen}"
        return seen

    @contextmanager
    def stream(self, entity_id: str) -> Iterator[list[str]]:
        """Yield a list that has every state of an entity in between, once this ends."""
        states: list[str] = []
        with subprocess.Popen(
            self._inside("stream", entity_id),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write((HERE / "inside.py").read_text())
            process.stdin.close()
            states.append(json.loads(process.stdout.readline()))
            try:
                yield states
            finally:
                # Also after a failure: it would be waited for.
                process.terminate()
            states += map(json.loads, process.stdout)

    def call(self, action: str, entity_id: str, **data: object) -> None:
        """Do with an entity what a user would, such as `switch.turn_off`."""
        self.ask("call", action, entity_id, json.dumps(data))

    def mark(self) -> None:
        """Forget the warnings until now."""
        self._seen = self._log("hass").stat().st_size

    def warnings(self) -> list[str]:
        """Return the warnings since `mark`, and what the user is asked to repair."""
        text = self._log("hass").read_bytes()[self._seen :].decode("utf-8", "replace")
        found = []
        for record in re.split(r"\n(?=\d{4}-\d\d-\d\d )", text):
            match = _RECORD.match(record)
            if match is None or _NOISE.search(match[2]):
                continue
            if match[1] not in ("DEBUG", "INFO") or _MISTAKES.search(match[2]):
                found.append(f"{match[1]} {match[2].strip()}")
        issues = self.ask("ws", "repairs/list_issues")["issues"]
        # Of how it is installed here.
        own = ("homeassistant", "http")
        return found + [f"REPAIR {json.dumps(one)}" for one in issues if one["domain"] not in own]

    def restart(self, number: int = signal.SIGTERM) -> None:
        """End Home Assistant by a signal and start it again."""
        logged = self._log("broker").stat().st_size
        self._end("hass", number)
        self._start_hass()
        self._until_ready(logged)

    def start_broker(self) -> None:
        """Start mosquitto, with what it knows."""
        self._start("broker", *self.command("mosquitto", "-c", f"{self._folder}/mosquitto.conf"))

    def replace_broker(self) -> None:
        """Kill mosquitto, start one that has nothing retained, and wait for Home Assistant."""
        logged = self._log("broker").stat().st_size
        self._end("broker", signal.SIGKILL)
        (self._folder / "db/mosquitto.db").unlink(missing_ok=True)
        self.start_broker()
        self._until_born(logged)

    def _inside(self, what: str, *words: str) -> list[str]:
        token = (self._token,) if self._token else ()
        return self.command("chroot", str(self._chroot.root), PYTHON, "-", what, *token, *words)

    def _start_hass(self) -> None:
        words = ("/opt/hass/bin/hass", "-c", TEST_FOLDER, "--skip-pip", "--log-no-color")
        self._start("hass", *self.command(*self._chroot.command(words, self._folder)))

    def _until_ready(self, logged: int) -> None:
        def runs() -> bool:
            return (self._answer("ws", "get_config") or {}).get("state") == "RUNNING"

        until(runs, "Home Assistant to run")
        self.ask("confirm")
        self._until_born(logged)

    def _until_born(self, logged: int) -> None:
        log, birth = self._log("broker"), re.compile(rb"PUBLISH from .*'homeassistant/status'")
        until(lambda: birth.search(log.read_bytes(), logged), "the birth message")

    def _answer(self, *words: str) -> Any:
        assert self._processes["hass"].poll() is None, self._log("hass").read_text()[-2000:]
        try:
            return self.ask(*words)
        except RuntimeError:
            return None

    def _start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        # None outlives a test that is killed.
        words = ("setpriv", "--pdeathsig", "KILL", *words)
        with self._log(name).open("ab") as log:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )
        self._processes[name] = process
        return process

    def _end(self, name: str, number: int = signal.SIGTERM) -> None:
        if process := self._processes.pop(name, None):
            process.send_signal(number)
            process.wait(60)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"
