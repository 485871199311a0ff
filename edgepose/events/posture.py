"""The posture of each pose: standing, sitting, lying or bending, or unclear."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from operator import mul
from typing import Final

from edgepose.datatypes import Posture, PostureName, TrackedPoses
from edgepose.events.posture_features import Points, posture_features
from edgepose.events.posture_weights import WEIGHTS
from edgepose.skeleton import LEFT_KNEE, RIGHT_KNEE

POSTURES: Final[tuple[PostureName, ...]] = ("standing", "sitting", "lying", "bending")
MIN_KNEE_SCORE: Final = 0.15
"""Without a knee of this score the posture is unclear: an upper body may stand or sit."""
MIN_PROBABILITY: Final = 0.6
"""A posture with a lower probability is unclear."""
AVERAGING_NS: Final = 250_000_000
"""The time constant of the mean of a track's probabilities."""
FORGET_NS: Final = 2_000_000_000

_UNKNOWN: Final = (1 / len(POSTURES),) * len(POSTURES)


def posture_probabilities(points: Points, scores: Sequence[float]) -> Sequence[float]:
    """Return the probability of each of POSTURES for one pose, all the same without its legs.

    A multinomial logistic regression; `tools/fit_posture.py` makes its weights.
    """
    if scores[LEFT_KNEE] < MIN_KNEE_SCORE and scores[RIGHT_KNEE] < MIN_KNEE_SCORE:
        return _UNKNOWN
    features = (*posture_features(points, scores), 1.0)
    logits = [sum(map(mul, weights, features)) for weights in WEIGHTS]
    highest = max(logits)
    powers = [exp(logit - highest) for logit in logits]
    total = sum(powers)
    return [power / total for power in powers]


@dataclass(slots=True)
class _Track:
    probabilities: Sequence[float]
    timestamp_ns: int


class LogisticPostures:
    """Estimates the posture of every track from its keypoints as measured.

    The probabilities of a track are averaged with a time constant of AVERAGING_NS, unless
    `average` is false. Timestamps are CLOCK_BOOTTIME ns and do not go back.
    """

    def __init__(self, *, average: bool = True) -> None:
        self._average = average
        self._tracks: dict[int, _Track] = {}

    def update(self, tracked: TrackedPoses, timestamp_ns: int) -> tuple[Posture, ...]:
        """Return the posture of each pose of the next frame, in their order."""
        poses = tracked.poses
        postures = []
        for track_id, points, scores in zip(
            tracked.track_ids.tolist(),
            poses.keypoint_list,
            poses.keypoint_score_list,
            strict=True,
        ):
            now = posture_probabilities(points, scores)
            track = self._tracks.get(track_id)
            if track is not None and self._average:
                keep = exp((track.timestamp_ns - timestamp_ns) / AVERAGING_NS)
                now = [
                    keep * before + (1.0 - keep) * new
                    for before, new in zip(track.probabilities, now, strict=True)
                ]
            self._tracks[track_id] = _Track(now, timestamp_ns)
            highest = max(now)
            name = POSTURES[now.index(highest)] if highest >= MIN_PROBABILITY else "unclear"
            postures.append(Posture(name, highest, upright=now[0] + now[1]))
        if len(self._tracks) > len(tracked):
            self._tracks = {
                track_id: track
                for track_id, track in self._tracks.items()
                if timestamp_ns - track.timestamp_ns < FORGET_NS
            }
        return tuple(postures)

    def reset(self) -> None:
        """Forget all tracks."""
        self._tracks.clear()
