"""The one-euro filter: strong smoothing for a keypoint at rest, little lag for one that moves.

Source: Casiez, Roussel, Vogel, "1€ Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
Interactive Systems", CHI 2012. Speed is measured in body sizes a second instead of px a second, so
one set of parameters serves near and far people and every resolution.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgepose.datatypes import Poses, TrackedPoses
from edgepose.skeleton import KEYPOINT_COUNT

_NUMBERS: Final = 2 * KEYPOINT_COUNT
MAX_GAP_NS: Final = 500_000_000
"""A track with a longer gap than this starts anew: its past says nothing about the present."""


@dataclass(frozen=True, slots=True)
class OneEuroParameters:
    """Parameters of the filter.

    `min_cutoff_hz`: jitter at rest, lower is steadier; `beta`: lag in motion, higher is less (Hz
    per body size a second); `derivative_cutoff_hz`: how fast the estimated speed changes.
    """

    min_cutoff_hz: float
    beta: float
    derivative_cutoff_hz: float

    def __post_init__(self) -> None:
        if self.min_cutoff_hz <= 0 or self.derivative_cutoff_hz <= 0 or self.beta < 0:
            raise ValueError(f"cutoffs are above 0 Hz and beta is not negative, got {self}")


PRESETS: Final = {
    # Close to the published constants of tfjs-models' MoveNet (2.5 Hz, 300 per frame side a
    # second, 2.5 Hz): hardly any lag.
    "responsive": OneEuroParameters(2.5, 150.0, 2.5),
    "steady": OneEuroParameters(1.0, 25.0, 1.5),
}


@dataclass(slots=True)
class _State:
    """State of one track: x and y of each keypoint in turn, in px and in body sizes a second."""

    positions: list[float]
    speeds: list[float]
    timestamp_ns: int


class OneEuro:
    """Smooths every keypoint of every track by the timestamps of the frames.

    In plain floats: for the 34 numbers of a pose, a dozen NumPy calls take as long, and three times
    as long between two runs of a model, which evict them from the processor's caches.
    """

    def __init__(self, parameters: OneEuroParameters) -> None:
        self._parameters = parameters
        self._states: dict[int, _State] = {}

    def apply(self, tracked: TrackedPoses, timestamp_ns: int) -> TrackedPoses:
        """Return the poses with smoothed keypoints, and boxes moved with them.

        A new track, one after a gap of more than MAX_GAP_NS, and one whose timestamp did not
        advance are returned unchanged.
        """
        states = self._states
        if not len(tracked):
            if states:
                self._drop_old(timestamp_ns)
            return tracked
        poses = tracked.poses
        smoothed: list[list[float]] = []
        boxes: list[list[float]] = []
        for track_id, keypoints, box in zip(
            tracked.track_ids.tolist(),
            poses.keypoints.reshape(-1, _NUMBERS).tolist(),
            poses.boxes_xyxy.tolist(),
            strict=True,
        ):
            state = states.get(track_id)
            if state is None or not 0 < timestamp_ns - state.timestamp_ns <= MAX_GAP_NS:
                if state is None or timestamp_ns != state.timestamp_ns:
                    states[track_id] = _State(keypoints, [0.0] * _NUMBERS, timestamp_ns)
                smoothed.append(keypoints)
                boxes.append(box)
                continue
            scale_px = max(box[2] - box[0], box[3] - box[1], 1.0)
            self._advance(state, keypoints, scale_px, timestamp_ns)
            now = state.positions
            smoothed.append(now)
            shift_x = (sum(now[::2]) - sum(keypoints[::2])) / KEYPOINT_COUNT
            shift_y = (sum(now[1::2]) - sum(keypoints[1::2])) / KEYPOINT_COUNT
            boxes.append([box[0] + shift_x, box[1] + shift_y, box[2] + shift_x, box[3] + shift_y])
        if len(states) > len(tracked):
            self._drop_old(timestamp_ns)
        return TrackedPoses(
            Poses(
                np.array(smoothed, np.float32).reshape(-1, KEYPOINT_COUNT, 2),
                poses.keypoint_scores,
                poses.scores,
                np.array(boxes, np.float32),
            ),
            tracked.track_ids,
        )

    def reset(self) -> None:
        """Drop the state of all tracks."""
        self._states.clear()

    def _advance(
        self, state: _State, keypoints: list[float], scale_px: float, timestamp_ns: int
    ) -> None:
        parameters = self._parameters
        dt = (timestamp_ns - state.timestamp_ns) * 1e-9
        to_speed = 1.0 / (scale_px * dt)
        # alpha = 1 / (1 + tau / dt) with tau = 1 / (2 pi cutoff), as w / (1 + w).
        w = parameters.derivative_cutoff_hz * 2.0 * math.pi * dt
        speed_alpha = w / (1.0 + w)
        resting = parameters.min_cutoff_hz * 2.0 * math.pi * dt
        moving = parameters.beta * 2.0 * math.pi * dt
        positions: list[float] = []
        speeds: list[float] = []
        for value, position, speed in zip(keypoints, state.positions, state.speeds, strict=True):
            change = value - position
            speed += speed_alpha * (change * to_speed - speed)
            w = resting + moving * abs(speed)
            positions.append(position + change * (w / (1.0 + w)))
            speeds.append(speed)
        state.positions, state.speeds, state.timestamp_ns = positions, speeds, timestamp_ns

    def _drop_old(self, timestamp_ns: int) -> None:
        self._states = {
            track_id: state
            for track_id, state in self._states.items()
            if timestamp_ns - state.timestamp_ns <= MAX_GAP_NS
        }
