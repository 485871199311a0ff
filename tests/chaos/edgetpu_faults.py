"""The Edge TPU dies in every way and comes back."""

import json
import os
import signal
import time
from pathlib import Path

from tests.chaos.judge import Row
from tests.chaos.observer import wait
from tests.chaos.registry import fault
from tests.chaos.stage import TOPICS, Stage
from tests.edgetpu import Behaviour, FakeEdgeTpu
from tests.processes import children

_AWAY_S = 2.5


def _device(stage: Stage) -> FakeEdgeTpu:
    assert stage.fake_edgetpu is not None
    return stage.fake_edgetpu


def _notice(stage: Stage, row: Row, since_s: float) -> None:
    """Note when subscribers were told, and when the CPU's first pose came."""
    told = stage.observer.wait_for(
        TOPICS.accelerator, lambda text: json.loads(text)["degraded"], after_s=since_s
    )
    row.noticed_s = told.at_s - since_s
    if stage.life.alive and b'"model":null' not in told.payload:
        row.stood_in_s = stage.next_pose(since_s, device="cpu") - since_s


def _heal(stage: Stage, row: Row, *, patience_s: float = 25.0) -> None:
    healed_s = time.monotonic()
    _device(stage).set("ok")
    row.returned_s = stage.next_pose(healed_s, device="edgetpu", patience_s=patience_s) - healed_s


def _dies(folder: Path, row: Row, word: Behaviour) -> Row:
    with Stage(folder, tpu=True) as stage:
        dead_s = time.monotonic()
        _device(stage).set(word)
        _notice(stage, row, dead_s)
        time.sleep(_AWAY_S)
        _heal(stage, row)
        return stage.judged(row)


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
    # While the CPU serves, tries become as rare as every 30 s, by chance 36: each costs a second of
    # its time. A device that is plugged in is tried at once, which a stand-in cannot be.
    row.return_limit_s = 40.0
    with Stage(folder, tpu=True) as stage:
        device = _device(stage)
        dead_s = time.monotonic()
        device.set("abort")
        _notice(stage, row, dead_s)
        words: tuple[Behaviour, ...] = ("abort-at-create", "fail", "segfault-at-create", "version")
        for word in words:
            time.sleep(2.5)
            device.set(word)
        _heal(stage, row, patience_s=45.0)
        return stage.judged(row)


@fault("tpu-process-killed", "Edge TPU: its process is killed, as when memory runs out")
def _killed(folder: Path, row: Row) -> Row:
    with Stage(folder, tpu=True) as stage:
        worker = _worker(stage)
        killed_s = time.monotonic()
        os.kill(worker, signal.SIGKILL)
        _notice(stage, row, killed_s)
        row.returned_s = stage.next_pose(killed_s + 0.5, device="edgetpu") - killed_s
        return stage.judged(row)


@fault("tpu-alone", "Edge TPU: aborts, and no model for the CPU is there")
def _alone(folder: Path, row: Row) -> Row:
    with Stage(folder, tpu=True, alone=True) as stage:
        dead_s = time.monotonic()
        _device(stage).set("abort")
        _notice(stage, row, dead_s)
        time.sleep(_AWAY_S)
        _heal(stage, row)
        # Nothing else looks: the Edge TPU's first pose is the first of all.
        row.resumed_s = row.returned_s
        return stage.judged(row)


def _worker(stage: Stage) -> int:
    daemon = stage.life.process.pid
    wait(lambda: children(daemon), "the Edge TPU's process")
    return min(children(daemon))
