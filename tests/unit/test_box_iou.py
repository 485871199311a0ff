"""box_iou, box_nearness, and tracking by boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.datatypes import Poses
from edgepose.tracking.oks_tracker import OksTracker
from edgepose.tracking.similarity import box_iou, box_nearness
from tests.bodies import MS, ids

Box = tuple[int, int, int, int]
boxes = st.tuples(
    st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20)
).map(lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3]))


def boxed(*boxes_xyxy: Box) -> Poses:
    n = len(boxes_xyxy)
    return Poses(
        np.zeros((n, 17, 2), np.float32),
        np.zeros((n, 17), np.float32),
        np.full(n, 0.5, np.float32),
        np.array(boxes_xyxy, np.float32).reshape(n, 4),
    )


@given(first=st.lists(boxes, max_size=4), second=st.lists(boxes, max_size=4))
def test_box_iou_integer_boxes(first: list[Box], second: list[Box]) -> None:
    """It equals the ratio of shared pixels to all pixels of the two boxes."""
    found = box_iou(boxed(*first), boxed(*second))
    assert found.shape == (len(first), len(second))

    def pixels(box: Box) -> set[tuple[int, int]]:
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    for i, a in enumerate(first):
        for j, b in enumerate(second):
            expected = len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b))
            assert found[i, j] == pytest.approx(expected, abs=1e-6)


def test_box_iou_boxes_without_area() -> None:
    """The overlap is 0, without a division by zero."""
    with np.errstate(all="raise"):
        assert box_iou(boxed((5, 5, 5, 5)), boxed((5, 5, 5, 5)))[0, 0] == 0.0


def test_box_nearness_distance_of_centres() -> None:
    """1 for the same centre, 1 less for each size of the other box, whatever the first one's."""
    others = boxed((0, 0, 100, 25), (300, 400, 350, 450))
    found = box_nearness(boxed((0, 0, 100, 25), (30, 20, 70, 85)), others)
    assert found[:, 0] == pytest.approx([1.0, 0.2], abs=1e-6)
    assert found[0, 1] == pytest.approx(1 - np.hypot(275, 412.5) / 50, abs=1e-4)


def test_box_nearness_sizes_too_different() -> None:
    """It is -inf if one box is more than twice as large, or has no area."""
    others = boxed((0, 0, 20, 20), (0, 0, 21, 21), (5, 5, 5, 5))
    with np.errstate(all="raise"):
        found = box_nearness(boxed((0, 0, 10, 10), (5, 5, 5, 5)), others)
    assert (found > -np.inf).tolist() == [[True, False, False], [False, False, False]]


@pytest.mark.parametrize(("shift", "expected"), [(73, 1), (75, 2)])
def test_oks_tracker_minimum_iou(shift: int, expected: int) -> None:
    """Two boxes of 100 px overlap by 27 / 173 = 0.156 and by 25 / 175 = 0.143."""
    tracker = OksTracker()
    tracker.update(boxed((0, 0, 100, 100)), 0)
    moved = boxed((shift, 0, 100 + shift, 100))
    assert ids(tracker.update(moved, 33 * MS)) == [expected]


def test_oks_tracker_matches_boxes_without_keypoints() -> None:
    """Poses without visible keypoints are tracked by their boxes."""
    tracker = OksTracker()
    for frame in range(5):
        moved = boxed((10 * frame, 0, 10 * frame + 50, 80), (200, 0, 250, 80))
        assert ids(tracker.update(moved, frame * 33 * MS)) == [1, 2]
