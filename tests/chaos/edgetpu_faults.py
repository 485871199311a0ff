"""Faults of the Edge TPU, each followed by its return."""

import json
import os
import signal
import time
from pathlib import Path

from tests.chaos.judge import Row
from tests.chaos.observer import wait
from tests.chaos.registry import fault
from tests.chaos.rig import TOPICS, Rig
from tests.edgetpu import Behaviour, FakeEdgeTpu
from tests.processes import children

_AWAY_S = 2.5


def _device(rig: Rig) -> FakeEdgeTpu:
    assert rig.fake_edgetpu is not None
    return rig.fake_edgetpu


def _wait_until_detected(rig: Rig, row: Row, since_s: float) -> None:
    """Record when the loss was published and when the CPU's first pose arrived."""
    state = rig.observer.wait_for(
        TOPICS.accelerator, lambda text: json.loads(text)["degraded"], after_s=since_s
    )
    row.detected_s = state.at_s - since_s
    if rig.daemon.alive and b'"model":null' not in state.payload:
        row.fallback_s = rig.next_pose(since_s, device="cpu") - since_s


def _heal(rig: Rig, row: Row, *, patience_s: float = 25.0) -> None:
    healed_s = time.monotonic()
    _device(rig).set("ok")
    row.returned_s = rig.next_pose(healed_s, device="edgetpu", patience_s=patience_s) - healed_s


def _dies(folder: Path, row: Row, behaviour: Behaviour) -> Row:
    with Rig(folder, tpu=True) as rig:
        lost_s = time.monotonic()
        _device(rig).set(behaviour)
        _wait_until_detected(rig, row, lost_s)
        time.sleep(_AWAY_S)
        _heal(rig, row)
        return rig.evaluate(row)


@fault("tpu-abort", "Edge TPU: its driver aborts the process")
def _abort(folder: Path, row: Row) -> Row:
    return _dies(folder, row, "abort")


@fault("tpu-error", "Edge TPU: an inference fails")
def _error(folder: Path, row: Row) -> Row:
    return _dies(folder, row, "fail")


@fault("tpu-hang", "Edge TPU: an inference hangs")
def _hang(folder: Path, row: Row) -> Row:
    return _dies(folder, row, "hang")


@fault("tpu-unplug", "Edge TPU: unplugged, later plugged in again")
def _unplug(folder: Path, row: Row) -> Row:
    return _dies(folder, row, "unplugged")


@fault("tpu-restarts", "Edge TPU: every restart fails for 10 s, each in another way")
def _restarts(folder: Path, row: Row) -> Row:
    # With a CPU fallback there is an attempt every 30 s, with jitter up to 36 s. A real device that
    # is plugged in is opened at once, which the fake one cannot be.
    row.return_limit_s = 40.0
    with Rig(folder, tpu=True) as rig:
        device = _device(rig)
        lost_s = time.monotonic()
        device.set("abort")
        _wait_until_detected(rig, row, lost_s)
        behaviours: tuple[Behaviour, ...] = (
            "abort-at-create",
            "fail",
            "segfault-at-create",
            "version",
        )
        for behaviour in behaviours:
            time.sleep(2.5)
            device.set(behaviour)
        _heal(rig, row, patience_s=45.0)
        return rig.evaluate(row)


@fault("tpu-process-killed", "Edge TPU: its process is killed, as if memory ran out")
def _killed(folder: Path, row: Row) -> Row:
    with Rig(folder, tpu=True) as rig:
        worker = _worker(rig)
        killed_s = time.monotonic()
        os.kill(worker, signal.SIGKILL)
        _wait_until_detected(rig, row, killed_s)
        row.returned_s = rig.next_pose(killed_s + 0.5, device="edgetpu") - killed_s
        return rig.evaluate(row)


@fault("tpu-no-fallback", "Edge TPU: its driver aborts the process, without a CPU fallback")
def _without_fallback(folder: Path, row: Row) -> Row:
    with Rig(folder, tpu=True, no_fallback=True) as rig:
        lost_s = time.monotonic()
        _device(rig).set("abort")
        _wait_until_detected(rig, row, lost_s)
        time.sleep(_AWAY_S)
        _heal(rig, row)
        # Without a fallback the Edge TPU's first pose is the first one.
        row.resumed_s = row.returned_s
        return rig.evaluate(row)


def _worker(rig: Rig) -> int:
    daemon = rig.daemon.process.pid
    wait(lambda: children(daemon), "the Edge TPU's process")
    return min(children(daemon))
