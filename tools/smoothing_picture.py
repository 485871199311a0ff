"""Write docs/smoothing.png: a keypoint at rest and in motion with each preset.

Run `python -m tools.smoothing_picture` in the repository after a change of the filter. A photograph
of the tests rests, moves aside within half a second, and rests; each frame has the noise of a dim
room. The poses are those of the default model.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
from matplotlib.figure import Figure

from edgepose.build import build_model, build_smoother
from edgepose.config.loader import load_config
from edgepose.config.schema import SmoothingConfig
from edgepose.datatypes import Frame
from edgepose.inference.failover import SingleModel
from edgepose.pipeline import Pipeline
from edgepose.skeleton import KEYPOINT_NAMES
from edgepose.smoothing.no_smoother import NoSmoother
from edgepose.sources.images import read_image
from edgepose.tracking.no_tracker import NoTracker

ROOT: Final = Path(__file__).parents[1]
PHOTOGRAPH: Final = ROOT / "tests" / "data" / "camera.jpg"
KEYPOINT: Final = "right_shoulder"
FPS: Final = 30
FRAMES: Final = 75
WAY_PX: Final = -60
NOISE: Final = 8.0
STYLES: Final[dict[Literal["off", "responsive", "steady"], dict[str, Any]]] = {
    "off": {"color": "0.6", "marker": ".", "linewidth": 0.8},
    "responsive": {"color": "tab:orange", "linewidth": 1.2},
    "steady": {"color": "tab:blue", "linewidth": 1.8},
}


def main() -> None:
    """Filter the same poses with each preset, and plot one keypoint."""
    pipeline = Pipeline(
        SingleModel(build_model(load_config(None))),
        NoTracker(),
        NoSmoother(),
        (),
        node="tools",
        camera="main",
    )
    found = [pipeline.process(frame) for frame in frames()]
    shown = [result for result in found if len(result.raw)]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for preset, style in STYLES.items():
        smoother = build_smoother(SmoothingConfig(preset=preset))
        places = [
            smoother.apply(result.raw, result.frame.timestamp_ns).poses.keypoints[
                0, KEYPOINT_NAMES.index(KEYPOINT), 0
            ]
            for result in shown
        ]
        times_s = [result.frame.timestamp_ns / 1e9 for result in shown]
        axes.plot(times_s, places, label=preset, **style)
    axes.set_xlabel("time in s")
    axes.set_ylabel(f"{KEYPOINT}, x in px")
    axes.grid(visible=True, alpha=0.2)
    axes.legend()
    figure.savefig(ROOT / "docs" / "smoothing.png", dpi=110)


def frames() -> Iterator[Frame]:
    """Yield the noisy frames; the motion, from 1 to 1.5 s, begins and ends slowly."""
    image, rng = read_image(PHOTOGRAPH), np.random.default_rng(0)
    for index in range(FRAMES):
        part = min(max((index / FPS - 1.0) / 0.5, 0.0), 1.0)
        aside = WAY_PX * (1.0 - np.cos(np.pi * part)) / 2.0
        matrix = np.array([[1.0, 0.0, aside], [0.0, 1.0, 0.0]])
        moved = cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
        noisy = np.clip(moved + rng.normal(0.0, NOISE, moved.shape), 0, 255).astype(np.uint8)
        yield Frame(noisy, index * 1_000_000_000 // FPS, index)


if __name__ == "__main__":
    main()
