"""The machine's own: its disk, its clock, its files, and the end of the process."""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from edgepose import messages
from edgepose.messages import EventMessage
from edgepose.mqtt.event_store import EventStore
from edgepose.sinks.mqtt import EVENTS_FILE
from tests.chaos.broker_faults import LOST
from tests.chaos.gate import Gate
from tests.chaos.judge import Kind, Row
from tests.chaos.observer import wait
from tests.chaos.registry import OPTIONS, NotHereError, fault
from tests.chaos.stage import TOPICS, Broker, Stage, own_network, run

_KILLS: Final = 6
KINDS: Final[tuple[Kind, ...]] = ("enter", "leave")
_JUMPS_S: Final = (3600, -86_400, 0)


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of 64 kB."""
    if not own_network():
        raise NotHereError("needs a mount namespace (unshare)")
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "none", str(folder))
    try:
        yield folder
    finally:
        run("umount", "--lazy", str(folder))


@fault("disk-full", "Disk: full in the state directory while the broker is away")
def _disk_full(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker")
    with (
        _small_disk(folder / "state") as state,
        Gate(broker.port) as gate,
        Stage(folder, broker, port=gate.port) as stage,
    ):
        ballast = state / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1024))
            except OSError:
                pass
        full_s = time.monotonic()
        gate.shut()
        row.noticed_s = stage.life.wait_for_log("cannot be saved", patience_s=40) - full_s
        # The privacy switch has to be remembered too.
        time.sleep(2.0)
        ballast.unlink()
        opened_s = gate.open()
        row.resumed_s = stage.next_pose(opened_s) - opened_s
        return stage.judged(row)


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
    with Stage(folder) as stage:
        row.noticed_s = stage.life.wait_for_log("are invalid") - stage.life.started_s
        row.resumed_s = stage.next_pose(0.0) - stage.life.started_s
        came = stage.observer.payloads(topic)[: len(good)]
        lost = sum(payload.encode() not in came for payload in good)
        # They are of an earlier life, of which there is no other trace.
        stage.observer.arrivals[:] = [
            a for a in stage.observer.arrivals if a.payload.decode() not in good
        ]
        stage.judged(row)
        row.events += len(good)
        if lost:
            row.events_lost += lost
            row.failures.append(f"{lost} valid events of the file lost")
        return row


@fault("config-corrupt", "Configuration: damaged, and a reload asked for")
def _config_corrupt(folder: Path, row: Row) -> Row:
    with Stage(folder) as stage:
        reconnects = stage.life.log.count("connected to the MQTT broker")
        since_s = time.monotonic()
        texts = (
            "cameras: [{name: main, source: 'synthetic:'\n",
            "\x00\x01\x02",
            "",
            json.dumps({**stage.config, "cameras": []}),
            json.dumps({**stage.config, "model": {"name": "no-such-model"}}),
        )
        for text in texts:
            count = stage.life.log.count("is refused")
            stage.write_config(text)
            os.kill(stage.life.process.pid, signal.SIGHUP)
            asked_s = time.monotonic()
            refused_s = wait(
                lambda count=count: stage.life.log.count("is refused") > count,  # type: ignore[misc]
                f"{text[:30]!r} to be refused",
            )
            row.noticed_s = max(row.noticed_s or 0.0, refused_s - asked_s)
        stage.write_config(json.dumps(stage.config))
        stage.life.reloaded_s.append(time.monotonic())
        os.kill(stage.life.process.pid, signal.SIGHUP)
        asked_s = stage.life.wait_for_log("is in effect")
        row.resumed_s = stage.next_pose(asked_s) - asked_s
        row.remarks.append(f"longest time without poses {stage.longest_gap_s(since_s):.2f} s")
        if stage.life.log.count("connected to the MQTT broker") != reconnects:
            row.failures.append("the broker's connection was lost in a reload")
        return stage.judged(row)


@fault("clock-jump", "Clock: the time of day jumps an hour ahead, a day back, and right again")
def _clock_jump(folder: Path, row: Row) -> Row:
    library, shift = folder / "clock_shift.so", folder / "shift"
    compiler = shutil.which("gcc")
    if compiler is None:
        raise NotHereError("needs gcc")
    source = Path(__file__).with_name("clock_shift.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    shift.write_bytes(struct.pack("q", 0))
    environment = {"LD_PRELOAD": str(library), "CLOCK_SHIFT_FILE": str(shift)}
    with Stage(folder, environment=environment) as stage:
        stage.life.frames_tell_time = False
        since_s = time.monotonic()
        for jump_s in _JUMPS_S:
            jumped_s = time.monotonic()
            with shift.open("r+b", buffering=0) as file:
                file.write(struct.pack("q", jump_s * 10**9))

            def is_new(text: bytes, jump_s: int = jump_s) -> bool:
                at = datetime.fromisoformat(messages.decode(text).captured_at).timestamp()
                return abs(at - time.time() - jump_s) < 60

            arrival = stage.observer.wait_for(TOPICS.poses("main"), is_new, after_s=jumped_s)
            row.noticed_s = max(row.noticed_s or 0.0, arrival.at_s - jumped_s)
            time.sleep(3.0)
        gap_s = stage.longest_gap_s(since_s)
        row.remarks.append(f"longest time without poses {gap_s:.2f} s")
        if gap_s > 1.0:
            row.failures.append(f"no poses for {gap_s:.1f} s")
        ids = {frozenset(told.track_ids) for told in stage.life.told("main")}
        if len(ids) > 1:
            row.failures.append("somebody lost their identity")
        return stage.judged(row)


@fault("killed", f"Process: SIGKILL at {_KILLS} random moments, every other one without a broker")
def _killed(folder: Path, row: Row) -> Row:
    chance = random.Random(OPTIONS.seed)
    broker = Broker(folder / "broker")
    with Gate(broker.port) as gate, Stage(folder, broker, port=gate.port) as stage:
        for number in range(_KILLS):
            away = number % 2 == 1
            if away:
                gate.shut()
                stage.life.wait_for_log(LOST)
            time.sleep(chance.uniform(0.5, 3.0))
            killed_s = stage.life.kill()
            if not away:
                offline = stage.observer.wait_for(
                    TOPICS.availability, lambda text: text == b"offline", after_s=killed_s
                )
                row.noticed_s = max(row.noticed_s or 0.0, offline.at_s - killed_s)
            back_s = stage.start().started_s
            if away:
                # It starts without a broker, and takes in more events that have to wait.
                wait(lambda: stage.life.ready and stage.life.told("door"), "the daemon to look")
                time.sleep(chance.uniform(0.5, 2.0))
                back_s = gate.open()
            resumed_s = stage.next_pose(back_s) - back_s
            row.resumed_s = max(row.resumed_s or 0.0, resumed_s)
        return stage.judged(row)


@fault("restarted-alone", "Process: stopped and started again while the broker is away")
def _restarted(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker")
    with Gate(broker.port) as gate, Stage(folder, broker, port=gate.port) as stage:
        shut_s = time.monotonic()
        gate.shut()
        row.noticed_s = stage.life.wait_for_log(LOST) - shut_s
        time.sleep(3.0)
        if (code := stage.life.stop()) != 0:
            row.failures.append(f"exit code {code}")
        stage.start()
        wait(lambda: stage.life.ready and stage.life.told("door"), "the daemon to look")
        opened_s = gate.open()
        row.resumed_s = stage.next_pose(opened_s) - opened_s
        return stage.judged(row)
