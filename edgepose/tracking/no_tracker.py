"""No identity over time."""

import numpy as np

from edgepose.datatypes import Poses, TrackedPoses


class NoTracker:
    """Numbers the poses of every frame from 1, for images that are independent of each other."""

    def update(self, poses: Poses, timestamp_ns: int) -> TrackedPoses:  # noqa: ARG002
        """Give the poses the ids 1, 2, 3 in their order."""
        return TrackedPoses(poses, np.arange(1, len(poses) + 1, dtype=np.int64))

    def reset(self) -> None:
        """Do nothing: there is no state."""
