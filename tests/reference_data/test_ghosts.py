"""Clips in which MultiPose finds poses without a person, and one in which persons come and go."""

import pytest

from tests.builders import load_model
from tests.quality.ghosts import ANNOTATED, CLIPS, run_clip

MULTIPOSE = "movenet-multipose-int8"


@pytest.mark.parametrize("clip", [name for name in CLIPS if name.startswith("negatives")])
def test_multipose_without_a_person(clip: str) -> None:
    """At 10 frames a second or so; without verification, it found poses in 4 frames of 5."""
    run = run_clip(load_model(MULTIPOSE), clip, step=3)
    assert run.empty.frames > 40
    assert (run.empty.found, run.empty.present) == (0, 0)
    assert run.verifications <= 0.2 * run.frames


def test_multipose_persons_come_and_go() -> None:
    run = run_clip(load_model(MULTIPOSE), ANNOTATED)
    assert (run.empty.found, run.empty.present) == (0, 0)
    assert run.occupied.found >= 0.9 * run.occupied.frames
    assert run.verifications <= 0.05 * run.frames
