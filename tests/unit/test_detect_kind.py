"""Detection of the kind of a model from its tensors."""

import numpy as np
import pytest

from edgepose.datatypes import TensorSpec
from edgepose.errors import ModelShapeError
from edgepose.pose_models.detect_kind import detect_kind

IMAGE = TensorSpec("image", (1, 256, 256, 3), np.dtype(np.uint8))


def outputs_of(*shapes: tuple[int, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec("x", shape, np.dtype(np.float32)) for shape in shapes)


@pytest.mark.parametrize(
    ("shapes", "kind"),
    [
        ([(1, 1, 17, 3)], "movenet_single"),
        ([(1, 6, 56)], "movenet_multipose"),
        ([(1, 23, 31, 17), (1, 23, 31, 34), (1, 23, 31, 64)], "posenet"),
        ([(1, 9, 9, 32), (1, 9, 9, 17), (1, 9, 9, 32), (1, 9, 9, 34)], "posenet"),
    ],
)
def test_detect_kind_of_every_model(shapes: list[tuple[int, ...]], kind: str) -> None:
    assert detect_kind(IMAGE, outputs_of(*shapes), name="x.tflite") == kind


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ([(1, 10, 17, 2), (1, 10, 17), (1, 10), ()], r"\(1, 10, 17, 2\), .*, \(1, 10\), \(\)"),
        ([(1, 23, 31, 17), (1, 23, 31, 34)], r"\(1, 23, 31, 17\), \(1, 23, 31, 34\)"),
        ([(1, 1001)], r"\(1, 1001\)"),
        ([], "none"),
    ],
)
def test_detect_kind_other_networks(shapes: list[tuple[int, ...]], text: str) -> None:
    message = rf"^x\.tflite: outputs are {text}, expected \(1, 1, 17, 3\).*edgepose models list"
    with pytest.raises(ModelShapeError, match=message):
        detect_kind(IMAGE, outputs_of(*shapes), name="x.tflite")


def test_detect_kind_input_is_not_an_image() -> None:
    audio = TensorSpec("audio", (1, 16000), np.dtype(np.float32))
    with pytest.raises(ModelShapeError, match=r"input is \(1, 16000\), expected \(1, height"):
        detect_kind(audio, outputs_of((1, 1, 17, 3)), name="x.tflite")
