"""The keypoint tracker of tfjs-models' `pose-detection`, to compare with."""

import numpy as np

from edgepose.datatypes import Poses, TrackedPoses
from edgepose.tracking.similarity import keypoint_similarity

MIN_OKS = 0.2
MAX_AGE_NS = 1_000_000_000


class TfjsTracker:
    """Gives each pose, in their order, the most similar track that is left."""

    def __init__(self) -> None:
        self._tracks: dict[int, tuple[int, Poses]] = {}
        self._next_id = 1

    def update(self, poses: Poses, timestamp_ns: int) -> TrackedPoses:
        """Assign a track id to every pose."""
        oldest_ns = timestamp_ns - MAX_AGE_NS
        self._tracks = {i: t for i, t in self._tracks.items() if t[0] >= oldest_ns}
        ids: list[int] = []
        for index in range(len(poses)):
            pose = poses.select(np.array([index]))
            similar = {
                track_id: keypoint_similarity(pose, last).item()
                for track_id, (_, last) in self._tracks.items()
                if track_id not in ids
            }
            best = max(similar, key=similar.__getitem__, default=None)
            if best is None or similar[best] < MIN_OKS:
                best, self._next_id = self._next_id, self._next_id + 1
            ids.append(best)
            self._tracks[best] = timestamp_ns, pose
        return TrackedPoses(poses, np.array(ids, np.int64))

    def reset(self) -> None:
        """Forget all tracks."""
        self._tracks.clear()
