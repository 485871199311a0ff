"""No identity over time."""

import numpy as np

from edgepose.datatypes import Poses, TrackedPoses


class NoTracker:
    """Numbers the poses of every frame from 1, for pictures that have nothing to do with each
    other.
    """  # noqa: D205

    def update(self, poses: Poses, timestamp_ns: int) -> TrackedPoses:  # noqa: ARG002
        """Give the poses the ids 1, 2, 3 in their order."""
        return TrackedPoses(poses, np.arange(1, len(poses) + 1, dtype=np.int64))

    def reset(self) -> None:
        """Nothing is remembered, so nothing is forgotten."""
