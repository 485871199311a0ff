"""Skeletons and zones drawn on images."""

from collections.abc import Iterable, Mapping
from typing import Final

import cv2
import numpy as np

from edgepose.datatypes import Image, Poses
from edgepose.skeleton import EDGES, KEYPOINT_NAMES
from edgepose.util.polygon import Point, Polygon

# Left, right and middle in RGB, so that exchanged sides are obvious.
_LEFT: Final = (0, 200, 255)
_RIGHT: Final = (255, 140, 0)
_MIDDLE: Final = (120, 230, 120)
_ZONE: Final = (255, 230, 60)
_SHADOW: Final = (0, 0, 0)


def draw_poses(image: Image, poses: Poses, keypoint_threshold: float) -> Image:
    """Return a copy of an image (height, width, 3) RGB with the skeletons of its poses on it.

    Left limbs are blue, right ones orange; keypoints below the threshold are left out.
    """
    drawn = image.copy()
    width = _line_width(image)
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


def draw_zones(image: Image, zones: Mapping[str, Polygon], places: Iterable[Point]) -> Image:
    """Return a copy of an image with the outline and the label of each zone on it.

    Corners are fractions of the image; a label is at the zone's upper corner. A cross marks each of
    the `places`, in px.
    """
    drawn = image.copy()
    size_wh, width = (image.shape[1], image.shape[0]), _line_width(image)
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.4, 0.3 * width)
    for label, polygon in zones.items():
        corners = np.rint(np.multiply(polygon, size_wh) - 0.5).astype(np.int32)
        (text_width, text_height), _ = cv2.getTextSize(label, font, scale, 1)
        x, y = min(corners.tolist(), key=lambda corner: (corner[1], corner[0]))
        place = min(x + 2 * width, max(0, size_wh[0] - text_width)), y + text_height + 2 * width
        for colour, extra in ((_SHADOW, 2), (_ZONE, 0)):
            cv2.polylines(drawn, [corners], True, colour, width + extra, cv2.LINE_AA)
            thickness = max(1, width // 2) + extra
            cv2.putText(drawn, label, place, font, scale, colour, thickness, cv2.LINE_AA)
    for point in places:
        cross = np.rint(point).astype(int).tolist()
        cv2.drawMarker(drawn, cross, _ZONE, cv2.MARKER_TILTED_CROSS, 10 * width, width, cv2.LINE_AA)
    return drawn


def _line_width(image: Image) -> int:
    longer_px: int = max(image.shape[:2])
    return max(1, round(longer_px / 250))


def _colour(start: int, end: int) -> tuple[int, int, int]:
    sides = {KEYPOINT_NAMES[index].partition("_")[0] for index in (start, end)} - {"nose"}
    if sides == {"left"}:
        return _LEFT
    if sides == {"right"}:
        return _RIGHT
    return _MIDDLE
