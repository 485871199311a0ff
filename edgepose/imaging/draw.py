"""Skeletons drawn on images."""

from typing import Final

import cv2
import numpy as np

from edgepose.datatypes import Image, Poses
from edgepose.skeleton import EDGES, KEYPOINT_NAMES

# Left, right and middle in RGB, so that exchanged sides are obvious.
_LEFT: Final = (0, 200, 255)
_RIGHT: Final = (255, 140, 0)
_MIDDLE: Final = (120, 230, 120)


def draw_poses(image: Image, poses: Poses, keypoint_threshold: float) -> Image:
    """Return a copy of an image (height, width, 3) RGB with the skeletons of its poses on it.

    Left limbs are blue, right ones orange; keypoints below the threshold are left out.
    """
    drawn = image.copy()
    width = max(1, round(max(image.shape[:2]) / 250))
    for keypoints, scores in zip(poses.keypoints, poses.keypoint_scores, strict=True):
        points = np.rint(keypoints).astype(int).tolist()
        for start, end in EDGES:
            if min(scores[start], scores[end]) >= keypoint_threshold:
                colour = _colour(start, end)
                cv2.line(drawn, points[start], points[end], colour, width, cv2.LINE_AA)
        for index, (point, score) in enumerate(zip(points, scores, strict=True)):
            if score >= keypoint_threshold:
                cv2.circle(drawn, point, 2 * width, _colour(index, index), -1, cv2.LINE_AA)
    return drawn


def _colour(start: int, end: int) -> tuple[int, int, int]:
    sides = {KEYPOINT_NAMES[index].partition("_")[0] for index in (start, end)} - {"nose"}
    if sides == {"left"}:
        return _LEFT
    if sides == {"right"}:
        return _RIGHT
    return _MIDDLE
