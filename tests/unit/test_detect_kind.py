"""Detection of the kind of a model from its tensors."""

import numpy as np
import pytest

from edgepose.datatypes import TensorSpec
from edgepose.errors import ModelShapeError
from edgepose.pose_models.detect_kind import detect_kind


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
    assert detect_kind(outputs_of(*shapes), name="x.tflite") == kind


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ([(1, 10, 17, 2), (1, 10, 17), (1, 10), ()], r"\(1, 10, 17, 2\), .*, \(1, 10\), \(\)"),
        ([(1, 23, 31, 17), (1, 23, 31, 34)], r"\(1, 23, 31, 17\), \(1, 23, 31, 34\)"),
        ([(1, 23, 31, 17), (1, 23, 31, 34), (1, 23, 31, 32)], r".*, \(1, 23, 31, 32\)"),
        ([(1, 9, 31, 17), (1, 23, 31, 34), (1, 23, 31, 64)], r"\(1, 9, 31, 17\), .*"),
        ([(1, 17), (1, 34), (1, 64)], r"\(1, 17\), \(1, 34\), \(1, 64\)"),
        ([(1, 6, 56), (1,)], r"\(1, 6, 56\), \(1,\)"),
        ([(1, 6, 55)], r"\(1, 6, 55\)"),
        ([(1, 1001)], r"\(1, 1001\)"),
        ([], "none"),
    ],
)
def test_detect_kind_other_networks(shapes: list[tuple[int, ...]], text: str) -> None:
    message = rf"^x\.tflite: outputs are {text}, expected \(1, 1, 17, 3\).*edgepose models list"
    with pytest.raises(ModelShapeError, match=message):
        detect_kind(outputs_of(*shapes), name="x.tflite")
