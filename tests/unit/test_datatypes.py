"""Shapes are checked once, when a value is built."""

import numpy as np
import pytest

from edgepose.datatypes import CropRegion, Frame, Poses, TrackedPoses
from edgepose.skeleton import EDGES, KEYPOINT_NAMES, MIRRORED, OKS_FALLOFFS
from tests.helpers import poses_of


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3), (4, 4, 1)])
def test_a_frame_is_colour(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(height, width, 3\)"):
        Frame(np.zeros(shape, np.uint8), 0, 0)
    with pytest.raises(ValueError, match="float64"):
        Frame(np.zeros((4, 4, 3)), 0, 0)  # type: ignore[arg-type]


def test_a_frame_cannot_be_painted_on() -> None:
    frame = Frame(np.zeros((4, 6, 3), np.uint8), 0, 0)
    assert frame.size_wh == (6, 4)
    with pytest.raises(ValueError, match="read-only"):
        frame.image[0, 0] = 1


def test_poses_fit_together() -> None:
    poses = poses_of(np.zeros((17, 2)), np.ones((17, 2)))
    assert len(poses) == 2
    with pytest.raises(ValueError, match="poses are"):
        Poses(poses.keypoints, poses.keypoint_scores[:1], poses.scores, poses.boxes_xyxy)
    with pytest.raises(ValueError, match="2 poses need as many track ids"):
        TrackedPoses(poses, np.array([1]))
    assert len(Poses.empty()) == 0
    assert len(poses.select(np.array([False, True]))) == 1


def test_at_least_keeps_the_good_ones_in_order() -> None:
    poses = poses_of(np.zeros((17, 2)), np.ones((17, 2)), np.full((17, 2), 2.0))
    poses.scores[:] = (0.5, 0.2, 0.3)
    kept = poses.above_threshold(0.3)
    assert kept.scores.tolist() == pytest.approx([0.5, 0.3])
    assert kept.keypoints[1, 0, 0] == 2
    assert poses.above_threshold(0.0) is poses


@pytest.mark.parametrize("sides", [(0, 0, 0, 1), (1, 0, 0, 1), (0, 1, 1, 1)])
def test_a_crop_region_has_an_area(sides: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="positive width and height"):
        CropRegion(*sides)


def test_the_skeleton_is_one_body() -> None:
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
