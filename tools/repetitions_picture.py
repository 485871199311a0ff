"""Write docs/repetitions.png: the knee's angle over some squats, and which of them count.

Run `python -m tools.repetitions_picture` in the repository after a change of the limits. The body
is the jointed one of the tests.
"""

from itertools import count
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from edgepose.datatypes import TrackedFrame
from edgepose.events.angles import JOINTS, joint_angle
from edgepose.events.exercises import MOVEMENTS
from edgepose.events.repetitions import RepetitionDetector
from edgepose.skeleton import EDGES
from tests.builders import tracked_of
from tests.exercises import NEAR, repeated, squat
from tests.kinematics import Points

PICTURE: Final = Path(__file__).parents[1] / "docs" / "repetitions.png"
FPS: Final = 30
NOISE_PX: Final = 2.0
STANDING: Final = 172.0


def main() -> None:
    """Count a squat, one that is too shallow, pulses at the bottom, and another squat."""
    movement = MOVEMENTS["squat"]
    detector, rng = RepetitionDetector([movement]), np.random.default_rng(0)
    times_s, found, counted = [], [], []
    for number, angle in zip(count(), angles(), strict=False):
        body = NEAR.project(squat((angle, angle)))
        noisy = body + rng.normal(0, NOISE_PX, body.shape)
        tracked = tracked_of(noisy)
        frame_ns = number * 1_000_000_000 // FPS
        events = detector.update(TrackedFrame(frame_ns, NEAR.size_wh, tracked, tracked))
        knee = joint_angle(noisy.tolist(), [1.0] * 17, JOINTS["left_knee"], 0.0)
        times_s.append(frame_ns / 1e9)
        found.append(knee)
        counted += [(frame_ns / 1e9, event.count) for event in events]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    bodies, curve = figure.subplots(1, 2, width_ratios=(1, 2))
    for column, angle in enumerate((STANDING, movement.start_angle, movement.turn_angle, 80.0)):
        draw(bodies, NEAR.project(squat((angle, angle))), column * 190)
        bodies.text(column * 190 + 320, 455, f"{angle:.0f}°", ha="center", fontsize=8)
    bodies.set_aspect("equal")
    bodies.invert_yaxis()
    bodies.axis("off")
    curve.plot(times_s, found, color="tab:blue", linewidth=1)
    for limit, name in ((movement.start_angle, "start"), (movement.turn_angle, "turn")):
        curve.axhline(limit, color="0.5", linewidth=0.8, linestyle="--")
        curve.text(times_s[-1], limit + 2, name, ha="right", fontsize=8, color="0.3")
    for at_s, number_counted in counted:
        curve.plot(at_s, movement.start_angle, "o", color="tab:orange")
        curve.text(at_s, movement.start_angle - 12, str(number_counted), color="tab:orange")
    curve.set_xlabel("time in s")
    curve.set_ylabel("angle of the left knee in degrees")
    figure.savefig(PICTURE, dpi=110)


def angles() -> list[float]:
    """Return the angle of each frame."""
    pulses = [80 + 25 * (1 - np.cos(2 * np.pi * n / FPS)) for n in range(3 * FPS)]
    down = [STANDING + (80 - STANDING) * n / FPS for n in range(FPS)]
    deep = list(repeated(1, seconds=2, top=STANDING, bottom=80, fps=FPS))
    shallow = list(repeated(1, seconds=2, top=STANDING, bottom=132, fps=FPS))
    return [*deep, *shallow[FPS:], *down, *pulses, *down[::-1], *[STANDING] * (FPS // 2)]


def draw(axes: Axes, points: Points, x_px: float) -> None:
    """Draw a skeleton."""
    for one, other in EDGES:
        axes.plot(
            points[[one, other], 0] + x_px, points[[one, other], 1], color="tab:blue", linewidth=1.5
        )


if __name__ == "__main__":
    main()
