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

MIN_OKS: Final = 0.2
MIN_IOU: Final = 0.15
MAX_TRACKS: Final = 18
MAX_AGE_NS: Final = 1_000_000_000


class OksTracker:
    """Matches poses to tracks by object keypoint similarity, and by boxes if that fails.

    Keypoints distinguish people who stand in front of each other. At a few frames a second, though,
    the keypoints of a walker move too far for OKS, and a body at the edge of the frame has too few
    of them: `min_iou` is the box overlap that is a match then; above 1 keypoints alone decide.

    A pose without a match starts a track. A track without a pose for more than `max_age_ns` is
    dropped; if there are more than `max_tracks`, so are those without a pose for the longest time.
    Ids start at 1 and are never used again.
    """

    def __init__(
        self,
        *,
        min_oks: float = MIN_OKS,
        min_iou: float = MIN_IOU,
        max_tracks: int = MAX_TRACKS,
        max_age_ns: int = MAX_AGE_NS,
    ) -> None:
        if max_tracks < 1 or max_age_ns < 0:
            raise ValueError(
                f"expected at least one track and an age of 0 or more, got max_tracks "
                f"{max_tracks}, max_age_ns {max_age_ns}"
            )
        self._stages = ((keypoint_similarity, min_oks), (box_iou, min_iou))
        self._max_tracks = max_tracks
        self.max_age_ns = max_age_ns
        self._next_id = 1
        self.reset()

    def reset(self) -> None:
        """Drop all tracks; ids are not used again."""
        self._last = Poses.empty()
        self._ids = np.empty(0, np.int64)
        self._seen_ns = np.empty(0, np.int64)

    def update(self, poses: Poses, timestamp_ns: int) -> TrackedPoses:
        """Give every pose of the next frame its track id; timestamps never go back."""
        if len(poses) == 1 == len(self._ids) and self._match_single(poses, timestamp_ns):
            return TrackedPoses(poses, self._ids)
        alive = timestamp_ns - self._seen_ns <= self.max_age_ns
        if not alive.all():
            self._select(np.flatnonzero(alive))
        if not len(poses):
            return TrackedPoses(poses, np.empty(0, np.int64))
        track_of = self._match(poses)
        matched = track_of >= 0
        ids = np.empty(len(poses), np.int64)
        ids[matched] = self._ids[track_of[matched]]
        new = np.flatnonzero(~matched)
        # The best pose gets the lowest id, wherever it is in the frame.
        new = new[np.argsort(-poses.scores[new], kind="stable")]
        ids[new] = np.arange(self._next_id, self._next_id + len(new))
        self._next_id += len(new)
        self._store(poses, ids, track_of[matched], timestamp_ns)
        return TrackedPoses(poses, ids)

    def _match_single(self, poses: Poses, timestamp_ns: int) -> bool:
        """Match the only pose to the only track; False if they do not match.

        Any stage is enough, so the cheaper later ones are tried first. This is every frame of a
        single-pose model, and saves two thirds of the time.
        """
        if timestamp_ns - self._seen_ns.item() > self.max_age_ns:
            return False
        for similarity, minimum in reversed(self._stages):
            if similarity(poses, self._last).item() >= minimum:
                self._last = poses
                self._seen_ns[0] = timestamp_ns
                return True
        return False

    def _match(self, poses: Poses) -> NDArray[np.intp]:
        """Return the index of each pose's track, -1 for none."""
        track_of = np.full(len(poses), -1, np.intp)
        taken = np.zeros(len(self._ids), np.bool_)
        for measure, minimum in self._stages:
            if taken.all() or (track_of >= 0).all():
                break
            similarity = measure(poses, self._last)
            similarity[track_of >= 0] = -1.0
            similarity[:, taken] = -1.0
            while True:
                pose, track = divmod(int(similarity.argmax()), similarity.shape[1])
                if not similarity[pose, track] >= minimum:
                    break
                track_of[pose] = track
                taken[track] = True
                similarity[pose] = -1.0
                similarity[:, track] = -1.0
        return track_of

    def _store(
        self, poses: Poses, ids: NDArray[np.int64], matched: NDArray[np.intp], timestamp_ns: int
    ) -> None:
        """Make these poses the last of their tracks, before the tracks that were not matched."""
        missed = np.ones(len(self._ids), np.bool_)
        missed[matched] = False
        rest = self._last.select(missed)
        self._last = Poses(
            np.concatenate((poses.keypoints, rest.keypoints)),
            np.concatenate((poses.keypoint_scores, rest.keypoint_scores)),
            np.concatenate((poses.scores, rest.scores)),
            np.concatenate((poses.boxes_xyxy, rest.boxes_xyxy)),
        )
        now = np.full(len(ids), timestamp_ns, np.int64)
        self._ids = np.concatenate((ids, self._ids[missed]))
        self._seen_ns = np.concatenate((now, self._seen_ns[missed]))
        if len(self._ids) > self._max_tracks:
            newest = np.lexsort((-self._last.scores, -self._seen_ns))
            self._select(newest[: self._max_tracks])

    def _select(self, which: NDArray[np.intp]) -> None:
        self._last = self._last.select(which)
        self._ids = self._ids[which]
        self._seen_ns = self._seen_ns[which]
