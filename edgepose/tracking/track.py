"""One track: its id, and where its pose is expected next."""

from typing import Final

from edgepose.datatypes import Poses
from edgepose.skeleton import LEFT_HIP, LEFT_SHOULDER, RIGHT_HIP, RIGHT_SHOULDER
from edgepose.tracking.similarity import MIN_KEYPOINT_SCORE

SMOOTHING_S: Final = 0.15
"""Time constant of the velocity."""
MAX_EXTRAPOLATION_S: Final = 0.6
"""People turn or stop: from then on a track is expected to stay."""

_TORSO: Final = (LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP)

Body = tuple[list[list[float]], list[float]]
"""Places (x, y) in frame px and scores of 17 keypoints, not to be changed."""


def bodies(poses: Poses) -> list[Body]:
    """Return the keypoints of each pose, in plain floats."""
    return list(zip(poses.keypoint_list, poses.keypoint_score_list, strict=True))


class Track:
    """A person followed at a constant velocity, that of the centre of shoulders and hips.

    In plain floats: for four keypoints of a few tracks, NumPy takes longer.
    """

    __slots__ = ("_body", "_velocity_xy", "seen_ns", "track_id")

    def __init__(self, track_id: int, body: Body, timestamp_ns: int) -> None:
        self.track_id = track_id
        self.seen_ns = timestamp_ns
        self._body = body
        self._velocity_xy = (0.0, 0.0)

    def update(self, body: Body, timestamp_ns: int) -> None:
        """Add the pose of a frame.

        The centre moves as do the keypoints that are visible in this pose and in the last one;
        without any, the velocity stays.
        """
        elapsed_s = (timestamp_ns - self.seen_ns) / 1e9
        (places, scores), (last_places, last_scores) = body, self._body
        visible, x, y = 0, 0.0, 0.0
        for index in _TORSO:
            if scores[index] >= MIN_KEYPOINT_SCORE <= last_scores[index]:
                visible += 1
                (right, down), (last_right, last_down) = places[index], last_places[index]
                x += right - last_right
                y += down - last_down
        if visible and elapsed_s > 0.0:
            # (1 - weight) * velocity + weight * move / elapsed, weight = elapsed / (elapsed +
            # smoothing), without the division by a short time.
            sum_s = elapsed_s + SMOOTHING_S
            old, new = SMOOTHING_S / sum_s, 1.0 / (sum_s * visible)
            vx, vy = self._velocity_xy
            self._velocity_xy = (old * vx + new * x, old * vy + new * y)
        self._body = body
        self.seen_ns = timestamp_ns

    def shift_xy(self, timestamp_ns: int) -> tuple[float, float]:
        """Return how far, in px, the last pose is expected to have moved."""
        elapsed_s = (timestamp_ns - self.seen_ns) / 1e9
        if elapsed_s > MAX_EXTRAPOLATION_S:
            elapsed_s = MAX_EXTRAPOLATION_S
        vx, vy = self._velocity_xy
        return vx * elapsed_s, vy * elapsed_s
