"""Repetitions of exercises by the persons in front of a camera."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import atan2, degrees, hypot
from typing import Final

from edgepose.datatypes import Event, TrackedFrame
from edgepose.events.angles import Points
from edgepose.events.exercises import MEMORY_NS, MIN_SCORE, Movement, MovementCounter
from edgepose.skeleton import LEFT_HIP, LEFT_SHOULDER, RIGHT_HIP, RIGHT_SHOULDER

PUBLISH_INTERVAL_NS: Final = 1_000_000_000


@dataclass(slots=True)
class _Person:
    """What is known of one track."""

    counters: tuple[MovementCounter, ...]
    seen_ns: int = 0
    torso: tuple[float, float] = (0.0, 0.0)
    torso_px: float = 0.0


class RepetitionDetector:
    """Counts the repetitions of some movements, of all persons of a camera together.

    Each joint has two limits: a repetition is complete when the angle went beyond the turn and is
    back beyond the start, each for some frames. So neither wrong frames, jitter around one limit
    nor a movement that stops half way counts. With several movements the state is that of the last
    one repeated. A new track close to where another was lost goes on with its repetition.
    """

    def __init__(self, movements: Sequence[Movement] = ()) -> None:
        self._persons: dict[int, _Person] = {}
        self._movements: tuple[Movement, ...] = ()
        self._counts: dict[str, int] = {}
        self._exercise: str | None = None
        self._other: str | None = None
        self._state = self._encoded()
        self._published_ns = -PUBLISH_INTERVAL_NS
        self.set_movements(movements)

    def set_movements(self, movements: Sequence[Movement]) -> None:
        """Count these movements; if they are others than before, from 0."""
        if tuple(movements) == self._movements:
            return
        self._movements = tuple(movements)
        self._persons.clear()
        self._counts = {movement.name: 0 for movement in movements}
        self._exercise = movements[0].name if len(movements) == 1 else None
        self._other = None
        self._state = self._encoded()

    @property
    def states(self) -> Mapping[str, str]:
        """The exercise and its count as JSON; changes once a second at most."""
        return {"repetitions": self._state}

    def update(self, frame: TrackedFrame) -> list[Event]:
        """Add the next frame; return an event for each repetition."""
        now_ns = frame.timestamp_ns
        poses = frame.smoothed.poses
        events = []
        ids = frame.smoothed.track_ids.tolist()
        for track_id, points, scores in zip(
            ids, poses.keypoint_list, poses.keypoint_score_list, strict=True
        ):
            torso = _torso(points, scores)
            person = self._persons.get(track_id) or self._new_person(track_id, ids, torso)
            person.seen_ns = now_ns
            torso_deg = None
            if torso is not None:
                x, y, along_x, along_y = torso
                person.torso, person.torso_px = (x, y), hypot(along_x, along_y)
                torso_deg = degrees(atan2(abs(along_x), along_y))
            for counter in person.counters:
                name = counter.movement.name
                complete = counter.update(points, scores, torso_deg, now_ns)
                for _ in range(self._confirmed(name) if complete else 0):
                    self._counts[name] += 1
                    events.append(
                        Event(
                            "repetition",
                            track_id,
                            now_ns,
                            exercise=name,
                            count=self._counts[name],
                        )
                    )
        self._publish(now_ns)
        return events

    def tick(self, timestamp_ns: int) -> list[Event]:
        """Forget tracks that are gone, and let the state change if it may; returns no events."""
        for track_id, person in list(self._persons.items()):
            if timestamp_ns - person.seen_ns > MEMORY_NS:
                del self._persons[track_id]
        self._publish(timestamp_ns)
        return []

    def lost(self, timestamp_ns: int) -> list[Event]:
        """Forget repetitions that are not complete; the counts stay."""
        self._persons.clear()
        return self.tick(timestamp_ns)

    def _confirmed(self, name: str) -> int:
        """Return how many repetitions count, now that one of an exercise is complete.

        Of several exercises, another one begins with its second repetition: a hand that is raised
        between squats is no curl.
        """
        if name == self._exercise:
            self._other = None
            return 1
        if name != self._other:
            self._other = name
            return 0
        self._exercise, self._other = name, None
        return 2

    def _publish(self, now_ns: int) -> None:
        """Let the state follow the count, a second after its last change at the earliest."""
        if now_ns - self._published_ns >= PUBLISH_INTERVAL_NS:
            state = self._encoded()
            if state != self._state:
                self._state, self._published_ns = state, now_ns

    def _encoded(self) -> str:
        count = 0 if self._exercise is None else self._counts[self._exercise]
        return json.dumps({"exercise": self._exercise, "count": count})

    def _new_person(
        self, track_id: int, ids: Sequence[int], torso: tuple[float, float, float, float] | None
    ) -> _Person:
        """Return a new person, or the one who was lost at the same place under another id."""
        found = None
        if torso is not None:
            found = min(
                (
                    (distance, lost_id)
                    for lost_id, lost in self._persons.items()
                    if lost_id not in ids
                    and (distance := hypot(lost.torso[0] - torso[0], lost.torso[1] - torso[1]))
                    < lost.torso_px
                ),
                default=None,
            )
        if found is not None:
            person = self._persons.pop(found[1])
        else:
            person = _Person(tuple(MovementCounter(movement) for movement in self._movements))
        self._persons[track_id] = person
        return person


def _torso(points: Points, scores: Sequence[float]) -> tuple[float, float, float, float] | None:
    """Return the middle of the torso in px, and the way from the shoulders to the hips."""
    ends = []
    for left, right in ((LEFT_SHOULDER, RIGHT_SHOULDER), (LEFT_HIP, RIGHT_HIP)):
        seen = [points[keypoint] for keypoint in (left, right) if scores[keypoint] >= MIN_SCORE]
        if not seen:
            return None
        ends.append((sum(p[0] for p in seen) / len(seen), sum(p[1] for p in seen) / len(seen)))
    (top_x, top_y), (end_x, end_y) = ends
    return (top_x + end_x) / 2, (top_y + end_y) / 2, end_x - top_x, end_y - top_y
