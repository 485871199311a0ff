"""The life of tracks: born with a pose that resembles none, kept while seen, forgotten with age.

The constants are those of tfjs-models' `pose-detection` trackers. Two things differ: poses are
matched in the order of their similarity to a track instead of one pose after the other, so that
their order in the frame does not decide who is who; and what one measure of similarity leaves
unmatched may be matched by a second one.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import Floats, Poses, TrackedPoses

MAX_TRACKS: Final = 18
MAX_AGE_NS: Final = 1_000_000_000

Similarities = Floats
Similarity = Callable[[Poses, Poses], Similarities]
"""Takes n poses and the last poses of t tracks; returns how alike they are, (n, t)."""


class TrackStore:
    """Every track that is alive, and the matching of poses to them.

    `stages` are measures of similarity, each with the least that makes a match; the later ones see
    what the earlier ones left. A track not seen for more than `max_age_ns` is forgotten, and so are
    the longest unseen where there are more than `max_tracks`. Ids count from 1 and are never used
    again.
    """

    def __init__(
        self, stages: Sequence[tuple[Similarity, float]], *, max_tracks: int, max_age_ns: int
    ) -> None:
        if max_tracks < 1 or max_age_ns < 0:
            raise ValueError(
                f"expected at least one track and an age of 0 or more, got max_tracks "
                f"{max_tracks}, max_age_ns {max_age_ns}"
            )
        self._stages = tuple(stages)
        self._max_tracks = max_tracks
        self._max_age_ns = max_age_ns
        self._next_id = 1
        self.reset()

    def reset(self) -> None:
        """Forget all tracks; ids are not used again."""
        self._last = Poses.empty()
        self._ids = np.empty(0, np.int64)
        self._seen_ns = np.empty(0, np.int64)

    def update(self, poses: Poses, timestamp_ns: int) -> TrackedPoses:
        """Give every pose its track id: that of the track it resembles most, or a new one."""
        if len(poses) == 1 == len(self._ids) and self._goes_on(poses, timestamp_ns):
            return TrackedPoses(poses, self._ids)
        alive = timestamp_ns - self._seen_ns <= self._max_age_ns
        if not alive.all():
            self._keep(np.flatnonzero(alive))
        if not len(poses):
            return TrackedPoses(poses, np.empty(0, np.int64))
        track_of = self._match(poses)
        new = track_of < 0
        ids = np.empty(len(poses), np.int64)
        ids[~new] = self._ids[track_of[~new]]
        born = np.flatnonzero(new)
        if len(born):
            # The best pose gets the lowest id, wherever it stands in the frame.
            born = born[np.argsort(-poses.scores[born], kind="stable")]
            ids[born] = np.arange(self._next_id, self._next_id + len(born))
            self._next_id += len(born)
        self._remember(poses, ids, track_of[~new], timestamp_ns)
        return TrackedPoses(poses, ids)

    def _goes_on(self, poses: Poses, timestamp_ns: int) -> bool:
        """Follow the only track by the only pose, which needs no matching; False for a new one.

        Any measure is enough then, so the cheaper later ones are asked first. This is every frame
        of a single-pose model, and spares it two thirds of the time.
        """
        if timestamp_ns - self._seen_ns.item() > self._max_age_ns:
            return False
        for similarity, least in reversed(self._stages):
            if similarity(poses, self._last).item() >= least:
                self._last = poses
                self._seen_ns[0] = timestamp_ns
                return True
        return False

    def _match(self, poses: Poses) -> NDArray[np.intp]:
        """Return the index of each pose's track, -1 for none."""
        track_of = np.full(len(poses), -1, np.intp)
        taken = np.zeros(len(self._ids), np.bool_)
        for similarity, least in self._stages:
            if taken.all() or (track_of >= 0).all():
                break
            alike = similarity(poses, self._last)
            alike[track_of >= 0] = -1.0
            alike[:, taken] = -1.0
            while True:
                best = int(alike.argmax())
                pose, track = divmod(best, alike.shape[1])
                if not alike[pose, track] >= least:
                    break
                track_of[pose] = track
                taken[track] = True
                alike[pose] = -1.0
                alike[:, track] = -1.0
        return track_of

    def _remember(
        self, poses: Poses, ids: NDArray[np.int64], seen: NDArray[np.intp], timestamp_ns: int
    ) -> None:
        """Make these poses the last of their tracks, before those that were not seen."""
        unseen = np.ones(len(self._ids), np.bool_)
        unseen[seen] = False
        now = np.full(len(ids), timestamp_ns, np.int64)
        if unseen.any():
            lost = self._last.select(unseen)
            self._last = Poses(
                np.concatenate((poses.keypoints, lost.keypoints)),
                np.concatenate((poses.keypoint_scores, lost.keypoint_scores)),
                np.concatenate((poses.scores, lost.scores)),
                np.concatenate((poses.boxes_xyxy, lost.boxes_xyxy)),
            )
            self._ids = np.concatenate((ids, self._ids[unseen]))
            self._seen_ns = np.concatenate((now, self._seen_ns[unseen]))
        else:
            self._last, self._ids, self._seen_ns = poses, ids, now
        if len(self._ids) > self._max_tracks:
            newest = np.lexsort((-self._last.scores, -self._seen_ns))
            self._keep(newest[: self._max_tracks])

    def _keep(self, which: NDArray[np.intp]) -> None:
        self._last = self._last.select(which)
        self._ids = self._ids[which]
        self._seen_ns = self._seen_ns[which]
