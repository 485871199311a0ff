"""Tracking by object keypoint similarity (OKS) to where each track is expected.

MIN_OKS, MIN_IOU and MAX_TRACKS are the constants of tfjs-models' `pose-detection` trackers. What is
beyond them was chosen on made sequences: docs/people.md has its reasons and figures.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from edgepose.datatypes import Floats, Poses, TrackedPoses
from edgepose.tracking.similarity import box_iou, box_nearness, iou, keypoint_similarity
from edgepose.tracking.track import Track, bodies

MAX_TRACKS: Final = 18
MAX_AGE_NS: Final = 3_000_000_000

# At a few frames a second, the keypoints of a walker move too far for OKS, and a body at the edge
# of the frame has too few of them: then the overlap of the boxes decides.
MIN_OKS: Final = 0.2
MIN_IOU: Final = 0.15
# In a moment people hardly move: a pose that is less similar to a track seen just now is of another
# person, who was hidden or is new. The minima of a track of age 0, and how they fall in a second.
FIRST_MIN_OKS: Final = 0.8
OKS_FALL_PER_S: Final = 5.0
FIRST_MIN_IOU: Final = 0.6
IOU_FALL_PER_S: Final = 3.0
# How far from the expected place a person may be found again, in sizes of the box.
FIRST_REACH: Final = 0.3
REACH_PER_S: Final = 2.0
MAX_REACH: Final = 1.5
AGE_WEIGHT: Final = 0.4
"""How much less similar a track counts as for each second since it was seen: where a visible person
hides another, the pose is that of the visible one."""
MIN_DUPLICATE_OKS: Final = 0.5
"""From here on, a pose is a second one of the body whose track another pose continues."""

NO_TRACK: Final = -1
NO_MATCH: Final = -np.inf


class OksTracker:
    """Matches poses to tracks by keypoints, then by overlap, then by distance.

    A track is expected where the velocity of its torso takes it. A pose without a match starts a
    track; on top of a pose that continues a track it is a second pose of that body, and is left
    out. A track without a pose for more than `max_age_ns` is dropped; if there are more than
    MAX_TRACKS, so are those without a pose for the longest time. Ids start at 1 and are never used
    again.
    """

    def __init__(self, *, max_age_ns: int = MAX_AGE_NS) -> None:
        self.max_age_ns = max_age_ns
        self._next_id = 1
        self.reset()

    def reset(self) -> None:
        """Drop all tracks; ids are not used again."""
        self._tracks: list[Track] = []
        self._last = Poses.empty()
        """The last pose of each track, in their order."""

    def update(self, poses: Poses, timestamp_ns: int) -> TrackedPoses:
        """Assign a track id to the poses of the next frame; timestamps never go back."""
        if self._continues_single(poses, timestamp_ns):
            self._tracks[0].update(bodies(poses)[0], timestamp_ns)
            self._last = poses
            return _tracked(poses, self._tracks)
        oldest_ns = timestamp_ns - self.max_age_ns
        self._select([i for i, track in enumerate(self._tracks) if track.seen_ns >= oldest_ns])
        track_of = self._match(poses, timestamp_ns)
        duplicates = _duplicates(poses, track_of)
        if duplicates:
            kept = [pose for pose in range(len(poses)) if pose not in duplicates]
            poses, track_of = poses.select(np.array(kept)), [track_of[pose] for pose in kept]
        found = self._continue_or_start(poses, track_of, timestamp_ns)
        self._store(poses, found)
        return _tracked(poses, found)

    def _continues_single(self, poses: Poses, timestamp_ns: int) -> bool:
        """Whether the boxes of the only pose and the only track match.

        As in nearly every frame with one person: 7 us instead of 80 (x86-64).
        """
        return (
            len(poses) == 1 == len(self._tracks)
            and timestamp_ns - self._tracks[0].seen_ns <= self.max_age_ns
            and iou(poses.box_list[0], self._last.box_list[0]) >= MIN_IOU
        )

    def _match(self, poses: Poses, timestamp_ns: int) -> list[int]:
        """Return the index of each pose's track, NO_TRACK for none."""
        track_of = [NO_TRACK] * len(poses)
        free = set(range(len(self._tracks)))
        for similarity in self._similarities(poses, timestamp_ns):
            pairs = [
                (-similar, pose, track)
                for pose, row in enumerate(similarity.tolist())
                for track, similar in enumerate(row)
                if similar > NO_MATCH
            ]
            for _, pose, track in sorted(pairs):
                if track_of[pose] == NO_TRACK and track in free:
                    track_of[pose] = track
                    free.remove(track)
            if not free or NO_TRACK not in track_of:
                break
        return track_of

    def _similarities(self, poses: Poses, timestamp_ns: int) -> Iterator[Floats]:
        """Yield one measure after the other, (n, m), NO_MATCH below its minimum."""
        expected = self._expected(timestamp_ns)
        seen_ns = [track.seen_ns for track in self._tracks]
        ages_s = (timestamp_ns - np.array(seen_ns, np.int64)) / 1e9
        handicaps = AGE_WEIGHT * ages_s
        oks = keypoint_similarity(poses, expected)
        min_oks = np.maximum(FIRST_MIN_OKS - OKS_FALL_PER_S * ages_s, MIN_OKS)
        yield np.where(oks >= min_oks, oks - handicaps, NO_MATCH)
        overlap = box_iou(poses, expected)
        min_iou = np.maximum(FIRST_MIN_IOU - IOU_FALL_PER_S * ages_s, MIN_IOU)
        yield np.where(overlap >= min_iou, overlap - handicaps, NO_MATCH)
        nearness = box_nearness(poses, expected)
        reach = np.minimum(FIRST_REACH + REACH_PER_S * ages_s, MAX_REACH)
        yield np.where(nearness >= 1.0 - reach, nearness - handicaps, NO_MATCH)

    def _expected(self, timestamp_ns: int) -> Poses:
        """Return where the pose of each track is expected."""
        shifts = [track.shift_xy(timestamp_ns) for track in self._tracks]
        shift = np.array(shifts, np.float32).reshape(-1, 2)
        last = self._last
        return Poses(
            last.keypoints + shift[:, np.newaxis],
            last.keypoint_scores,
            last.scores,
            last.boxes_xyxy + np.concatenate((shift, shift), axis=1),
        )

    def _continue_or_start(
        self, poses: Poses, track_of: Sequence[int], timestamp_ns: int
    ) -> list[Track]:
        """Return the track of each pose."""
        found: dict[int, Track] = {}
        points = bodies(poses)
        # The best pose gets the lowest id, wherever it is in the frame.
        for pose in np.argsort(-poses.scores, kind="stable").tolist():
            if track_of[pose] == NO_TRACK:
                found[pose] = Track(self._next_id, points[pose], timestamp_ns)
                self._next_id += 1
            else:
                found[pose] = self._tracks[track_of[pose]]
                found[pose].update(points[pose], timestamp_ns)
        return [found[pose] for pose in range(len(poses))]

    def _store(self, poses: Poses, found: list[Track]) -> None:
        """Make these poses the last of their tracks, before the tracks that were not matched."""
        self._select([i for i, track in enumerate(self._tracks) if track not in found])
        last, self._last = self._last, poses
        if self._tracks:
            self._last = Poses(
                np.concatenate((poses.keypoints, last.keypoints)),
                np.concatenate((poses.keypoint_scores, last.keypoint_scores)),
                np.concatenate((poses.scores, last.scores)),
                np.concatenate((poses.boxes_xyxy, last.boxes_xyxy)),
            )
        self._tracks = found + self._tracks
        if len(self._tracks) > MAX_TRACKS:
            ages_ns = np.array([-track.seen_ns for track in self._tracks])
            self._select(np.lexsort((-self._last.scores, ages_ns))[:MAX_TRACKS].tolist())

    def _select(self, which: list[int]) -> None:
        if which != list(range(len(self._tracks))):
            self._tracks = [self._tracks[index] for index in which]
            self._last = self._last.select(np.array(which, np.intp))


def _duplicates(poses: Poses, track_of: Sequence[int]) -> set[int]:
    """Return the poses without a track that are on top of one with a track."""
    new = [pose for pose, track in enumerate(track_of) if track == NO_TRACK]
    if not new or len(new) == len(poses):
        return set()
    similarity = keypoint_similarity(poses, poses)[new]
    similarity[:, new] = 0.0
    return {new[i] for i in np.flatnonzero(similarity.max(axis=1) >= MIN_DUPLICATE_OKS).tolist()}


def _tracked(poses: Poses, tracks: Sequence[Track]) -> TrackedPoses:
    return TrackedPoses(poses, np.array([track.track_id for track in tracks], np.int64))
