"""Bodies in px, for the tests of trackers."""

import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import Poses, TrackedPoses

MS = 1_000_000
Body = NDArray[np.float64]

BODY: Body = np.array(
    [
        (50, 10), (54, 7), (46, 7), (58, 10), (42, 10), (66, 35), (34, 35), (74, 65), (26, 65),
        (76, 95), (24, 95), (60, 95), (40, 95), (61, 145), (39, 145), (62, 190), (38, 190),
    ],
    np.float64,
)  # fmt: skip
"""(17, 2) keypoints in px of a standing person of 190 px."""


def at(x: float, y: float = 0.0) -> Body:
    """Return BODY, moved by x and y px."""
    moved: Body = BODY + np.array((x, y))
    return moved


def standing(x: float, y: float) -> Body:
    """Return BODY with its feet at a point; its box is 183 px high."""
    return at(x - 50, y - 190)


def turned(body: Body, degrees: float) -> Body:
    """Return a body turned about its hips; its head goes to the left, against the clock."""
    centre = body[11:13].mean(axis=0)
    radians = np.radians(degrees)
    matrix = np.array(((np.cos(radians), -np.sin(radians)), (np.sin(radians), np.cos(radians))))
    rotated: Body = (body - centre) @ matrix + centre
    return rotated


def lying(x: float, y: float) -> Body:
    """Return a body that lies with its head to the left, 190 px long, moved by x and y px."""
    moved: Body = np.column_stack((BODY[:, 1], 100 - BODY[:, 0])) + np.array((x, y))
    return moved


def ids(tracked: TrackedPoses) -> list[int]:
    """Return the track ids in the order of the poses."""
    found: list[int] = tracked.track_ids.tolist()
    return found


def random_poses(rng: np.random.Generator, count: int) -> Poses:
    """Return poses at random places, some overlapping, some keypoints not visible."""
    places = rng.uniform(0, 500, (count, 1, 2))
    keypoints = (BODY + places + rng.normal(0, 3, (count, 17, 2))).astype(np.float32)
    return Poses(
        keypoints,
        rng.uniform(0, 1, (count, 17)).astype(np.float32),
        rng.permutation(np.linspace(0.3, 0.9, count)).astype(np.float32),
        np.concatenate((keypoints.min(axis=1), keypoints.max(axis=1)), axis=1),
    )
