"""The sequences and measures of `make quality`."""

from collections import Counter
from itertools import islice
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from edgepose.datatypes import Poses, TrackedPoses
from edgepose.tracking.no_tracker import NoTracker
from tests.bodies import at
from tests.builders import SECOND_NS, poses_of, tracked_of
from tests.quality import smoothing
from tests.quality.detections import NO_PERSON, NOT_COUNTED, DetectedFrame, persons_of
from tests.quality.images import count_above, mean_of_visible
from tests.quality.metrics import Score, most_right
from tests.quality.photographs import Photograph, Photographs, own_photographs
from tests.quality.sequences import SIZE_WH, MadeSequence, Truth, sequences
from tests.quality.tfjs_tracker import TfjsTracker

GREY: Final = np.full((200, 300, 3), 127, np.uint8)
NOBODY: Final = Photograph(GREY, np.empty((0, 17, 3)), np.empty(0))


def person() -> Photograph:
    """Return a red body on a transparent image."""
    image = np.zeros((200, 100, 4), np.uint8)
    image[5:195, 20:80] = (255, 0, 0, 255)
    keypoints = np.concatenate((at(0), np.full((17, 1), 2.0)), axis=1)
    return Photograph(image, keypoints[np.newaxis], np.array([60.0 * 190.0]))


def made(count: int) -> list[MadeSequence]:
    group = Photograph(GREY, person().keypoints, person().areas)
    return list(sequences(Photographs((group,), (person(),), (NOBODY,)), count))


def frame(poses: Poses, persons: tuple[int, ...], *expected: int) -> DetectedFrame:
    return DetectedFrame(0, poses, persons, frozenset(expected))


class Scripted(NoTracker):
    """Gives the ids of a list."""

    def __init__(self, *frames: list[int]) -> None:
        self.frames = iter(frames)

    def update(self, poses: Poses, timestamp_ns: int) -> TrackedPoses:
        return TrackedPoses(poses, np.array(next(self.frames), np.int64))


def test_sequences_same_seed() -> None:
    """They are the same each time, and differ from each other."""
    fingerprints = [sequence.fingerprint for sequence in made(6)]
    assert fingerprints == [sequence.fingerprint for sequence in made(6)]
    assert len(set(fingerprints)) == 6


def test_sequences_truth_is_where_the_person_is_drawn() -> None:
    """A shoulder that is visible by the truth is on a red pixel, in every tenth frame."""
    walkers = made(1)[0]
    seen = 0
    for image, truth in islice(walkers.frames(), 0, None, 10):
        assert image.shape == (SIZE_WH[1], SIZE_WH[0], 3)
        for points, visible in zip(truth.keypoints, truth.visible, strict=True):
            if visible[5]:
                x, y = points[5].astype(int)
                seen += 1
                assert image[y, x, 0] > 200 > 80 > image[y, x, 1]
    assert seen > 10


def test_own_photographs_persons() -> None:
    """Without annotated images beside the checkout: three persons, alone and side by side."""
    photographs = own_photographs()
    assert [len(group.keypoints) for group in photographs.groups] == [3]
    assert [len(cutout.keypoints) for cutout in photographs.cutouts] == [1, 1, 1]
    assert [len(empty.keypoints) for empty in photographs.empty] == [0, 0, 0]
    sequence = next(sequences(photographs, 1))
    image, truth = next(sequence.frames())
    assert image.std() > 10
    assert len(truth.areas) == sum(len(layer.keypoints) for layer in sequence.layers) >= 2


def test_persons_of_poses() -> None:
    """Each pose is the most similar person's, or has none; the hidden do not count."""
    visible = np.ones((3, 17), bool)
    visible[2, 5:] = False
    truth = Truth(np.array([at(0), at(100), at(200)]), visible, np.full(3, 10000.0))
    poses = poses_of(at(99), at(202), at(5), at(300))
    assert persons_of(poses, truth) == ([1, NOT_COUNTED, 0, NO_PERSON], {0, 1})


def test_score_of_a_switch() -> None:
    """Of two persons one is missed once and goes on under a new id; at the end there is a ghost."""
    two, three = poses_of(at(0), at(100)), poses_of(at(0), at(100), at(300))
    frames = [
        frame(two, (0, 1), 0, 1),
        frame(poses_of(at(0)), (0,), 0, 1),
        frame(two, (0, 1), 0, 1),
        frame(three, (0, 1, NO_PERSON), 0, 1),
    ]
    score = Score()
    score.add(Scripted([1, 2], [1], [1, 3], [1, 3, 4]), frames)
    assert (score.persons, score.ids, score.switches) == (2, 4, 1)
    assert (score.expected, score.found, score.matched, score.right) == (8, 8, 7, 6)
    assert score.idf1 == pytest.approx(2 * 6 / 16)
    assert score.best_idf1 == pytest.approx(2 * 7 / 16)


def test_score_of_a_hidden_person() -> None:
    """Who is not expected is neither lost nor a ghost, with or without a pose."""
    poses = poses_of(at(0))
    frames = [frame(poses, (0,), 0), frame(poses, (NOT_COUNTED,)), frame(poses, (0,), 0)]
    score = Score()
    score.add(Scripted([1], [1], [1]), frames)
    assert (score.expected, score.found, score.right) == (2, 2, 2)


def test_most_right_best_pairs_together() -> None:
    """Person 0 gives up the id that she has most often, because person 1 has no other."""
    assert most_right(Counter({(0, 1): 5, (0, 2): 4, (1, 1): 3})) == 7


def test_tfjs_tracker_first_pose_takes_the_track() -> None:
    """In the order of the poses, not of their similarity: what edgepose does otherwise."""
    tracker = TfjsTracker()
    assert tracker.update(poses_of(at(0)), 0).track_ids.tolist() == [1]
    assert tracker.update(poses_of(at(8), at(1)), 1).track_ids.tolist() == [1, 2]


def one_person(offsets: NDArray[Any]) -> smoothing.Clip:
    """Return a body that moves along x, at 30 frames a second."""
    return smoothing.clip(
        [
            (index * SECOND_NS // 30, tracked_of(at(offset)))
            for index, offset in enumerate(offsets.tolist())
        ]
    )


def test_jitter_of_keypoints_at_rest() -> None:
    """Places that alternate by 2 px are that far apart in consecutive frames, less with steady."""
    body_px = np.ptp(at(0), axis=0).max()
    one = one_person(np.arange(60) % 2 * 2.0)
    raw, steady = (smoothing.jitter([one], preset) for preset in ("off", "steady"))
    assert raw == pytest.approx(2 / body_px)
    assert steady < raw / 3


def test_lag_of_keypoints_in_motion() -> None:
    """Filtered places are those of an earlier time; unfiltered ones are not."""
    one = one_person(100 * np.sin(np.arange(90) / 10))
    assert smoothing.lag_ms([one], "off") == 0
    assert 2 <= smoothing.lag_ms([one], "steady") <= 20


def test_images_above_all_but_some_of_the_empty_ones() -> None:
    people, empty = [0.1, 0.3, 0.4, 0.5], [0.2, 0.4, 0.05]
    assert [count_above(people, empty, allowed) for allowed in (0, 1, 2)] == [1, 3, 4]


def test_images_score_of_tfjs() -> None:
    """The mean of the scores above 0.2; without any it is 0."""
    assert mean_of_visible(np.array([[0.1, 0.3, 0.5]], np.float32)) == pytest.approx(0.4)
    assert mean_of_visible(np.full((1, 17), 0.1, np.float32)) == 0.0
