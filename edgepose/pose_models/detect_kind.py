"""The kind of a pose model, detected by its tensors."""

from collections.abc import Sequence
from typing import Literal

from edgepose.datatypes import TensorSpec
from edgepose.errors import ModelShapeError
from edgepose.pose_models import movenet_multipose, movenet_single, posenet

Kind = Literal["movenet_single", "movenet_multipose", "posenet"]


def detect_kind(outputs: Sequence[TensorSpec], *, name: str) -> Kind:
    """Return the kind of a model with these outputs.

    Raises ModelShapeError, with the file as `name`, if edgepose does not decode them.
    """
    shapes = [output.shape for output in outputs]
    if shapes == [movenet_single.OUTPUT_SHAPE]:
        return "movenet_single"
    if len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][2] == movenet_multipose.POSE_VALUES:
        return "movenet_multipose"
    channels = sorted(shape[-1] for shape in shapes if len(shape) == 4)
    one_grid = len(channels) == len(shapes) and len({shape[:3] for shape in shapes}) == 1
    if one_grid and channels in posenet.CHANNEL_SETS:
        return "posenet"
    raise ModelShapeError(
        f"{name}: outputs are {', '.join(map(str, shapes)) or 'none'}, expected (1, 1, 17, 3) of a "
        "single-pose MoveNet, (1, 6, 56) of a MoveNet MultiPose, or a PoseNet's heatmaps of 17, "
        "offsets of 34 and displacements of 64 or twice 32 channels, all of one height and width; "
        "choose a file from `edgepose models list`"
    )
