"""Memory after an hour of video, as fast as it is processed, with faults in between."""

import random
import time
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from tests.chaos.daemon_run import DaemonRun
from tests.chaos.judge import Row
from tests.chaos.observer import WaitTimeoutError
from tests.chaos.proxy import TcpProxy
from tests.chaos.registry import OPTIONS, fault
from tests.chaos.rig import DOOR_FPS, SYNTHETIC, TOPICS, Broker, Rig

LIMIT: Final = 1.05
"""Memory after the hour, relative to that after the first minute."""
MINUTES: Final = 60
_PATIENCE_S: Final = 30.0


@fault("hour", "Memory: an hour of video, with losses of the Edge TPU and the broker", long=True)
def _hour(folder: Path, row: Row) -> Row:
    chance = random.Random(OPTIONS.seed)
    broker = Broker(folder / "broker")
    # The other camera is slow, so that nearly all work is for the hour.
    with (
        TcpProxy(broker.port) as proxy,
        Rig(
            folder,
            broker,
            port=proxy.port,
            tpu=True,
            main=SYNTHETIC.format(5),
            door_options="loop=1",
        ) as rig,
    ):
        daemon, device = rig.daemon, rig.fake_edgetpu
        assert device is not None
        memory: list[tuple[float, int]] = []
        losses = breaks = 0
        heal_s = open_s = float("inf")
        next_loss_s = next_break_s = 0.0
        frame, moved_s = 0, time.monotonic()
        while frame < MINUTES * 60 * DOOR_FPS:
            time.sleep(0.25)
            now_s = time.monotonic()
            if (newest := _newest_frame(daemon)) > frame:
                frame, moved_s = newest, now_s
            elif now_s - moved_s > _PATIENCE_S or not daemon.alive:
                raise WaitTimeoutError(f"no frame after number {frame} of the hour")
            minute = frame / DOOR_FPS / 60
            memory.append((minute, daemon.memory_kb()))
            if minute < 1:
                next_loss_s, next_break_s = now_s + 3, now_s + 6
                continue
            if now_s > next_loss_s:
                device.set(chance.choice(("abort", "fail", "unplugged")))
                losses += 1
                heal_s, next_loss_s = now_s + 2, now_s + chance.uniform(15, 25)
            if now_s > heal_s:
                device.set("ok")
                heal_s = float("inf")
            if now_s > next_break_s:
                proxy.block()
                breaks += 1
                open_s, next_break_s = now_s + 2, now_s + chance.uniform(20, 30)
            if now_s > open_s:
                proxy.unblock()
                open_s = float("inf")
        if open_s < float("inf"):
            proxy.unblock()
        device.set("ok")
        opened_s = time.monotonic()
        rig.next_pose(opened_s)
        rig.observer.wait_for(
            TOPICS.poses("main"), lambda text: b'"accelerator":"edgetpu"' in text, after_s=opened_s
        )
        first = median(kb for minute, kb in memory if 0.8 <= minute <= 1.2)
        last = median(kb for minute, kb in memory if minute >= MINUTES - 0.5)
        later = np.array([entry for entry in memory if entry[0] >= MINUTES / 2])
        slope_kb = np.polyfit(later[:, 0], later[:, 1], 1)[0] * 60
        row.remarks.append(
            f"{frame} frames, {losses} losses of the Edge TPU, {breaks} of the broker; resident "
            f"memory {first / 1024:.1f} MB after one minute, {last / 1024:.1f} MB after an hour "
            f"({100 * (last / first - 1):+.1f} %), {slope_kb / 1024:+.2f} MB an hour in its second "
            "half"
        )
        if last > LIMIT * first:
            row.failures.append(
                f"memory grew by {100 * (last / first - 1):.1f} %, at most {100 * LIMIT - 100:.0f} "
                "% are allowed"
            )
        (folder / "memory.txt").write_text("".join(f"{m:.2f} {kb}\n" for m, kb in memory))
        return rig.evaluate(row)


def _newest_frame(daemon: DaemonRun) -> int:
    for line in reversed(daemon.lines[-500:]):
        if line.message.camera == "door":
            return line.message.sequence
    return 0
