"""Verification: new poses of a model that detects several count once another model confirms them.

MultiPose and PoseNet score what resembles a body, such as bottles or a cartoon, in the whole frame.
A single-pose model that runs on the surroundings of such a pose scores it low. docs/models.md has
the figures of the constants.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

import numpy as np

from edgepose.datatypes import CropRegion, Frame, Poses
from edgepose.imaging.crop import torso_direction
from edgepose.tracking.similarity import keypoint_similarity, nearness

THRESHOLD: Final = 0.24
"""The score, of the single-pose model, that a pose must reach."""
BOX_EXPANSION: Final = 1.25
MIN_SIDE_PX: Final = 8.0
INFERENCES: Final = 2
"""How many in a row must reach it; in a still frame, one."""
SURE_THRESHOLD: Final = 0.30
SURE_SIMILARITY: Final = 0.5
"""With this score, one inference confirms a pose if its keypoints are in the same places."""
# What moves past the camera resembles a body for a few frames only, and then something else is in
# its place.
SECOND_AFTER_NS: Final = 100_000_000
IN_A_ROW_NS: Final = 300_000_000
"""How long a body may be missed between two inferences in a row."""
FIRST_PAUSE_NS: Final = 250_000_000
LONGEST_PAUSE_NS: Final = 4_000_000_000
"""Pauses after a refusal, doubled from the first to the longest."""
# A false positive that passed, or that is where a person was, would be reported for good.
CHECK_NS: Final = 4_000_000_000
REPEAT_NS: Final = 1_000_000_000
REFUTED_BELOW: Final = 0.20
REFUTATIONS: Final = 2
"""How often a verified body is checked, how soon after a low score, and how many of them end it."""
FOLLOWED: Final = 0.75
"""A pose goes on with a verified body from the model's own threshold times this on."""
KEPT_NS: Final = 3_000_000_000
"""How long a candidate without a pose is remembered, as a track is."""
INFERENCES_PER_FRAME: Final = 0.125
SLOW_NS: Final = 100_000_000
"""If the last frame is so old, there may be two in a frame instead of one."""
MAX_SAVED: Final = 12.0
"""Inferences at once after a pause: two for each of six persons."""
RESERVED: Final = 6.0
"""Of these, for new bodies only."""
# How far a body moves, in sizes of its box: a height in a second of which nothing was seen.
FIRST_REACH: Final = 0.3
REACH_PER_S: Final = 2.0
MAX_REACH: Final = 2.5


@dataclass(slots=True, eq=False)
class _Candidate:
    """A body that may be a person; `confirmed` counts in a row, `next_ns` is its next inference."""

    box_xyxy: Sequence[float]
    seen_ns: int
    next_ns: int
    confirmed: int = 0
    refuted: int = 0
    pause_ns: int = FIRST_PAUSE_NS

    @property
    def verified(self) -> bool:
        return self.confirmed >= INFERENCES

    @property
    def open(self) -> bool:
        """Whether it is neither verified nor refused."""
        return not self.verified and (self.confirmed > 0 or self.pause_ns == FIRST_PAUSE_NS)


class Verification:
    """Which poses of one stream of frames are verified; belongs to the inference thread.

    A verified body stays so while it is followed by the place of its box. `has_candidate` is
    whether a body in the last frame may be verified by the next frames; one that was refused is
    not.
    """

    def __init__(self) -> None:
        self.has_candidate = False
        self._candidates: list[_Candidate] = []
        self._last_ns = 0
        self._saved = MAX_SAVED
        self._size_wh: tuple[int, int] | None = None

    def update(
        self,
        poses: Poses,
        threshold: float,
        frame: Frame,
        detect: Callable[[CropRegion], Poses],
    ) -> Poses:
        """Return the verified poses of the next frame.

        poses: of the model, from FOLLOWED times its own threshold on.
        threshold: that a pose needs that goes on with no verified body.
        detect: runs the verifying model on a crop region, once or twice a frame; in a still frame,
            which has no part in the stream, once for each pose.
        """
        if frame.still:
            poses = poses.above_threshold(threshold)
            indices = range(len(poses))
            reached = [detect(surroundings(poses, i)).scores[0] >= THRESHOLD for i in indices]
            return poses.select(np.array(reached, np.bool_))
        if frame.size_wh != self._size_wh:
            self._size_wh = frame.size_wh
            self._candidates.clear()
        self._saved = min(self._saved + INFERENCES_PER_FRAME, MAX_SAVED)
        now_ns = frame.timestamp_ns
        slow = now_ns - self._last_ns >= SLOW_NS
        self._last_ns = now_ns
        self.has_candidate = False
        if not (len(poses) or self._candidates):
            return poses
        found = self._follow(poses, threshold, now_ns)
        for _ in range(2 if slow else 1):
            index = self._due(found, now_ns)
            if index is None:
                break
            self._saved -= 1.0
            verifying = detect(surroundings(poses, index))
            if found[index].verified:
                _note_check(found[index], now_ns, float(verifying.scores[0]))
            else:
                _note(found[index], now_ns, _confirmations(poses, index, verifying))
        self.has_candidate = any(candidate.open for candidate in found.values())
        verified = [index for index, candidate in found.items() if candidate.verified]
        return poses if len(verified) == len(poses) else poses.select(np.array(verified, np.intp))

    def _due(self, found: Mapping[int, _Candidate], now_ns: int) -> int | None:
        """Return which of the bodies in a frame the verifying model runs on, if any.

        First one of which one inference is left, then a new one, at last one to be checked.
        """
        due = [
            index
            for index, candidate in found.items()
            if candidate.next_ns <= now_ns
            and self._saved >= (RESERVED + 1.0 if candidate.verified else 1.0)
        ]
        if not due:
            return None
        return min(due, key=lambda i: (found[i].verified, -found[i].confirmed, found[i].pause_ns))

    def _follow(self, poses: Poses, threshold: float, now_ns: int) -> dict[int, _Candidate]:
        """Return the candidate of each pose, in their order; the nearest pairs first.

        If none is near, that is a new one. A pose below the threshold has only a verified one, and
        after the others.
        """
        boxes, scores = poses.box_list, poses.score_list
        known = [c for c in self._candidates if now_ns - c.seen_ns <= KEPT_NS]
        near = []
        for index, (box, score) in enumerate(zip(boxes, scores, strict=True)):
            weak = score < threshold
            for candidate in known:
                if weak and not candidate.verified:
                    continue
                reach = FIRST_REACH + REACH_PER_S * (now_ns - candidate.seen_ns) / 1e9
                value = nearness(box, candidate.box_xyxy)
                if value >= 1.0 - min(reach, MAX_REACH):
                    near.append((weak, -value, index, candidate))
        matched: dict[int, _Candidate] = {}
        missed = list(known)
        for _, _, index, candidate in sorted(near, key=itemgetter(0, 1)):
            if index not in matched and candidate in missed:
                matched[index] = candidate
                missed.remove(candidate)
        for candidate in missed:
            if not candidate.verified and now_ns - candidate.seen_ns > IN_A_ROW_NS:
                candidate.confirmed = 0
        found: dict[int, _Candidate] = {}
        for index, (box, score) in enumerate(zip(boxes, scores, strict=True)):
            if index not in matched and score < threshold:
                continue
            body = matched.get(index) or _Candidate(box, now_ns, now_ns)
            body.box_xyxy, body.seen_ns = box, now_ns
            found[index] = body
        self._candidates = [*found.values(), *missed]
        return found


def surroundings(poses: Poses, index: int) -> CropRegion:
    """Return the square around a pose's box, turned by a quarter turn if its torso lies.

    In COCO images turned by a quarter turn, MultiPose finds poses in 48 of 98; 46 of them are
    verified this way, and 40 without the turn.
    """
    x_min, y_min, x_max, y_max = poses.box_list[index]
    half = max(x_max - x_min, y_max - y_min, MIN_SIDE_PX) * BOX_EXPANSION / 2
    x, y = (x_min + x_max) / 2, (y_min + y_max) / 2
    return CropRegion(x - half, y - half, x + half, y + half, _turns(poses.keypoints[index]))


def _turns(keypoints: Sequence[Sequence[float]]) -> int:
    """Return the quarter turns, clockwise, that put shoulders beside the hips above them."""
    right, down = torso_direction(keypoints)
    if abs(right) <= abs(down):
        return 0
    return 1 if right > 0 else 3


def _confirmations(poses: Poses, index: int, verifying: Poses) -> int:
    """Return how often the pose of the verifying model confirms a pose: not, once or for good."""
    score = verifying.scores[0]
    if score < SURE_THRESHOLD:
        return int(score >= THRESHOLD)
    similarity = keypoint_similarity(poses.select(np.array([index])), verifying)[0, 0]
    return INFERENCES if similarity >= SURE_SIMILARITY else 1


def _note(candidate: _Candidate, now_ns: int, confirmations: int) -> None:
    """Note what an inference confirmed, and when the next one is due."""
    if confirmations:
        candidate.confirmed += confirmations
        candidate.next_ns = now_ns + (CHECK_NS if candidate.verified else SECOND_AFTER_NS)
    else:
        candidate.confirmed = 0
        candidate.next_ns = now_ns + candidate.pause_ns
        candidate.pause_ns = min(2 * candidate.pause_ns, LONGEST_PAUSE_NS)


def _note_check(candidate: _Candidate, now_ns: int, score: float) -> None:
    """Note the score of a verified body, and when it is checked again."""
    if score >= REFUTED_BELOW:
        candidate.refuted = 0
        candidate.next_ns = now_ns + CHECK_NS
        return
    candidate.refuted += 1
    candidate.next_ns = now_ns + REPEAT_NS
    if candidate.refuted == REFUTATIONS:
        candidate.confirmed = candidate.refuted = 0
