"""Write docs/posture.png: the postures of made bodies, as docs/posture.md shows them.

Run `python -m tools.posture_picture` in the repository after a change of the posture model.
"""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
import PIL.Image

from edgepose.datatypes import Image, Poses
from edgepose.events.posture import POSTURES, posture_probabilities
from edgepose.imaging.draw import draw_poses
from tests.kinematics import BENDING, CROUCHING, ON_BACK, SITTING, STANDING, Camera, Stance, body

FILE: Final = Path(__file__).parents[1] / "docs" / "posture.png"
STANCES: Final = (STANDING, SITTING, ON_BACK, CROUCHING, BENDING)
CAMERA: Final = Camera(height_m=1.2, distance_m=2.0, size_wh=(260, 260))


def panel(stance: Stance) -> Image:
    """Return an image of a body, with its posture and the probability of that."""
    points = CAMERA.project(body(stance, heading=70)).astype(np.float32)
    scores = np.full(17, 0.6, np.float32)
    box = np.concatenate((points.min(axis=0), points.max(axis=0)))[np.newaxis]
    poses = Poses(points[np.newaxis], scores[np.newaxis], np.ones(1, np.float32), box)
    image = draw_poses(np.full((260, 260, 3), 255, np.uint8), poses, 0.3)
    probabilities = posture_probabilities(points.tolist(), scores.tolist())
    highest = max(probabilities)
    text = f"{POSTURES[probabilities.index(highest)]} {highest:.2f}"
    font, black = cv2.FONT_HERSHEY_SIMPLEX, (0.0, 0.0, 0.0)
    return cv2.putText(image, text, (12, 240), font, 0.7, black, 1, cv2.LINE_AA).astype(np.uint8)


def main() -> None:
    """Draw the stances side by side."""
    PIL.Image.fromarray(np.hstack([panel(stance) for stance in STANCES])).save(FILE, optimize=True)


if __name__ == "__main__":
    main()
