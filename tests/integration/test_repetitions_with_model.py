"""Repetitions of a drawn person, found by the default model."""

import pytest

from edgepose.datatypes import Frame
from edgepose.events.exercises import MOVEMENTS
from edgepose.events.repetitions import RepetitionDetector
from tests.builders import SECOND_NS, load_model, pipeline_of
from tests.exercises import NEAR, repeated, squat
from tests.figure import drawn, room


@pytest.mark.parametrize("heading", [90, -90, 45, 135])
def test_repetitions_of_a_clip_are_counted_exactly(heading: float) -> None:
    """Three squats, seen from both sides and diagonally from the front and the back.

    Arms of this figure are found too poorly for curls and push-ups.
    """
    pipeline = pipeline_of(load_model("movenet-lightning-int8"))
    detector, background = RepetitionDetector(list(MOVEMENTS.values())), room()
    events = []
    angles = repeated(3, seconds=2, top=172, bottom=80, fps=10)
    for number, angle in enumerate(angles):
        image = drawn(squat((angle, angle), heading), NEAR, background)
        frame = Frame(image, (number + 10) * SECOND_NS // 10, number)
        events += detector.update(pipeline.process(frame).tracked_frame)
    assert [(event.exercise, event.count) for event in events] == [
        ("squat", 1),
        ("squat", 2),
        ("squat", 3),
    ]
