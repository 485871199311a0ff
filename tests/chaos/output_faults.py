"""Faults of what the daemon writes to: stdout, the recording and the disk of its state."""

import fcntl
import json
import os
import select
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgepose import messages
from tests.chaos.hanging import HangingFolder
from tests.chaos.judge import Row
from tests.chaos.machine_faults import fill, small_disk
from tests.chaos.observer import wait
from tests.chaos.proxy import TcpProxy
from tests.chaos.registry import fault
from tests.chaos.rig import TOPICS, Broker, Rig

_FULL_QUEUE_S = 60.0
"""Until a queue of 1000 messages is full, at 30 a second."""
_PIPE_BYTES = 4096
_RETRY_S = 40.0
"""How soon a recording goes on at the latest."""


@fault("stdout-blocked", "Output: stdout is a pipe that is not read")
def _stdout_blocked(folder: Path, row: Row) -> Row:
    """MQTT, commands and stopping go on, and what was not written is counted."""
    with Rig(folder) as rig:
        blocked_s = time.monotonic()
        rig.daemon.stop_reading()
        row.detected_s = _wait_until_dropping(rig, blocked_s) - blocked_s
        _switch_off_and_on(rig, row, blocked_s)
        # SIGTERM comes while it is not read.
        return rig.evaluate(row)


@fault("stderr-blocked", "Output: stderr is a pipe that is not read")
def _stderr_blocked(folder: Path, row: Row) -> Row:
    """Everything goes on without a log, and SIGTERM works."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    try:
        with Rig(folder, settings={"log": {"level": "debug"}}, stderr=writing) as rig:
            wait(lambda: not select.select([], [writing], [], 0)[1], "the pipe to be full")
            full_s = time.monotonic()
            time.sleep(10.0)
            _switch_off_and_on(rig, row, full_s)
            return rig.evaluate(row)
    finally:
        os.close(reading)
        os.close(writing)


@fault("record-disk-full", "Output: the disk of the recording is full, later has room again")
def _record_disk_full(folder: Path, row: Row) -> Row:
    """Only the recording pauses, and it goes on once there is room."""
    with small_disk(folder / "disk", "2m") as disk:
        record = disk / "poses.ndjson"
        with Rig(folder, settings=_recording(record)) as rig:
            full_s = time.monotonic()
            ballast = fill(disk)
            row.detected_s = rig.daemon.wait_for_log(f" {record}: ") - full_s
            time.sleep(3.0)
            size = record.stat().st_size
            ballast.unlink()
            _wait_until_recording(record, size, row)
            row.gap_s = rig.longest_gap_s(full_s)
            rig.evaluate(row)
        _check_record(record, row)
        return row


@fault("record-disk-hangs", "Output: the disk of the recording hangs")
def _record_disk_hangs(folder: Path, row: Row) -> Row:
    """Only the recording waits; what it does not take is counted."""
    disk = HangingFolder(folder, even_status=True)
    record = disk.path / "poses.ndjson"
    with Rig(folder, settings=_recording(record), environment=disk.environment) as rig:
        hung_s = disk.hang()
        row.detected_s = _wait_until_dropping(rig, hung_s) - hung_s
        _switch_off_and_on(rig, row, hung_s)
        size = record.stat().st_size
        disk.recover()
        _wait_until_recording(record, size, row)
        rig.evaluate(row)
    _check_record(record, row)
    return row


@fault("state-disk-hangs", "Disk: that of the state directory hangs while the broker is away")
def _state_disk_hangs(folder: Path, row: Row) -> Row:
    """Poses return with the broker, and a camera can be switched off, while the disk hangs."""
    disk = HangingFolder(folder, even_status=True)
    broker = Broker(folder / "broker")
    settings = {"state_directory": str(disk.path / "state")}
    with (
        TcpProxy(broker.port) as proxy,
        Rig(
            folder, broker, port=proxy.port, settings=settings, environment=disk.environment
        ) as rig,
    ):
        disk.hang()
        proxy.block()
        time.sleep(6.0)
        opened_s = proxy.unblock()
        row.resumed_s = rig.next_pose(opened_s) - opened_s
        back_s = opened_s + row.resumed_s
        time.sleep(8.0)
        _switch_off_and_on(rig, row, back_s)
        disk.recover()
        return rig.evaluate(row)


def _recording(path: Path) -> Mapping[str, Any]:
    return {"output": {"ndjson": True, "record": str(path)}}


def _wait_until_dropping(rig: Rig, since_s: float) -> float:
    """Wait until the stats count messages that an output did not take; return when."""
    return rig.observer.wait_for(
        TOPICS.stats,
        lambda text: json.loads(text)["output_dropped"],
        after_s=since_s,
        patience_s=_FULL_QUEUE_S,
    ).at_s


def _switch_off_and_on(rig: Rig, row: Row, since_s: float) -> None:
    """Check that commands are obeyed meanwhile, and that the other camera went on."""
    off_s = rig.switch("door", b"OFF")
    row.remarks.append(f"a camera was switched off within {off_s:.2f} s")
    if off_s > 2.0:
        row.failures.append(f"a camera was switched off after {off_s:.1f} s only")
    rig.switch("door", b"ON")
    row.gap_s = rig.longest_gap_s(since_s)


def _wait_until_recording(record: Path, size: int, row: Row) -> None:
    asked_s = time.monotonic()
    recording_s = wait(lambda: record.stat().st_size > size, "the recording to go on", _RETRY_S)
    row.remarks.append(f"recording again after {recording_s - asked_s:.1f} s")


def _check_record(record: Path, row: Row) -> None:
    """Check that every line of the recording is whole."""
    *lines, rest = record.read_bytes().split(b"\n")
    try:
        for line in lines:
            messages.decode(line)
    except msgspec.DecodeError as error:
        row.failures.append(f"a line of the recording is damaged: {error}")
    if rest:
        row.failures.append("the recording ends with half a line")
