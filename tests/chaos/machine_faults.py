"""Faults of the machine: its disk, files and clock, and a killed process."""

import contextlib
import json
import os
import random
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from edgepose import messages
from edgepose.datatypes import EventType
from edgepose.messages import EventMessage
from edgepose.mqtt.event_store import EventStore
from edgepose.sinks.mqtt import EVENTS_FILE
from tests.chaos.broker_faults import LOST
from tests.chaos.judge import Row
from tests.chaos.observer import wait
from tests.chaos.proxy import TcpProxy
from tests.chaos.registry import OPTIONS, UnavailableError, fault
from tests.chaos.rig import TOPICS, Broker, Rig, has_own_network, preloaded, run

_KILLS: Final = 6
KINDS: Final[tuple[EventType, ...]] = ("enter", "leave")
REFUSED: Final = "keeping the previous configuration"
"""What the daemon logs if a reload fails."""
_JUMPS_S: Final = (3600, -86_400, 0)


@contextmanager
def small_disk(folder: Path, size: str = "64k") -> Iterator[Path]:
    """Mount a small file system."""
    if not has_own_network():
        raise UnavailableError("needs a mount namespace (unshare)")
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "none", str(folder))
    try:
        yield folder
    finally:
        run("umount", "--lazy", str(folder))


def fill(disk: Path) -> Path:
    """Fill a small disk, and return the file to delete for room again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1024))
    return ballast


@fault("disk-full", "Disk: full in the state directory while the broker is away")
def _disk_full(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker")
    with (
        small_disk(folder / "state") as state,
        TcpProxy(broker.port) as proxy,
        Rig(folder, broker, port=proxy.port) as rig,
    ):
        ballast = fill(state)
        full_s = time.monotonic()
        proxy.block()
        row.detected_s = rig.daemon.wait_for_log("cannot be saved", patience_s=40) - full_s
        # Long enough for further events that cannot be saved.
        time.sleep(2.0)
        ballast.unlink()
        opened_s = proxy.unblock()
        row.resumed_s = rig.next_pose(opened_s) - opened_s
        return rig.evaluate(row)


@fault("events-corrupt", "Disk: the file of waiting events has an invalid one at the start")
def _events_corrupt(folder: Path, row: Row) -> Row:
    good = [
        messages.encode(
            EventMessage(
                type=kind,
                node="chaos",
                camera="door",
                track_id=900,
                time=f"2026-01-31T12:00:0{second}.000000Z",
            )
        ).decode()
        for second, kind in enumerate(KINDS, 1)
    ]
    topic = TOPICS.event("door")
    store = EventStore(folder / "state" / EVENTS_FILE, max_events=10)
    for payload in good:
        store.append(topic, payload.encode())
    store.append("edgepose/chaos/door/ev\x01ent", b"of a topic that no broker accepts")
    store.close()
    with Rig(folder) as rig:
        row.detected_s = rig.daemon.wait_for_log("are invalid") - rig.daemon.started_s
        row.resumed_s = rig.next_pose(0.0) - rig.daemon.started_s
        received = rig.observer.payloads(topic)[: len(good)]
        lost = sum(payload.encode() not in received for payload in good)
        # They were published by no run of this test.
        rig.observer.arrivals[:] = [
            a for a in rig.observer.arrivals if a.payload.decode() not in good
        ]
        rig.evaluate(row)
        row.events += len(good)
        if lost:
            row.events_lost += lost
            row.failures.append(f"{lost} valid events of the file lost")
        return row


@fault("config-corrupt", "Configuration: reloaded while damaged")
def _config_corrupt(folder: Path, row: Row) -> Row:
    with Rig(folder) as rig:
        reconnects = rig.daemon.log.count("connected to the MQTT broker")
        since_s = time.monotonic()
        texts = (
            "cameras: [{name: main, source: 'synthetic:'\n",
            "\x00\x01\x02",
            "",
            json.dumps({**rig.config, "cameras": []}),
            json.dumps({**rig.config, "model": {"name": "no-such-model"}}),
        )
        for text in texts:
            count = rig.daemon.log.count(REFUSED)
            rig.write_config(text)
            os.kill(rig.daemon.process.pid, signal.SIGHUP)
            asked_s = time.monotonic()
            refused_s = wait(
                lambda count=count: rig.daemon.log.count(REFUSED) > count,  # type: ignore[misc]
                f"{text[:30]!r} to be refused",
            )
            row.detected_s = max(row.detected_s or 0.0, refused_s - asked_s)
        rig.write_config(json.dumps(rig.config))
        os.kill(rig.daemon.process.pid, signal.SIGHUP)
        asked_s = rig.daemon.wait_for_log("configuration reloaded")
        row.resumed_s = rig.next_pose(asked_s) - asked_s
        row.gap_s = rig.longest_gap_s(since_s)
        if rig.daemon.log.count("connected to the MQTT broker") != reconnects:
            row.failures.append("the broker's connection was lost in a reload")
        return rig.evaluate(row)


@fault(
    "clock-jump", "Clock: the time of day jumps an hour ahead, a day back, and to the right time"
)
def _clock_jump(folder: Path, row: Row) -> Row:
    shift = folder / "shift"
    shift.write_bytes(struct.pack("q", 0))
    environment = {**preloaded(folder, "clock_shift"), "CLOCK_SHIFT_FILE": str(shift)}
    with Rig(folder, environment=environment) as rig:
        rig.daemon.wall_clock_valid = False
        since_s = time.monotonic()
        for jump_s in _JUMPS_S:
            jumped_s = time.monotonic()
            with shift.open("r+b", buffering=0) as file:
                file.write(struct.pack("q", jump_s * 10**9))

            def is_new(text: bytes, jump_s: int = jump_s) -> bool:
                at = datetime.fromisoformat(messages.decode(text).captured_at).timestamp()
                return abs(at - time.time() - jump_s) < 60

            arrival = rig.observer.wait_for(TOPICS.poses("main"), is_new, after_s=jumped_s)
            row.detected_s = max(row.detected_s or 0.0, arrival.at_s - jumped_s)
            time.sleep(3.0)
        row.gap_s = rig.longest_gap_s(since_s)
        ids = {frozenset(record.track_ids) for record in rig.daemon.pose_records("main")}
        if len(ids) > 1:
            row.failures.append("a track changed its id")
        return rig.evaluate(row)


@fault("killed", f"Process: SIGKILL at {_KILLS} random moments, every other one without a broker")
def _killed(folder: Path, row: Row) -> Row:
    chance = random.Random(OPTIONS.seed)
    broker = Broker(folder / "broker")
    with TcpProxy(broker.port) as proxy, Rig(folder, broker, port=proxy.port) as rig:
        for number in range(_KILLS):
            away = number % 2 == 1
            if away:
                proxy.block()
                rig.daemon.wait_for_log(LOST)
            time.sleep(chance.uniform(0.5, 3.0))
            killed_s = rig.daemon.kill()
            if not away:
                offline = rig.observer.wait_for(
                    TOPICS.availability, lambda text: text == b"offline", after_s=killed_s
                )
                row.detected_s = max(row.detected_s or 0.0, offline.at_s - killed_s)
            back_s = rig.start().started_s
            if away:
                # It starts without a broker, and stores more events.
                wait(
                    lambda: rig.daemon.ready and rig.daemon.pose_records("door"),
                    "the daemon to publish",
                )
                time.sleep(chance.uniform(0.5, 2.0))
                back_s = proxy.unblock()
            resumed_s = rig.next_pose(back_s) - back_s
            row.resumed_s = max(row.resumed_s or 0.0, resumed_s)
        return rig.evaluate(row)


@fault("restarted-offline", "Process: stopped and started again while the broker is away")
def _restarted(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker")
    with TcpProxy(broker.port) as proxy, Rig(folder, broker, port=proxy.port) as rig:
        shut_s = time.monotonic()
        proxy.block()
        row.detected_s = rig.daemon.wait_for_log(LOST) - shut_s
        time.sleep(3.0)
        if (code := rig.daemon.stop()) != 0:
            row.failures.append(f"exit code {code}")
        rig.start()
        wait(lambda: rig.daemon.ready and rig.daemon.pose_records("door"), "the daemon to publish")
        opened_s = proxy.unblock()
        row.resumed_s = rig.next_pose(opened_s) - opened_s
        return rig.evaluate(row)
