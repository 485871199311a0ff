"""Where the next inference takes place, and which of its poses count."""

from dataclasses import dataclass, field
from typing import Final

from edgepose.datatypes import CropRegion, Frame, Poses
from edgepose.detection.verification import Verification
from edgepose.imaging.crop import MIN_CROP_SCORE
from edgepose.protocols import LoadedModel
from edgepose.skeleton import MIRRORED
from edgepose.tracking.similarity import keypoint_similarity

MIN_AGREEMENT: Final = 0.15
"""The object keypoint similarity from which on two inferences have found the same pose."""
CONFIRMATIONS: Final = 2
"""How many crops in a row confirm a pose of a video; of a still frame it is one."""
CONFIRMING_SCORE: Final = 1.2
"""To confirm a pose of a video, a score must reach the threshold times this; then less will do."""


@dataclass(eq=False)
class CropState:
    """Crop region and confirmation of one stream of frames; belongs to the inference thread.

    `still` is for a frame that is not part of a sequence.
    """

    still: bool = False
    region: CropRegion | None = field(default=None, init=False)
    verification: Verification = field(default_factory=Verification, init=False)
    _confirmed: int = field(default=0, init=False)
    _last: Poses = field(default_factory=Poses.empty, init=False)
    _size_wh: tuple[int, int] | None = field(default=None, init=False)

    @property
    def has_candidate(self) -> bool:
        """Whether the next inference is on a crop, to confirm or follow a pose."""
        return self.region is not None

    def region_for(self, frame: Frame) -> CropRegion | None:
        """Return the crop region of a frame; None, the whole of it, if the size has changed."""
        if frame.size_wh != self._size_wh:
            self._size_wh = frame.size_wh
            self.region, self._confirmed = None, 0
        return self.region

    def update(self, candidates: Poses, model: LoadedModel, frame: Frame) -> Poses:
        """Return the poses that are confirmed, and choose the crop region of the next frame.

        A pose is reported once it is found again, with a sufficient score, on crops around it: a
        person is, while false positives score less or move to another place. One for which there
        is no crop region is reported at once. docs/models.md has the figures.
        """
        poses = candidates.above_threshold(model.pose_threshold)
        region = model.pose_model.next_region(candidates, frame.size_wh)
        cropped = self.region is not None
        if cropped and not self._is_confirmed:
            poses = self._confirming(candidates, model.pose_threshold)
        if not len(poses):
            self._confirmed = 0
        elif cropped:
            self._confirmed += 1
        elif region is None:
            self._confirmed = CONFIRMATIONS
        self._last = candidates
        # A crop without a pose leads back to the whole frame, so that a false positive cannot lock
        # the crop away from a person elsewhere in the frame.
        self.region = None if cropped and not len(poses) else region
        if not self._is_confirmed:
            poses = Poses.empty()
        return exchange_left_and_right(poses) if frame.mirrored else poses

    @property
    def _is_confirmed(self) -> bool:
        return self._confirmed >= (1 if self.still else CONFIRMATIONS)

    def _confirming(self, candidates: Poses, threshold: float) -> Poses:
        similarity = keypoint_similarity(candidates, self._last, MIN_CROP_SCORE)
        if similarity.max(initial=0.0) < MIN_AGREEMENT:
            return Poses.empty()
        return candidates.above_threshold(threshold * (1.0 if self.still else CONFIRMING_SCORE))


def exchange_left_and_right(poses: Poses) -> Poses:
    """Return the poses with left and right keypoints exchanged, for a mirrored frame."""
    order = list(MIRRORED)
    return Poses(
        poses.keypoints[:, order], poses.keypoint_scores[:, order], poses.scores, poses.boxes_xyxy
    )
