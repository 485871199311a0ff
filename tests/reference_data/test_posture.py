"""The posture of annotated persons beside the checkout, from keypoints that the model finds."""

from pathlib import Path

import pytest

from edgepose.events.posture import LogisticPostures
from tests.builders import load_model, pipeline_of
from tests.images import frame
from tests.unit.test_posture import posture_of
from tools.fit_posture import persons


def test_posture_of_persons_in_crops(shared_data: Path) -> None:
    """Thunder's keypoints of persons with visible legs: 90% right, 15% unclear.

    The model was fitted to these persons among others; `tools/fit_posture.py` cross-validates it.
    """
    found: list[tuple[str, str]] = [
        (sample.posture, posture_of(sample.keypoints))
        for sample in persons(shared_data, ["movenet-thunder-int8"])
        if sample.legs and sample.source.startswith("movenet")
    ]
    clear = [(truth, name) for truth, name in found if name != "unclear"]
    assert len(found) == 268
    assert len(clear) >= 0.85 * len(found)
    assert sum(truth == name for truth, name in clear) >= 0.9 * len(clear)
    assert ("standing", "lying") not in clear
    assert ("lying", "standing") not in clear


@pytest.mark.parametrize("model", ["movenet-thunder-int8", "movenet-lightning-int8"])
@pytest.mark.parametrize(
    ("number", "posture"),
    [
        ("1", "standing"),
        ("1_1", "standing"),
        ("4", "standing"),
        ("2", "bending"),
        ("2_2", "bending"),
    ],
)
def test_posture_of_a_man_in_an_office(model: str, number: str, posture: str) -> None:
    """A man who stands, walks or crouches; the one image where he lies needs turned crops."""
    pipeline = pipeline_of(load_model(model))
    pipeline.postures = LogisticPostures()
    result = pipeline.process(frame(f"stills/ambianic_fall_img_{number}.png"))
    assert [each.name for each in result.postures] == [posture]
