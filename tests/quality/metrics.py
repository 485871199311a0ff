"""IDF1 and switches of tracks (Ristani et al. 2016, and CLEAR MOT)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgepose.protocols import Tracker
from tests.quality.detections import NOT_COUNTED, DetectedFrame


@dataclass
class Score:
    """Sums over sequences.

    `expected` and `found` are persons and poses in all frames, `matched` the poses of a person,
    `right` those whose track is that of their person, `ids` the tracks, `switches` how often a
    person goes on under another id.
    """

    persons: int = 0
    expected: int = 0
    found: int = 0
    matched: int = 0
    right: int = 0
    ids: int = 0
    switches: int = 0

    @property
    def best_idf1(self) -> float:
        """What IDF1 would be with every id right: persons are missed, and there are ghosts."""
        return 2 * self.matched / max(self.expected + self.found, 1)

    @property
    def idf1(self) -> float:
        """Harmonic mean of the share of poses and of persons with the right id."""
        return 2 * self.right / max(self.expected + self.found, 1)

    def add(self, tracker: Tracker, frames: Sequence[DetectedFrame]) -> None:
        """Track one sequence and add what came of it."""
        pairs: Counter[tuple[int, int]] = Counter()
        last_id: dict[int, int] = {}
        persons, ids = set[int](), set[int]()
        for frame in frames:
            tracked = tracker.update(frame.poses, frame.timestamp_ns)
            persons |= frame.expected
            self.expected += len(frame.expected)
            ids.update(tracked.track_ids.tolist())
            persons_of = {
                keypoints.tobytes(): person
                for keypoints, person in zip(frame.poses.keypoints, frame.persons, strict=True)
            }
            for keypoints, track_id in zip(
                tracked.poses.keypoints, tracked.track_ids.tolist(), strict=True
            ):
                person = persons_of[keypoints.tobytes()]
                self.found += person != NOT_COUNTED
                if person < 0:
                    continue
                self.matched += 1
                pairs[person, track_id] += 1
                self.switches += last_id.get(person, track_id) != track_id
                last_id[person] = track_id
        self.persons += len(persons)
        self.ids += len(ids)
        self.right += most_right(pairs)


def most_right(pairs: Counter[tuple[int, int]]) -> int:
    """Return the poses that are right if every person has at most one id, and the best one."""
    best = {frozenset[int](): 0}
    for track_id in {track_id for _, track_id in pairs}:
        for taken, right in list(best.items()):
            for person in (p for p, other in pairs if other == track_id and p not in taken):
                given = taken | {person}
                best[given] = max(best.get(given, 0), right + pairs[person, track_id])
    return max(best.values())
