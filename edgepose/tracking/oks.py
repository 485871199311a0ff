"""Tracks by object keypoint similarity."""

from typing import Final

import numpy as np

from edgepose.datatypes import Poses, TrackedPoses
from edgepose.skeleton import OKS_FALLOFFS
from edgepose.tracking.iou import MIN_IOU, box_iou
from edgepose.tracking.track_store import MAX_AGE_NS, MAX_TRACKS, Similarities, TrackStore

MIN_OKS: Final = 0.2
MIN_KEYPOINT_SCORE: Final = 0.3
"""A keypoint takes part in the comparison from this score on, in both poses."""
MIN_SHARED_KEYPOINTS: Final = 4

# 2 area k^2 with k = 2 falloffs, without the area.
_SPREAD: Final = 2.0 * np.square(2.0 * np.array(OKS_FALLOFFS, np.float32))


class OksTracker:
    """Matches poses to tracks by object keypoint similarity, and by boxes where that fails.

    Keypoints tell people apart who stand in front of each other. At a few frames a second, though,
    a walker's keypoints move further than the similarity reaches, and a body at the edge of the
    frame shows too few of them: `min_iou` is the overlap that still makes a match then, None for
    keypoints alone. `max_age_ns` is how long a track may go unseen.
    """

    def __init__(
        self,
        *,
        min_oks: float = MIN_OKS,
        min_iou: float | None = MIN_IOU,
        min_keypoint_score: float = MIN_KEYPOINT_SCORE,
        min_shared_keypoints: int = MIN_SHARED_KEYPOINTS,
        max_tracks: int = MAX_TRACKS,
        max_age_ns: int = MAX_AGE_NS,
    ) -> None:
        self._min_keypoint_score = min_keypoint_score
        self._min_shared_keypoints = min_shared_keypoints
        stages = [(self._similarity, min_oks)]
        if min_iou is not None:
            stages.append((box_iou, min_iou))
        self._tracks = TrackStore(stages, max_tracks=max_tracks, max_age_ns=max_age_ns)

    def update(self, poses: Poses, timestamp_ns: int) -> TrackedPoses:
        """Give every pose of the next frame its track id; timestamps never go back."""
        return self._tracks.update(poses, timestamp_ns)

    def reset(self) -> None:
        """Forget all tracks; ids are not used again."""
        self._tracks.reset()

    def _similarity(self, poses: Poses, others: Poses) -> Similarities:
        return keypoint_similarity(
            poses,
            others,
            min_keypoint_score=self._min_keypoint_score,
            min_shared_keypoints=self._min_shared_keypoints,
        )


def keypoint_similarity(
    poses: Poses,
    others: Poses,
    *,
    min_keypoint_score: float = MIN_KEYPOINT_SCORE,
    min_shared_keypoints: int = MIN_SHARED_KEYPOINTS,
) -> Similarities:
    """Return the object keypoint similarity, 0..1, of n poses and m others, (n, m).

    The mean of exp(-d^2 / (2 area k^2)) over the keypoints visible in both, 0 where those are too
    few; k is twice a keypoint's falloff, the area that of the box around the visible keypoints of
    the other pose (COCO's evaluation has the person's segment there, which nobody has here).
    """
    visible = others.keypoint_scores >= min_keypoint_score
    shared = (poses.keypoint_scores >= min_keypoint_score)[:, np.newaxis] & visible
    counts = shared.sum(axis=2)
    seen = visible[:, :, np.newaxis]
    extents = np.where(seen, others.keypoints, -np.inf).max(axis=1) - np.where(
        seen, others.keypoints, np.inf
    ).min(axis=1)
    # Nothing visible gives -inf, which must not multiply to +inf; a line has no area, but 1 px wide
    # it is still better than a division by zero.
    np.maximum(extents, 1.0, out=extents)
    areas = (extents[:, 0] * extents[:, 1])[:, np.newaxis]
    apart = np.square(poses.keypoints[:, np.newaxis] - others.keypoints).sum(axis=3)
    alike = np.exp(-apart / (areas * _SPREAD))
    alike *= shared
    similarity: Similarities = alike.sum(axis=2) / np.maximum(counts, 1)
    similarity[counts < min_shared_keypoints] = 0.0
    return similarity
