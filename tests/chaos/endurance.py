"""An hour of video as fast as it can be seen, with all that goes wrong in between: memory."""

import random
import time
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from tests.chaos.gate import Gate
from tests.chaos.judge import Row
from tests.chaos.observer import MissedError
from tests.chaos.registry import OPTIONS, fault
from tests.chaos.stage import DOOR_FPS, SYNTHETIC, TOPICS, Broker, Life, Stage

LIMIT: Final = 1.05
"""Memory after the hour, relative to that after the first minute."""
MINUTES: Final = 60
_PATIENCE_S: Final = 30.0


@fault("hour", "Memory: an hour of video, with deaths of the Edge TPU and of the link", long=True)
def _hour(folder: Path, row: Row) -> Row:
    chance = random.Random(OPTIONS.seed)
    broker = Broker(folder / "broker")
    # One camera in real time beside it, slow, so that nearly all work is for the hour.
    with (
        Gate(broker.port) as gate,
        Stage(
            folder,
            broker,
            port=gate.port,
            tpu=True,
            main=SYNTHETIC.format(5),
            door_options="loop=1",
        ) as stage,
    ):
        life, device = stage.life, stage.fake_edgetpu
        assert device is not None
        memory: list[tuple[float, int]] = []
        deaths = breaks = 0
        heal_s = open_s = float("inf")
        next_death_s = next_break_s = 0.0
        frame, moved_s = 0, time.monotonic()
        while frame < MINUTES * 60 * DOOR_FPS:
            time.sleep(0.25)
            now_s = time.monotonic()
            if (newest := _newest_frame(life)) > frame:
                frame, moved_s = newest, now_s
            elif now_s - moved_s > _PATIENCE_S or not life.alive:
                raise MissedError(f"no frame after number {frame} of the hour")
            minute = frame / DOOR_FPS / 60
            memory.append((minute, life.memory_kb()))
            if minute < 1:
                next_death_s, next_break_s = now_s + 3, now_s + 6
                continue
            if now_s > next_death_s:
                device.set(chance.choice(("abort", "fail", "unplugged")))
                deaths += 1
                heal_s, next_death_s = now_s + 2, now_s + chance.uniform(15, 25)
            if now_s > heal_s:
                device.set("ok")
                heal_s = float("inf")
            if now_s > next_break_s:
                gate.shut()
                breaks += 1
                open_s, next_break_s = now_s + 2, now_s + chance.uniform(20, 30)
            if now_s > open_s:
                gate.open()
                open_s = float("inf")
        if open_s < float("inf"):
            gate.open()
        device.set("ok")
        opened_s = time.monotonic()
        stage.next_pose(opened_s)
        stage.observer.wait_for(
            TOPICS.poses("main"), lambda text: b'"accelerator":"edgetpu"' in text, after_s=opened_s
        )
        first = median(kb for minute, kb in memory if 0.8 <= minute <= 1.2)
        last = median(kb for minute, kb in memory if minute >= MINUTES - 0.5)
        later = np.array([entry for entry in memory if entry[0] >= MINUTES / 2])
        slope_kb = np.polyfit(later[:, 0], later[:, 1], 1)[0] * 60
        row.remarks.append(
            f"{frame} frames, {deaths} deaths of the Edge TPU, {breaks} of the link; resident "
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
        return stage.judged(row)


def _newest_frame(life: Life) -> int:
    for line in reversed(life.lines[-500:]):
        if line.message.camera == "door":
            return line.message.sequence
    return 0
