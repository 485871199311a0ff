"""Small constructors for tests."""

import os
from typing import NoReturn

import numpy as np
import pytest
from numpy.typing import ArrayLike

from edgepose.datatypes import Frame, Poses, TrackedPoses

SECOND_NS = 1_000_000_000


def missing(reason: str) -> NoReturn:
    """Skip a test whose requirement is not installed; fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def frame_of(
    size_wh: tuple[int, int] = (64, 48), timestamp_ns: int = SECOND_NS, sequence: int = 0
) -> Frame:
    """Return a grey frame."""
    return Frame(np.full((size_wh[1], size_wh[0], 3), 127, np.uint8), timestamp_ns, sequence)


def poses_of(*keypoints: ArrayLike, score: float = 0.9) -> Poses:
    """Return one pose for each (17, 2) array of keypoints, all with the same score."""
    points = np.array(keypoints, np.float32).reshape(-1, 17, 2)
    return Poses(
        points,
        np.full(points.shape[:2], score, np.float32),
        np.full(len(points), score, np.float32),
        np.concatenate((points.min(axis=1), points.max(axis=1)), axis=1).reshape(-1, 4)
        if len(points)
        else np.empty((0, 4), np.float32),
    )


def tracked_of(*keypoints: ArrayLike, first_id: int = 1) -> TrackedPoses:
    """Return tracked poses with ids counting up from `first_id`."""
    poses = poses_of(*keypoints)
    return TrackedPoses(poses, np.arange(first_id, first_id + len(poses), dtype=np.int64))
