"""Faults of reloads, signals, secrets and of a second process beside the daemon."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgepose.mqtt.local_broker import free_port
from tests.chaos.judge import Row
from tests.chaos.machine_faults import fill, small_disk
from tests.chaos.observer import WaitTimeoutError, wait
from tests.chaos.proxy import TcpProxy
from tests.chaos.registry import UnavailableError, fault
from tests.chaos.rig import NAMESPACE_VARIABLE, OBSERVER_LOGIN, TOPICS, Broker, Rig
from tests.mosquitto import USERNAME, Certificates

_RELOADS: Final = 200
_WARM_UP: Final = 50
"""Reloads until memory is to be flat."""
_RELOAD_MEMORY_KB: Final = 2500
"""8000 reloads leave not one object more, and 1288 kB: of these 948 at once, for a table of Python.
A daemon of a model, without reloads, takes 708 kB more in 80 s, and 1688 in 300 s."""
_HANGUP_EVERY_S: Final = 0.005
_DEMO_PORT: Final = 1883
"""Where `edgepose demo` looks for a broker."""
_RUN: Final = (sys.executable, "-m", "edgepose", "run", "-c")
_SECOND_S: Final = 10.0


@fault("reload-switched-off", "Configuration: reloaded while a camera is switched off")
def _reload_switched_off(folder: Path, row: Row) -> Row:
    """It stays closed, also if its settings change."""
    with Rig(folder) as rig:
        _switched_off(rig, row)
        rig.switch("door", b"ON")
        return rig.evaluate(row)


@fault(
    "reload-disk-full", "Configuration: reloaded while a camera is switched off and the disk full"
)
def _reload_disk_full(folder: Path, row: Row) -> Row:
    """It stays closed, and after a kill too, once the disk has room."""
    with small_disk(folder / "state") as state, Rig(folder) as rig:
        ballast = fill(state)
        _switched_off(rig, row)
        ballast.unlink()
        # It is saved within this time.
        time.sleep(8.0)
        rig.daemon.kill()
        row.resumed_s = rig.next_pose(rig.start().started_s) - rig.daemon.started_s
        _stays_off(rig, row, time.monotonic())
        rig.switch("door", b"ON")
        return rig.evaluate(row)


def _switched_off(rig: Rig, row: Row) -> None:
    """Switch the camera at the door off and reload, with other settings of it and of all."""
    row.detected_s = rig.switch("door", b"OFF")
    off_s = time.monotonic()
    config = rig.config
    main, door = config["cameras"]
    for changes in (
        {},
        {"smoothing": {"preset": "responsive"}},
        {"cameras": [main, {**door, "rotation": 180}]},
        {},
    ):
        rig.write_config(json.dumps({**config, **changes}))
        rig.daemon.reload()
    _stays_off(rig, row, off_s)
    row.gap_s = rig.longest_gap_s(off_s)


def _stays_off(rig: Rig, row: Row, since_s: float) -> None:
    time.sleep(4.0)
    arrivals = [a for a in list(rig.observer.arrivals) if a.at_s > since_s]
    if any(a.topic == TOPICS.poses("door") and b'"poses":[]' not in a.payload for a in arrivals):
        row.failures.append("poses of a camera that is switched off")
    if any(a.topic == TOPICS.enabled("door") and a.payload != b"OFF" for a in arrivals):
        row.failures.append("the camera's switch was published as ON")


@fault("reload-unchanged", f"Configuration: reloaded {_RELOADS} times without a change")
def _reload_unchanged(folder: Path, row: Row) -> Row:
    """No state changes, no camera closes, and memory stays."""
    # The other models of `threads: auto` would count.
    with Rig(folder, settings={"inference": {"threads": 1}}) as rig:
        states = {
            TOPICS.status("main"): b"online",
            TOPICS.presence("main"): b"ON",
            TOPICS.status("door"): b"online",
        }
        for topic, state in states.items():
            rig.observer.wait_for(topic, state.__eq__)
        since_s = time.monotonic()
        memory = []
        for _ in range(_RELOADS):
            rig.daemon.reload()
            memory.append(rig.daemon.memory_kb())
        row.gap_s = rig.longest_gap_s(since_s)
        more_kb = max(memory) - max(memory[:_WARM_UP])
        row.remarks.append(f"{more_kb} kB more memory after the first {_WARM_UP} reloads")
        if more_kb > _RELOAD_MEMORY_KB:
            row.failures.append(f"memory rose by {more_kb} kB in {_RELOADS - _WARM_UP} reloads")
        changes = [a for a in rig.observer.arrivals if a.topic in states and a.at_s > since_s]
        if changes:
            row.failures.append(f"{len(changes)} changes of states, the first {changes[0]}")
        return rig.evaluate(row)


@fault("hangups-at-start", "Process: SIGHUP every 5 ms from the loading of its libraries on")
def _hangups(folder: Path, row: Row) -> Row:
    """They are reloads, at the latest once it is ready."""
    with Rig(folder) as rig:
        rig.daemon.stop()
        started_s = rig.start().started_s
        process = rig.daemon.process
        maps = Path(f"/proc/{process.pid}/maps")
        wait(lambda: not rig.daemon.alive or "/numpy/" in maps.read_text(), "numpy to be loaded")
        until_s = time.monotonic() + 3.0
        while time.monotonic() < until_s and rig.daemon.alive:
            process.send_signal(signal.SIGHUP)
            time.sleep(_HANGUP_EVERY_S)
        if not rig.daemon.alive:
            raise WaitTimeoutError(f"ended with {process.returncode} at a SIGHUP")
        wait(lambda: rig.daemon.ready, "the daemon to be ready")
        row.resumed_s = rig.next_pose(started_s) - started_s
        return rig.evaluate(row)


@fault("aborted", "Process: SIGABRT, as the watchdog of systemd sends")
def _aborted(folder: Path, row: Row) -> Row:
    """The stack of every thread is in the log."""
    with Rig(folder) as rig:
        threads = {"capture": 2, "inference_thread": 1, "daemon": 1, "mqtt": 1}
        row.detected_s = -rig.daemon.kill(signal.SIGABRT) + time.monotonic()
        log = rig.daemon.log
        stacks = [part for part in log.split("\n\n") if "most recent call first" in part]
        for name, count in threads.items():
            found = sum(name in stack for stack in stacks)
            if found < count:
                row.failures.append(f"{found} stacks of {name} in the log, not {count}")
        row.resumed_s = rig.next_pose(rig.start().started_s) - rig.daemon.started_s
        return rig.evaluate(row)


@fault("second-daemon", "Process: a second daemon with the same configuration")
def _second_daemon(folder: Path, row: Row) -> Row:
    """It ends with an error, and the first one is not disturbed."""
    with Rig(folder) as rig:
        since_s = time.monotonic()
        with _second(folder, *_RUN, str(folder / "config.yaml")) as second:
            try:
                row.detected_s = wait(lambda: second.poll() is not None, "", 15.0) - since_s
            except WaitTimeoutError:
                row.failures.append("the second daemon did not end")
        if second.returncode == 0:
            row.failures.append("the second daemon ended without an error")
        row.gap_s = rig.longest_gap_s(since_s)
        return rig.evaluate(row)


@fault("second-daemon-elsewhere", "Process: a second one with the node of the first and its own id")
def _second_elsewhere(folder: Path, row: Row) -> Row:
    """After it has published that everything is offline, the states of the first one return."""
    with Rig(folder) as rig:
        other = folder / "other"
        other.mkdir()
        config = {
            **rig.config,
            "state_directory": str(other / "state"),
            "mqtt": {**rig.config["mqtt"], "client_id": "other"},
        }
        (other / "config.yaml").write_text(json.dumps(config))
        since_s = time.monotonic()
        with _second(other, *_RUN, str(other / "config.yaml")):
            time.sleep(_SECOND_S)
            ending_s = time.monotonic()
        offline = rig.observer.wait_for(TOPICS.availability, b"offline".__eq__, after_s=ending_s)
        online = rig.observer.wait_for(TOPICS.availability, b"online".__eq__, after_s=offline.at_s)
        row.detected_s = online.at_s - offline.at_s
        row.gap_s = rig.longest_gap_s(since_s)
        return rig.evaluate(row)


@fault("demo", "Process: `edgepose demo` beside the service, with the same host name")
def _demo(folder: Path, row: Row) -> Row:
    """The service is not disturbed."""
    if NAMESPACE_VARIABLE not in os.environ:
        raise UnavailableError("needs a network namespace (unshare)")
    broker = Broker(folder / "broker", settings=[f"listener {_DEMO_PORT} 127.0.0.1"])
    # The default client id of the node.
    with Rig(folder, broker, mqtt={"client_id": None}) as rig:
        since_s = time.monotonic()
        demo = f"hostname {TOPICS.node} && exec {sys.executable} -m edgepose demo"
        with _second(folder, "unshare", "--uts", "--", "sh", "-c", demo) as second:
            time.sleep(_SECOND_S)
            if second.poll() is not None:
                row.failures.append(f"the demo ended with {second.returncode}")
        row.gap_s = rig.longest_gap_s(since_s)
        if b"offline" in rig.observer.payloads(TOPICS.availability):
            row.failures.append("the service went offline")
        return rig.evaluate(row)


@contextmanager
def _second(folder: Path, *command: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a second process, which is stopped by SIGTERM at the end if it still runs."""
    with (folder / "second.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@fault("password-rotated", "Broker: the password is changed, with that of the file, and reloaded")
def _password_rotated(folder: Path, row: Row) -> Row:
    """The reload reads the file again."""
    broker = Broker(folder / "broker", password=True)
    secret = folder / "password"
    secret.write_text("the old one")
    secret.chmod(0o600)
    broker.set_password(USERNAME, "the old one")
    mqtt = {"username": USERNAME, "password_file": str(secret)}
    with (
        TcpProxy(broker.port) as proxy,
        Rig(folder, broker, port=proxy.port, mqtt=mqtt, user=OBSERVER_LOGIN) as rig,
    ):
        secret.write_text("the new one")
        broker.set_password(USERNAME, "the new one")
        broker.reload()
        rig.daemon.reload()
        proxy.block()
        opened_s = proxy.unblock()
        row.resumed_s = rig.next_pose(opened_s) - opened_s
        return rig.evaluate(row)


@fault("authority-rotated", "Broker: its certificate and authority are renewed, and reloaded")
def _authority_rotated(folder: Path, row: Row) -> Row:
    """The reload reads the file of the authority again."""
    certificates = Certificates(folder)
    port = free_port()
    broker = Broker(
        folder / "broker",
        persistent=True,
        settings=[
            f"listener {port} 127.0.0.1",
            f"certfile {certificates.server}",
            f"keyfile {certificates.server_key}",
        ],
    )
    mqtt = {"url": f"mqtts://localhost:{port}", "tls": {"ca_file": str(certificates.authority)}}
    with Rig(folder, broker, mqtt=mqtt) as rig:
        Certificates(folder)
        rig.daemon.reload()
        rig.observer.drain()
        broker.stop()
        broker.start()
        started_s = time.monotonic()
        row.resumed_s = rig.next_pose(started_s) - started_s
        return rig.evaluate(row)
