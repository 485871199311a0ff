"""The rules of MoveNet's published use, to compare with: the crop follows whoever is in it."""

from edgepose.datatypes import CropRegion, Frame, InputSpec, Poses
from edgepose.detection.crop_state import CropState
from edgepose.imaging.crop import WHOLE, Part, body_region, padded_region
from edgepose.protocols import LoadedModel


class PlainCrop(CropState):
    """A crop around the last pose; without one the whole frame, always upright."""

    _around: CropRegion | None = None

    def region_for(self, frame: Frame, spec: InputSpec, part: Part = WHOLE) -> CropRegion:
        """Return the crop around the last pose."""
        whole = padded_region(frame.size_wh, spec.size_wh, centred=spec.centred, part=part)
        return self._around or whole

    def update(self, candidates: Poses, model: LoadedModel, frame: Frame) -> Poses:
        """Return a pose that reaches the threshold in a crop."""
        region = body_region(candidates, frame.size_wh)
        poses = candidates.above_threshold(model.pose_threshold)
        cropped = self._around is not None
        self.decided = cropped or region is None
        self._around = region if len(poses) or not cropped else None
        return poses if cropped or region is None else Poses.empty()
