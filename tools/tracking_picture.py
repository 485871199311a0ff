"""Write docs/tracking.png: two persons who cross, one of whom is hidden meanwhile.

Run `python -m tools.tracking_picture` in the repository after a change of the tracker. The
poses are made, at 10 frames a second; the ids are those of the tracker.
"""

from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from edgepose.build import build_tracker
from edgepose.config.schema import Config
from tests.bodies import at
from tests.builders import SECOND_NS, poses_of

ROOT: Final = Path(__file__).parents[1]
FPS: Final = 10
FRAMES: Final = 40
PX_PER_S: Final = 150
NOISE_PX: Final = 2.0
HIDDEN_S: Final = (1.5, 2.4)
"""When the person who walks to the left is behind the other one."""


def main() -> None:
    """Track the persons, and plot the middle of each pose by its id."""
    tracker, rng = build_tracker(Config()), np.random.default_rng(0)
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    points: dict[int, list[tuple[float, float]]] = {}
    for index in range(FRAMES):
        time_s = index / FPS
        places = [PX_PER_S * time_s]
        if not HIDDEN_S[0] < time_s < HIDDEN_S[1]:
            places.insert(0, PX_PER_S * (FRAMES / FPS - time_s))
        noise = rng.normal(0.0, NOISE_PX, (len(places), 17, 2))
        poses = poses_of(*(at(x) + moved for x, moved in zip(places, noise, strict=True)))
        tracked = tracker.update(poses, index * SECOND_NS // FPS)
        for keypoints, track_id in zip(
            tracked.poses.keypoints, tracked.track_ids.tolist(), strict=True
        ):
            points.setdefault(track_id, []).append((time_s, keypoints[:, 0].mean()))
    axes.axvspan(*HIDDEN_S, color="0.9", zorder=0)
    for track_id, way in sorted(points.items()):
        times_s, xs = np.transpose(way)
        axes.scatter(times_s, xs, label=f"id {track_id}", s=14)
    axes.set_xlabel("time in s")
    axes.set_ylabel("x in px")
    axes.grid(visible=True, alpha=0.2)
    axes.legend()
    figure.savefig(ROOT / "docs" / "tracking.png", dpi=110)


if __name__ == "__main__":
    main()
