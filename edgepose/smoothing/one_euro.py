"""The one-euro filter: strong smoothing for a keypoint at rest, little lag for one that moves.

Source: Casiez, Roussel, Vogel, "1€ Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
Interactive Systems", CHI 2012. Speed is measured in body sizes a second instead of px a second, so
one set of parameters serves near and far people and every resolution.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import Poses, TrackedPoses
from edgepose.skeleton import KEYPOINT_COUNT

Doubles = NDArray[np.float64]

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
    """State of one track: its keypoints (17, 2) in px, their speeds in body sizes a second."""

    positions: Doubles
    speeds: Doubles
    timestamp_ns: int


class OneEuro:
    """Smooths every keypoint of every track by the timestamps of the frames."""

    def __init__(self, parameters: OneEuroParameters) -> None:
        self._parameters = parameters
        self._states: dict[int, _State] = {}

    def apply(self, tracked: TrackedPoses, timestamp_ns: int) -> TrackedPoses:
        """Return the poses with smoothed keypoints, and boxes moved with them.

        A new track, one after a gap of more than MAX_GAP_NS, and one whose timestamp did not
        advance are returned unchanged.
        """
        poses = tracked.poses
        keypoints, boxes = poses.keypoints.copy(), poses.boxes_xyxy.copy()
        for index, track_id in enumerate(tracked.track_ids.tolist()):
            state = self._states.get(track_id)
            measured = poses.keypoints[index].astype(np.float64)
            if state is not None and 0 < timestamp_ns - state.timestamp_ns <= MAX_GAP_NS:
                box = poses.boxes_xyxy[index]
                self._advance(state, measured, max(*(box[2:] - box[:2]), 1.0), timestamp_ns)
                keypoints[index] = state.positions
                boxes[index] += np.tile((state.positions - measured).mean(axis=0), 2)
            elif state is None or timestamp_ns != state.timestamp_ns:
                self._states[track_id] = _State(
                    measured, np.zeros((KEYPOINT_COUNT, 2)), timestamp_ns
                )
        self._states = {
            track_id: state
            for track_id, state in self._states.items()
            if timestamp_ns - state.timestamp_ns <= MAX_GAP_NS
        }
        smoothed = Poses(keypoints, poses.keypoint_scores, poses.scores, boxes)
        return TrackedPoses(smoothed, tracked.track_ids)

    def reset(self) -> None:
        """Drop the state of all tracks."""
        self._states.clear()

    def _advance(self, state: _State, measured: Doubles, body_px: float, timestamp_ns: int) -> None:
        parameters = self._parameters
        dt = (timestamp_ns - state.timestamp_ns) * 1e-9
        change = measured - state.positions
        speeds = change / (body_px * dt)
        state.speeds += _alpha(parameters.derivative_cutoff_hz, dt) * (speeds - state.speeds)
        cutoffs_hz = parameters.min_cutoff_hz + parameters.beta * np.abs(state.speeds)
        state.positions += _alpha(cutoffs_hz, dt) * change
        state.timestamp_ns = timestamp_ns


def _alpha(cutoff_hz: Any, dt: float) -> Any:
    """Return the weight of a new value in a low-pass filter, 1 / (1 + tau / dt)."""
    angle = 2.0 * math.pi * cutoff_hz * dt
    return angle / (1.0 + angle)
