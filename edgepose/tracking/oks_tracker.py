"""Tracking by object keypoint similarity (OKS).

The constants are those of tfjs-models' `pose-detection` trackers. Two things differ: poses are
matched in the order of their similarity to a track instead of one pose after the other, so that
their order in the frame does not matter; and poses that OKS leaves unmatched are matched by the
overlap of their boxes.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import Poses, TrackedPoses
from edgepose.tracking.similarity import box_iou, keypoint_similarity

MAX_TRACKS: Final = 18
MAX_AGE_NS: Final = 1_000_000_000

# At a few frames a second, the keypoints of a walker move too far for OKS, and a body at the edge
# of the frame has too few of them: then the overlap of the boxes decides.
MIN_OKS: Final = 0.2
MIN_IOU: Final = 0.15
_STAGES: Final = ((keypoint_similarity, MIN_OKS), (box_iou, MIN_IOU))
"""Measures of similarity, and the minimum of a match."""


class OksTracker:
    """Matches poses to tracks by object keypoint similarity, and the rest by their boxes.

    A pose without a match starts a track. A track without a pose for more than `max_age_ns` is
    dropped; if there are more than MAX_TRACKS, so are those without a pose for the longest time.
    Ids start at 1 and are never used again.
    """

    def __init__(self, *, max_age_ns: int = MAX_AGE_NS) -> None:
        self.max_age_ns = max_age_ns
        self._next_id = 1
        self.reset()

    def reset(self) -> None:
        """Drop all tracks; ids are not used again."""
        self._last = Poses.empty()
        self._ids = np.empty(0, np.int64)
        self._seen_ns = np.empty(0, np.int64)

    def update(self, poses: Poses, timestamp_ns: int) -> TrackedPoses:
        """Assign a track id to every pose of the next frame; timestamps never go back."""
        if self._continues_single(poses, timestamp_ns):
            self._last, self._seen_ns[0] = poses, timestamp_ns
            return TrackedPoses(poses, self._ids)
        self._select(timestamp_ns - self._seen_ns <= self.max_age_ns)
        track_of = self._match(poses)
        matched = track_of >= 0
        ids = np.empty(len(poses), np.int64)
        ids[matched] = self._ids[track_of[matched]]
        # The best pose gets the lowest id, wherever it is in the frame.
        new = np.flatnonzero(~matched)
        new = new[np.argsort(-poses.scores[new], kind="stable")]
        ids[new] = np.arange(self._next_id, self._next_id + len(new))
        self._next_id += len(new)
        self._store(poses, ids, timestamp_ns)
        return TrackedPoses(poses, ids)

    def _continues_single(self, poses: Poses, timestamp_ns: int) -> bool:
        """Whether the boxes of the only pose and the only track match.

        As in nearly every frame with one person: 3 us instead of more than 100 (x86-64).
        """
        return (
            len(poses) == 1 == len(self._ids)
            and timestamp_ns - self._seen_ns.item() <= self.max_age_ns
            and box_iou(poses, self._last).item() >= MIN_IOU
        )

    def _match(self, poses: Poses) -> NDArray[np.intp]:
        """Return the index of each pose's track, -1 for none."""
        track_of = np.full(len(poses), -1, np.intp)
        for measure, minimum in _STAGES:
            similarity = measure(poses, self._last)
            matched = track_of >= 0
            similarity[matched] = -1.0
            similarity[:, track_of[matched]] = -1.0
            while similarity.size and similarity.max() >= minimum:
                pose, track = divmod(int(similarity.argmax()), similarity.shape[1])
                track_of[pose] = track
                similarity[pose] = -1.0
                similarity[:, track] = -1.0
        return track_of

    def _store(self, poses: Poses, ids: NDArray[np.int64], timestamp_ns: int) -> None:
        """Make these poses the last of their tracks, before the tracks that were not matched."""
        self._select(~np.isin(self._ids, ids))
        last = self._last
        self._last = Poses(
            np.concatenate((poses.keypoints, last.keypoints)),
            np.concatenate((poses.keypoint_scores, last.keypoint_scores)),
            np.concatenate((poses.scores, last.scores)),
            np.concatenate((poses.boxes_xyxy, last.boxes_xyxy)),
        )
        self._ids = np.concatenate((ids, self._ids))
        now = np.full(len(ids), timestamp_ns, np.int64)
        self._seen_ns = np.concatenate((now, self._seen_ns))
        if len(self._ids) > MAX_TRACKS:
            newest = np.lexsort((-self._last.scores, -self._seen_ns))
            self._select(newest[:MAX_TRACKS])

    def _select(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> None:
        self._last = self._last.select(which)
        self._ids = self._ids[which]
        self._seen_ns = self._seen_ns[which]
