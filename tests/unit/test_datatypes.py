"""The shape checks of the core types, and the skeleton."""

import numpy as np
import pytest

from edgepose.datatypes import CropRegion, Frame, Poses, TrackedPoses
from edgepose.skeleton import EDGES, KEYPOINT_NAMES, MIRRORED, OKS_FALLOFFS
from tests.builders import poses_of


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3), (4, 4, 1)])
def test_frame_invalid_image(shape: tuple[int, ...]) -> None:
    """An image that is not uint8 (height, width, 3) raises ValueError."""
    with pytest.raises(ValueError, match=r"uint8 \(height, width, 3\)"):
        Frame(np.zeros(shape, np.uint8), 0, 0)
    with pytest.raises(ValueError, match="float64"):
        Frame(np.zeros((4, 4, 3)), 0, 0)  # type: ignore[arg-type]


def test_frame_image_read_only() -> None:
    """The image of a frame is read-only."""
    frame = Frame(np.zeros((4, 6, 3), np.uint8), 0, 0)
    assert frame.size_wh == (6, 4)
    with pytest.raises(ValueError, match="read-only"):
        frame.image[0, 0] = 1


def test_poses_inconsistent_shapes() -> None:
    """Arrays of different lengths raise ValueError."""
    poses = poses_of(np.zeros((17, 2)), np.ones((17, 2)))
    assert len(poses) == 2
    with pytest.raises(ValueError, match="poses are"):
        Poses(poses.keypoints, poses.keypoint_scores[:1], poses.scores, poses.boxes_xyxy)
    with pytest.raises(ValueError, match="2 poses need as many track ids"):
        TrackedPoses(poses, np.array([1]))
    assert len(Poses.empty()) == 0
    assert len(poses.select(np.array([False, True]))) == 1


def test_poses_above_threshold() -> None:
    """The poses that reach the threshold are kept in their order."""
    poses = poses_of(np.zeros((17, 2)), np.ones((17, 2)), np.full((17, 2), 2.0))
    poses.scores[:] = (0.5, 0.2, 0.3)
    kept = poses.above_threshold(0.3)
    assert kept.scores.tolist() == pytest.approx([0.5, 0.3])
    assert kept.keypoints[1, 0, 0] == 2
    assert len(poses.above_threshold(0.0)) == len(poses)


@pytest.mark.parametrize("sides", [(0, 0, 0, 1), (1, 0, 0, 1), (0, 1, 1, 1)])
def test_crop_region_without_area(sides: tuple[float, float, float, float]) -> None:
    """A region without a positive width and height raises ValueError."""
    with pytest.raises(ValueError, match="positive width and height"):
        CropRegion(*sides)


def test_skeleton_consistent() -> None:
    """Names, falloffs, mirrored indices and edges fit together; the edges connect all keypoints."""
    assert len(KEYPOINT_NAMES) == len(OKS_FALLOFFS) == len(MIRRORED) == 17
    for index, other in enumerate(MIRRORED):
        assert MIRRORED[other] == index
        name = KEYPOINT_NAMES[index]
        swapped = name.replace("left", "#").replace("right", "left").replace("#", "right")
        assert KEYPOINT_NAMES[other] == swapped
    reached = {0, 5}
    for _ in EDGES:
        reached |= {end for edge in EDGES for end in edge if reached & set(edge)}
    assert reached == set(range(17))
