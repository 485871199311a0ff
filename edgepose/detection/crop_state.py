"""Which part of the next frame is detected, at which angle, and which of its poses are reported.

docs/single-pose.md has the rules, the reasons of the constants, and figures.
"""

from enum import Enum, auto
from typing import Final

from msgspec.structs import replace

from edgepose.datatypes import CropRegion, Frame, InputSpec, Poses
from edgepose.detection.subject import MIN_OKS_SLOW, Subject
from edgepose.detection.verification import FOLLOWED, Verification
from edgepose.imaging.crop import (
    MIN_CROP_SCORE,
    WHOLE,
    Part,
    body_region,
    eased_region,
    padded_region,
)
from edgepose.protocols import LoadedModel
from edgepose.skeleton import MIRRORED

NEEDED: Final = 6
"""Crops in a row confirm a pose if they count so many together; one an upright pose of a still."""
SURE: Final = 3
SURE_SCORE: Final = 1.2
"""A crop counts SURE if its score reaches the threshold times this."""
WEAK: Final = 1
WEAK_SLOW: Final = 2
SLOW_NS: Final = 100_000_000
"""Otherwise it counts WEAK, or WEAK_SLOW if the last frame is so old: then more has changed."""
TURNED_STILL: Final = 1.1
"""The threshold times this is that of a still image at another angle than upright.

The crops of one image are alike, so several in a row are no more evidence than one.
"""
MIN_AGREEMENT: Final = 0.15
"""The object keypoint similarity from which on two inferences have found the same pose."""
ELSEWHERE_SCORE: Final = 1.4
"""A pose at another place in the crop is the next candidate from the threshold times this on."""
CANDIDATE_SCORE: Final = 0.5
"""A pose in the whole frame is a candidate from the threshold times this on."""
OTHER_TURNS: Final = (1, 3)
"""The clockwise quarter turns that are tried beside upright."""
TURNED_EVERY_NS: Final = 400_000_000
CUT_NS: Final = 300_000_000
LOST_NS: Final = 400_000_000
MEMORY_NS: Final = 2_000_000_000
OTHER_NS: Final = 1_000_000_000
"""How long another body beside the subject is remembered."""


class Phase(Enum):
    """What the next frame is for."""

    SEARCHING = auto()
    CONFIRMING = auto()
    FOLLOWING = auto()


class CropState:
    """What is detected in one stream of frames; belongs to the inference thread.

    A single-pose model is in one of three phases:

    - SEARCHING: the whole frame, upright, and every TURNED_EVERY_NS at another angle. Its pose is
      only a candidate.
    - CONFIRMING: crops around the candidate, at its angle. Found again in enough of them in a row,
      in the same place and at a sufficient score, it becomes the subject; otherwise the search goes
      on.
    - FOLLOWING: crops around the place where the subject is expected, turned so that it is upright.
      Another body is not reported, unless the subject is missing for CUT_NS and two frames agree
      on that body, which is the new subject then. Without any, the other angles are tried at the
      same place. After LOST_NS the search begins.

    Of other models, all poses of the whole frame are returned, with lower scores too if they are to
    be verified. `new_subject` is whether the pose reported last is the first one of another person.
    `still` is for a frame that is not part of a sequence: it is `decided` what is in it once a pose
    is reported, or every angle was tried.
    """

    def __init__(self, *, still: bool = False) -> None:
        self.decided = False
        self.new_subject = False
        self.verification = Verification()
        self._still = still
        self._size_wh: tuple[int, int] | None = None
        self._begin()

    def _begin(self) -> None:
        self._phase = Phase.SEARCHING
        self._turns = 0
        self._region: CropRegion | None = None
        """Around the candidate or the subject; None is the whole frame."""
        self._region_ns = 0
        self._confirmed = 0
        self._exchanged = False
        """Whether another pose has taken the place of the candidate."""
        self._candidate: Subject | None = None
        """The pose to be confirmed, or another body beside the subject."""
        self._subject: Subject | None = None
        self._misses = 0
        self._other_turns = list(OTHER_TURNS)
        self._turned_ns: int | None = None

    @property
    def has_candidate(self) -> bool:
        """Whether the next inference is to confirm or to follow a pose."""
        return self._phase is not Phase.SEARCHING

    def region_for(self, frame: Frame, spec: InputSpec, part: Part = WHOLE) -> CropRegion:
        """Return the region of a frame to detect; instead of the whole frame, that is `part`."""
        if frame.size_wh != self._size_wh:
            self._size_wh = frame.size_wh
            self._begin()
        if self._phase is Phase.FOLLOWING and self._subject is not None:
            expected = self._subject.expected_region(frame.timestamp_ns)
            elapsed_ns = frame.timestamp_ns - self._region_ns
            self._region = expected and eased_region(self._region, expected, elapsed_ns)
        self._region_ns = frame.timestamp_ns
        region = self._region
        if region is None:
            region = padded_region(frame.size_wh, spec.size_wh, centred=spec.centred, part=part)
        return replace(region, turns=self._turns) if self._turns else region

    def update(self, candidates: Poses, model: LoadedModel, frame: Frame) -> Poses:
        """Return the poses to report, and choose what the next frame is for."""
        self.new_subject = False
        if not model.pose_model.crops:
            self.decided = True
            threshold = model.pose_threshold * (FOLLOWED if model.verifier is not None else 1.0)
            poses = candidates.above_threshold(threshold)
        else:
            reported = self._update(candidates, model.pose_threshold, frame)
            poses = candidates if reported else Poses.empty()
        return exchange_left_and_right(poses) if frame.mirrored else poses

    def _update(self, pose: Poses, threshold: float, frame: Frame) -> bool:
        """Return whether the only pose is reported."""
        now_ns = frame.timestamp_ns
        region = body_region(pose, frame.size_wh)
        score = pose.scores.item()
        if self._phase is Phase.FOLLOWING and self._subject is not None:
            return self._follow(self._subject, pose if score >= threshold else None, region, now_ns)
        if self._phase is Phase.CONFIRMING:
            count = self._count(pose, threshold, now_ns)
        else:
            self._confirmed, self._exchanged = 0, False
            if region is None and not self._turns:
                # A body that leaves no smaller region is confirmed by the whole frame.
                count = NEEDED if score >= threshold else None
            else:
                count = 0 if score >= CANDIDATE_SCORE * threshold else None
        if count is None:
            if self._phase is Phase.CONFIRMING and not self._turns and score >= threshold:
                # A person is upright, though not where the candidate was.
                self._turned_ns = now_ns
            self._search(now_ns)
            return False
        self._confirmed += count
        if self._confirmed >= (1 if self._still and not self._turns else NEEDED):
            self._accept(pose, region, now_ns)
            return True
        self._phase, self._region = Phase.CONFIRMING, region
        self._candidate = Subject(pose, region, self._turns, now_ns)
        return False

    def _count(self, pose: Poses, threshold: float, now_ns: int) -> int | None:
        """Return what the pose in a crop counts; None ends the candidate."""
        score = pose.scores.item()
        if self._still and self._turns:
            threshold *= TURNED_STILL
        if score < threshold:
            return None
        candidate = self._candidate
        if candidate and candidate.similarity(pose, now_ns, MIN_CROP_SCORE) >= MIN_AGREEMENT:
            if score >= SURE_SCORE * threshold:
                return SURE
            return WEAK_SLOW if now_ns - candidate.seen_ns >= SLOW_NS else WEAK
        if self._exchanged or score < ELSEWHERE_SCORE * threshold:
            return None
        # Of two persons side by side, one in the whole frame and the other one in the crop.
        self._exchanged, self._confirmed = True, 0
        return 0

    def _accept(self, pose: Poses, region: CropRegion | None, now_ns: int) -> None:
        """Follow a pose that was found repeatedly; it may be that of the subject before."""
        subject = self._subject
        if (
            subject is not None
            and now_ns - subject.seen_ns <= MEMORY_NS
            and subject.is_continued_by(pose, self._turns, now_ns)
        ):
            subject.follow(pose, region, self._turns, now_ns)
        else:
            self._subject = subject = Subject(pose, region, self._turns, now_ns)
            self.new_subject = True
        self._phase, self._region, self._turns = Phase.FOLLOWING, region, subject.turns
        self._candidate, self._misses = None, 0
        self.decided = True

    def _follow(
        self, subject: Subject, pose: Poses | None, region: CropRegion | None, now_ns: int
    ) -> bool:
        """Return whether the pose is reported; None is a score below the threshold."""
        missing_ns = now_ns - subject.seen_ns
        other = self._candidate
        if other is not None and now_ns - other.seen_ns > OTHER_NS:
            other = self._candidate = None
        if pose is not None:
            turns = self._turns
            if turns == subject.turns and subject.is_continued_by(pose, turns, now_ns, other):
                subject.follow(pose, region, turns, now_ns)
                self._misses, self._turns = 0, subject.turns
                return True
            if other is None or other.similarity(pose, now_ns) < MIN_OKS_SLOW:
                self._candidate = Subject(pose, region, turns, now_ns)
            elif missing_ns >= CUT_NS:
                # Another person, even if that is where the subject is expected.
                self._subject = None
                self._accept(pose, region, now_ns)
                return True
            else:
                other.follow(pose, region, turns, now_ns)
        if missing_ns > LOST_NS:
            self._turned_ns = now_ns
            self._search(now_ns)
        elif pose is None:
            # Once more at the same angle, then at the others in turn.
            tried = (0, *OTHER_TURNS)
            self._turns = (subject.turns + tried[self._misses % len(tried)]) % 4
            self._misses += 1
        return False

    def _search(self, now_ns: int) -> None:
        """Choose the angle at which the whole of the next frame is detected."""
        self._phase, self._region, self._candidate = Phase.SEARCHING, None, None
        if self._still:
            self.decided = not self._other_turns
            self._turns = self._other_turns.pop(0) if self._other_turns else 0
            return
        due = self._turned_ns is None or now_ns - self._turned_ns >= TURNED_EVERY_NS
        if self._turns or not due:
            self._turns = 0
        else:
            self._turns = self._other_turns[0]
            self._other_turns.reverse()
            self._turned_ns = now_ns


def exchange_left_and_right(poses: Poses) -> Poses:
    """Return the poses with left and right keypoints exchanged, for a mirrored frame."""
    order = list(MIRRORED)
    return Poses(
        poses.keypoints[:, order], poses.keypoint_scores[:, order], poses.scores, poses.boxes_xyxy
    )
