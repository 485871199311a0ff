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
"""A track with a longer gap than this starts anew."""


@dataclass(frozen=True, slots=True)
class OneEuroParameters:
    """Parameters of the filter.

    `min_cutoff_hz`: jitter at rest, lower is steadier; `beta`: lag in motion, higher is less (Hz
    per body size a second); `derivative_cutoff_hz`: how fast the estimated speed changes.
    """

    min_cutoff_hz: float
    beta: float
    derivative_cutoff_hz: float


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

    In plain floats: arrays of 34 numbers take five times as long (14 us a pose on x86-64).
    """

    def __init__(self, parameters: OneEuroParameters) -> None:
        self._parameters = parameters
        self._states: dict[int, _State] = {}

    def apply(self, tracked: TrackedPoses, timestamp_ns: int) -> TrackedPoses:
        """Return smoothed keypoints; boxes move with the mean of their keypoints.

        A new track, one after a gap of more than MAX_GAP_NS, and one whose timestamp did not
        advance are returned unchanged.
        """
        poses = tracked.poses
        keypoints = poses.keypoints.reshape(-1, _NUMBERS).tolist()
        boxes = poses.boxes_xyxy.tolist()
        for index, track_id in enumerate(tracked.track_ids.tolist()):
            state, measured, box = self._states.get(track_id), keypoints[index], boxes[index]
            if state is not None and 0 < timestamp_ns - state.timestamp_ns <= MAX_GAP_NS:
                body_px = max(box[2] - box[0], box[3] - box[1], 1.0)
                self._advance(state, measured, body_px, timestamp_ns)
                keypoints[index] = now = state.positions
                shift_x = (sum(now[::2]) - sum(measured[::2])) / KEYPOINT_COUNT
                shift_y = (sum(now[1::2]) - sum(measured[1::2])) / KEYPOINT_COUNT
                x_min, y_min, x_max, y_max = box
                boxes[index] = x_min + shift_x, y_min + shift_y, x_max + shift_x, y_max + shift_y
            elif state is None or timestamp_ns != state.timestamp_ns:
                self._states[track_id] = _State(measured, [0.0] * _NUMBERS, timestamp_ns)
        if len(self._states) > len(tracked):
            self._states = {
                track_id: state
                for track_id, state in self._states.items()
                if timestamp_ns - state.timestamp_ns <= MAX_GAP_NS
            }
        smoothed = Poses(
            np.array(keypoints, np.float32).reshape(-1, KEYPOINT_COUNT, 2),
            poses.keypoint_scores,
            poses.scores,
            np.array(boxes, np.float32).reshape(-1, 4),
        )
        return TrackedPoses(smoothed, tracked.track_ids)

    def reset(self) -> None:
        """Drop the state of all tracks."""
        self._states.clear()

    def _advance(
        self, state: _State, measured: list[float], body_px: float, timestamp_ns: int
    ) -> None:
        parameters = self._parameters
        dt = (timestamp_ns - state.timestamp_ns) * 1e-9
        # A new value weighs 1 / (1 + tau / dt) with tau = 1 / (2 pi cutoff), here as w / (1 + w).
        radians = 2.0 * math.pi * dt
        w = parameters.derivative_cutoff_hz * radians
        speed_weight, to_speed = w / (1.0 + w), 1.0 / (body_px * dt)
        resting, moving = parameters.min_cutoff_hz * radians, parameters.beta * radians
        positions, speeds = [], []
        for value, position, speed in zip(measured, state.positions, state.speeds, strict=True):
            change = value - position
            speed += speed_weight * (change * to_speed - speed)
            w = resting + moving * abs(speed)
            positions.append(position + change * (w / (1.0 + w)))
            speeds.append(speed)
        state.positions, state.speeds, state.timestamp_ns = positions, speeds, timestamp_ns
