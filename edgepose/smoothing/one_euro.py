"""The one-euro filter: strong smoothing for a keypoint at rest, little lag for one that moves.

Source: Casiez, Roussel, Vogel, "1€ Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
Interactive Systems", CHI 2012. Four things differ: speed is in body sizes a second instead of px a
second, so one set of parameters serves near and far people and every resolution; it is that of x
and y together; it is the mean of this frame's and the last one's, so a place that is wrong in one
frame has half the effect; and a floor is subtracted from it, below which it is taken for jitter.
docs/people.md has the formula and the figures.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgepose.datatypes import Poses, TrackedPoses
from edgepose.skeleton import KEYPOINT_COUNT

MAX_GAP_NS: Final = 500_000_000
"""A keypoint that was not measured for longer than this starts anew."""
MIN_SCORE: Final = 0.2
"""Below it a keypoint is not measured, but guessed: on clips at 30 frames a second, such keypoints
move five times as far from frame to frame as the others. Any value from 0.2 to 0.3 does."""


@dataclass(frozen=True, slots=True)
class OneEuroParameters:
    """Parameters of the filter.

    `min_cutoff_hz`: jitter at rest, lower is steadier; `beta`: lag in motion, higher is less (Hz
    per body size a second); `derivative_cutoff_hz`: how fast the estimated speed changes;
    `speed_floor`: the speed, in body sizes a second, up to which a keypoint is at rest.
    """

    min_cutoff_hz: float
    beta: float
    derivative_cutoff_hz: float
    speed_floor: float


PRESETS: Final = {
    # Close to the published constants of tfjs-models' MoveNet (2.5 Hz, 300 per frame side a
    # second, 2.5 Hz): hardly any lag.
    "responsive": OneEuroParameters(2.5, 150.0, 2.5, 0.0),
    "steady": OneEuroParameters(1.0, 30.0, 0.4, 0.06),
}

_Keypoint = tuple[float, float, float, float, float, int]
"""Filtered x and y in px, velocity x and y and speed in body sizes a second, and when it was
measured last, in ns."""


@dataclass(slots=True)
class _State:
    """State of one track; None for a keypoint that was not measured yet."""

    keypoints: list[_Keypoint | None]
    timestamp_ns: int


class OneEuro:
    """Smooths every keypoint of every track by the timestamps of the frames.

    In plain floats: arrays of 17 keypoints take several times as long.
    """

    def __init__(self, parameters: OneEuroParameters) -> None:
        self._parameters = parameters
        self._states: dict[int, _State] = {}

    def apply(self, tracked: TrackedPoses, timestamp_ns: int) -> TrackedPoses:
        """Return smoothed keypoints; boxes move with the mean of their measured keypoints.

        A keypoint with a score below MIN_SCORE stays in its place. One that is measured for the
        first time, after more than MAX_GAP_NS, or with a timestamp that did not advance, is
        returned unchanged.
        """
        poses = tracked.poses
        # Flat lists: arrays of nested ones take three times as long.
        keypoints: list[float] = []
        boxes: list[float] = []
        for track_id, places, scores, (x_min, y_min, x_max, y_max) in zip(
            tracked.track_ids.tolist(),
            poses.keypoint_list,
            poses.keypoint_score_list,
            poses.box_list,
            strict=True,
        ):
            state = self._states.get(track_id)
            if state is None:
                state = self._states[track_id] = _State([None] * KEYPOINT_COUNT, timestamp_ns)
            body_px = max(x_max - x_min, y_max - y_min, 1.0)
            smoothed, shift_x, shift_y = self._advance(state, places, scores, body_px, timestamp_ns)
            keypoints += smoothed
            boxes += x_min + shift_x, y_min + shift_y, x_max + shift_x, y_max + shift_y
        if len(self._states) > len(tracked):
            self._states = {
                track_id: state
                for track_id, state in self._states.items()
                if timestamp_ns - state.timestamp_ns <= MAX_GAP_NS
            }
        moved = Poses(
            np.array(keypoints, np.float32).reshape(-1, KEYPOINT_COUNT, 2),
            poses.keypoint_scores,
            poses.scores,
            np.array(boxes, np.float32).reshape(-1, 4),
        )
        return TrackedPoses(moved, tracked.track_ids)

    def reset(self) -> None:
        """Drop the state of all tracks."""
        self._states.clear()

    def _advance(
        self,
        state: _State,
        places: list[list[float]],
        scores: list[float],
        body_px: float,
        timestamp_ns: int,
    ) -> tuple[list[float], float, float]:
        """Filter the places of one pose.

        Return x and y of all in one list, and the mean shift of those that are measured.
        """
        parameters = self._parameters
        floor, sqrt = parameters.speed_floor, math.sqrt
        keypoints = state.keypoints
        state.timestamp_ns = timestamp_ns
        smoothed: list[float] = []
        measured, shift_x, shift_y = 0, 0.0, 0.0
        step_ns = 0
        for index, (place, score) in enumerate(zip(places, scores, strict=True)):
            x, y = place
            last = keypoints[index]
            if last is None or not 0 < (gap_ns := timestamp_ns - last[5]) <= MAX_GAP_NS:
                keypoints[index] = None
                if score >= MIN_SCORE:
                    keypoints[index] = x, y, 0.0, 0.0, 0.0, timestamp_ns
                    measured += 1
                smoothed += x, y
                continue
            last_x, last_y, vx, vy, last_speed, _ = last
            if score < MIN_SCORE:
                smoothed += last_x, last_y
                continue
            if step_ns != gap_ns:  # Nearly always the same for all.
                step_ns = gap_ns
                # A new value weighs 1 / (1 + tau / dt) with tau = 1 / (2 pi cutoff), here as
                # w / (1 + w).
                radians = 2.0 * math.pi * step_ns * 1e-9
                w = parameters.derivative_cutoff_hz * radians
                new = w / (1.0 + w)
                old, to_speed = 1.0 - new, new / (body_px * step_ns * 1e-9)
                resting, moving = parameters.min_cutoff_hz * radians, parameters.beta * radians
            dx, dy = x - last_x, y - last_y
            vx = old * vx + to_speed * dx
            vy = old * vy + to_speed * dy
            speed = sqrt(vx * vx + vy * vy)
            above = (speed + last_speed) / 2.0 - floor
            w = resting + moving * above if above > 0.0 else resting
            # What is left of the way to the measured place.
            rest = -1.0 / (1.0 + w)
            dx *= rest
            dy *= rest
            x += dx
            y += dy
            keypoints[index] = x, y, vx, vy, speed, timestamp_ns
            smoothed += x, y
            measured += 1
            shift_x += dx
            shift_y += dy
        count = measured or 1
        return smoothed, shift_x / count, shift_y / count
