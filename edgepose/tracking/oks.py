"""Tracking by object keypoint similarity (OKS)."""

from typing import Final

import numpy as np

from edgepose.datatypes import Floats, Poses
from edgepose.skeleton import OKS_FALLOFFS
from edgepose.tracking.iou import box_iou
from edgepose.tracking.track_store import MAX_AGE_NS, MAX_TRACKS, TrackStore

MIN_OKS: Final = 0.2
MIN_IOU: Final = 0.15
MIN_KEYPOINT_SCORE: Final = 0.3
"""Keypoints are compared if their score reaches this in both poses."""
MIN_SHARED_KEYPOINTS: Final = 4

# The variance term 2 k^2, with k twice the keypoint's falloff.
_VARIANCES: Final = 2.0 * np.square(2.0 * np.array(OKS_FALLOFFS, np.float32))


class OksTracker(TrackStore):
    """Matches poses to tracks by object keypoint similarity, and by boxes if that fails.

    Keypoints distinguish people who stand in front of each other. At a few frames a second, though,
    the keypoints of a walker move too far for OKS, and a body at the edge of the frame has too few
    of them: `min_iou` is the box overlap that is a match then, None to compare keypoints only.
    `max_age_ns` is how long a track is kept without a pose.
    """

    def __init__(
        self,
        *,
        min_oks: float = MIN_OKS,
        min_iou: float | None = MIN_IOU,
        max_tracks: int = MAX_TRACKS,
        max_age_ns: int = MAX_AGE_NS,
    ) -> None:
        stages = [(keypoint_similarity, min_oks)]
        if min_iou is not None:
            stages.append((box_iou, min_iou))
        super().__init__(stages, max_tracks=max_tracks, max_age_ns=max_age_ns)


def keypoint_similarity(poses: Poses, others: Poses) -> Floats:
    """Return the object keypoint similarity, 0..1, of n poses and m others, (n, m).

    The mean of exp(-d^2 / (2 area k^2)) over the keypoints visible in both, 0 if they are fewer
    than MIN_SHARED_KEYPOINTS; k is twice a keypoint's falloff, the area that of the box around the
    visible keypoints of the other pose (COCO's evaluation uses the area of the person's
    segmentation, which is not available here).
    """
    visible = others.keypoint_scores >= MIN_KEYPOINT_SCORE
    shared = (poses.keypoint_scores >= MIN_KEYPOINT_SCORE)[:, np.newaxis] & visible
    counts = shared.sum(axis=2)
    mask = visible[:, :, np.newaxis]
    extents = np.where(mask, others.keypoints, -np.inf).max(axis=1) - np.where(
        mask, others.keypoints, np.inf
    ).min(axis=1)
    # Without visible keypoints this is -inf, which must not multiply to +inf; a line has no area,
    # but with a width of 1 px there is no division by zero.
    np.maximum(extents, 1.0, out=extents)
    areas = (extents[:, 0] * extents[:, 1])[:, np.newaxis]
    squared = np.square(poses.keypoints[:, np.newaxis] - others.keypoints).sum(axis=3)
    per_keypoint = np.exp(-squared / (areas * _VARIANCES)) * shared
    similarity: Floats = per_keypoint.sum(axis=2) / np.maximum(counts, 1)
    similarity[counts < MIN_SHARED_KEYPOINTS] = 0.0
    return similarity
