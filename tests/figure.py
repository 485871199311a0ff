"""A drawn person that a model recognizes, for clips of known motion."""

from typing import Final

import cv2
import numpy as np

from edgepose.datatypes import Image
from edgepose.skeleton import KEYPOINT_NAMES
from tests.kinematics import Camera, Points

_SKIN: Final = (225, 180, 150)
_SHIRT: Final = (60, 90, 170)
_TROUSERS: Final = (50, 50, 60)
_SHOE: Final = (30, 25, 25)
_HAIR: Final = (60, 40, 25)
_WALL: Final = (200, 195, 185)
_FLOOR: Final = (140, 110, 80)
_FAR: Final = 0.8
"""The brightness of the limbs on the far side."""

Colour = tuple[int, int, int]


def room(size_wh: tuple[int, int] = (640, 480)) -> Image:
    """Return a wall and a floor with some noise."""
    width, height = size_wh
    image = np.empty((height, width, 3))
    image[:] = _WALL
    image[height * 5 // 8 :] = _FLOOR
    noise = np.random.default_rng(1).normal(0, 14, image.shape)
    return np.clip(image + cv2.GaussianBlur(noise, (0, 0), 2), 0, 255).astype(np.uint8)


def drawn(body: Points, camera: Camera, background: Image) -> Image:
    """Return an image of a body, keypoints (17, 3) in metres, in clothes before a background."""
    image = background.copy()
    pixels = camera.project(body)
    at = dict(zip(KEYPOINT_NAMES, pixels, strict=True))
    deep = dict(zip(KEYPOINT_NAMES, body[:, 1], strict=True))
    scale = camera.size_wh[0] / 2 / np.tan(np.radians(camera.view) / 2) / camera.distance_m

    def limb(one: Points, other: Points, radius_m: float, colour: Colour, bright: float) -> None:
        shaded = [channel * bright for channel in colour]
        start, end = (np.rint(point).astype(int).tolist() for point in (one, other))
        cv2.line(image, start, end, shaded, round(2 * radius_m * scale), cv2.LINE_AA)

    def arm(side: str, bright: float) -> None:
        shoulder, elbow, wrist = (at[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
        limb(shoulder, elbow, 0.045, _SKIN, bright)
        limb(shoulder, 0.55 * shoulder + 0.45 * elbow, 0.06, _SHIRT, bright)
        limb(elbow, wrist + 0.25 * (wrist - elbow), 0.036, _SKIN, bright)

    def leg(side: str, bright: float) -> None:
        hip, knee, ankle = (at[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
        limb(hip, knee, 0.075, _TROUSERS, bright)
        limb(knee, ankle, 0.05, _TROUSERS, bright)
        limb(ankle, ankle + foot, 0.04, _SHOE, bright)

    ears = (body[3] + body[4]) / 2
    ahead = (body[0] - ears) * (1, 1, 0)
    foot = camera.project(body + 0.17 * ahead / max(0.02, np.linalg.norm(ahead)))[15] - pixels[15]
    near, far = sorted(("left", "right"), key=lambda side: deep[f"{side}_shoulder"])
    arm(far, _FAR)
    leg(far, _FAR)
    for part in np.linspace(0, 1, 20):
        left, right = (
            (1 - part) * at[f"{side}_hip"] + part * at[f"{side}_shoulder"]
            for side in ("left", "right")
        )
        limb(left, right, 0.095, _SHIRT if part > 0.1 else _TROUSERS, 1)
    leg(near, 1)
    shoulders, head = pixels[5:7].mean(axis=0), pixels[3:5].mean(axis=0)
    limb(shoulders, head, 0.06, _SKIN, 1)
    crown = head + 0.04 * scale * (head - shoulders) / np.linalg.norm(head - shoulders)
    limb(crown, crown, 0.105, _HAIR, 1)
    face = 0.6 * head + 0.4 * at["nose"]
    limb(face, face, 0.095, _SKIN, 1)
    for eye in ("left_eye", "right_eye"):
        limb(at[eye], at[eye], 0.012, _SHOE, 1)
    arm(near, 1)
    return cv2.GaussianBlur(image, (0, 0), 1).astype(np.uint8, copy=False)
