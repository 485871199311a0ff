"""Decoding of MoveNet's 17 (y, x, score) triples."""

import numpy as np
import pytest

from edgepose.datatypes import CropRegion, Floats, TensorSpec, TensorToFrame
from edgepose.errors import ModelShapeError
from edgepose.imaging.preprocess import preprocess
from edgepose.pose_models.movenet_single import MovenetSingle, default_pose_threshold

INPUT = TensorSpec("image", (1, 192, 192, 3), np.dtype(np.uint8))
OUTPUT = TensorSpec("poses", (1, 1, 17, 3), np.dtype(np.float32))
IDENTITY = TensorToFrame((1.0, 1.0), (0.0, 0.0))


def model(**options: bool) -> MovenetSingle:
    return MovenetSingle(INPUT, (OUTPUT,), name="test", **options)


def output(y: float = 0.5, x: float = 0.25, score: float = 0.9) -> Floats:
    values = np.empty((1, 1, 17, 3), np.float32)
    values[..., 0], values[..., 1], values[..., 2] = y, x, score
    return values


def test_movenet_single_output_is_y_x_in_fractions() -> None:
    poses = model().decode([output()], TensorToFrame((2.0, 3.0), (10.0, -20.0)))
    assert len(poses) == 1
    assert poses.keypoints[0, 0] == pytest.approx([0.25 * 192 * 2 + 10, 0.5 * 192 * 3 - 20])
    assert poses.keypoint_scores[0] == pytest.approx(0.9)
    assert poses.scores[0] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("turns", "place"), [(0, (48, 96)), (1, (96, 144)), (2, (144, 96)), (3, (96, 48))]
)
def test_movenet_single_turned_crop(turns: int, place: tuple[int, int]) -> None:
    """Keypoints found in a turned crop are those of the upright frame."""
    image = np.zeros((192, 192, 3), np.uint8)
    single = model()
    _, to_frame = preprocess(image, CropRegion(0, 0, 192, 192, turns), single.input_spec)
    poses = single.decode([output(y=0.5, x=0.25)], to_frame)
    assert poses.keypoints[0, 3] == pytest.approx(place)
    assert poses.boxes_xyxy[0] == pytest.approx(place + place)


def test_movenet_single_score_is_the_root_mean_square() -> None:
    """Of a body of which half is visible it is higher than the mean, which is 0.4."""
    values = output(score=0.0)
    values[0, 0, :8, 2] = 0.85
    poses = model().decode([values], IDENTITY)
    assert poses.scores[0] == pytest.approx(0.85 * (8 / 17) ** 0.5)


@pytest.mark.parametrize(("side", "threshold"), [(192, 0.30), (256, 0.28)])
def test_movenet_single_default_threshold(side: int, threshold: float) -> None:
    spec = TensorSpec("image", (1, side, side, 3), np.dtype(np.uint8))
    assert default_pose_threshold(spec) == threshold


def test_movenet_single_keypoint_order() -> None:
    values = output()
    values[0, 0, :, 1] = np.arange(17) / 16
    poses = model().decode([values], IDENTITY)
    assert poses.keypoints[0, :, 0] == pytest.approx(np.arange(17) * 12)


def test_movenet_single_box_of_visible_keypoints() -> None:
    values = output(score=0.8)
    values[0, 0, :, :2] = np.linspace(0.3, 0.6, 34).reshape(17, 2)
    values[0, 0, 16] = (0.99, 0.01, 0.05)
    box = model().decode([values], IDENTITY).boxes_xyxy[0] / 192
    assert box == pytest.approx(
        [values[0, 0, 0, 1], 0.3, values[0, 0, 15, 1], values[0, 0, 15, 0]], abs=1e-5
    )


def test_movenet_single_box_without_visible_keypoints() -> None:
    poses = model().decode([output(score=0.01)], IDENTITY)
    assert np.isfinite(poses.boxes_xyxy).all()


def test_movenet_single_quantized_output() -> None:
    spec = TensorSpec("poses", (1, 1, 17, 3), np.dtype(np.uint8), 1 / 255, 0)
    quantized = MovenetSingle(INPUT, (spec,), name="test")
    values = np.full((1, 1, 17, 3), 51, np.uint8)
    assert quantized.decode([values], IDENTITY).scores[0] == pytest.approx(0.2)


def test_movenet_single_crop_disabled() -> None:
    assert model().crops
    assert not model(crop=False).crops


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((1, 192, 256, 3), "input is 256x192, expected the square"),
        ((1, 192, 192, 1), r"input is \(1, 192, 192, 1\), expected \(1, height, width, 3\)"),
    ],
)
def test_movenet_single_invalid_input(shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(ModelShapeError, match=text):
        MovenetSingle(TensorSpec("in", shape, np.dtype(np.uint8)), (OUTPUT,), name="x.tflite")
