"""MoveNet MultiPose's decoding and input sizes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgepose.datatypes import Poses, TensorSpec, TensorToFrame
from edgepose.errors import ModelShapeError
from edgepose.imaging.preprocess import preprocess
from edgepose.pose_models.movenet_multipose import MovenetMultipose
from tests.builders import frame_of

OUTPUT = TensorSpec("Identity", (1, 6, 56), np.dtype(np.float32))


def image_input(width: int, height: int) -> TensorSpec:
    return TensorSpec("input", (1, height, width, 3), np.dtype(np.uint8))


def multipose(width: int = 256, height: int = 256, max_poses: int = 6) -> MovenetMultipose:
    return MovenetMultipose(
        image_input(width, height), (OUTPUT,), name="m.tflite", max_poses=max_poses
    )


def output_of(
    points_xy: NDArray[np.float64], box_xyxy: tuple[float, ...], score: float, place: int = 0
) -> NDArray[np.float32]:
    """Return an output with one pose, its numbers 0..1 of the input, in one of the six places."""
    output = np.zeros((1, 6, 56), np.float32)
    pose = output[0, place]
    pose[0:51:3], pose[1:51:3], pose[2:51:3] = points_xy[:, 1], points_xy[:, 0], 0.7
    pose[51:55] = box_xyxy[1], box_xyxy[0], box_xyxy[3], box_xyxy[2]
    pose[55] = score
    return output


@given(
    frame_wh=st.tuples(st.integers(40, 1400), st.integers(40, 1400)),
    multiples=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    at=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=17, max_size=17),
)
def test_multipose_maps_keypoints_and_boxes_to_frame(
    frame_wh: tuple[int, int],
    multiples: tuple[int, int],
    at: list[tuple[float, float]],
) -> None:
    """A point of the frame, at its place in the tensor, is mapped back to the frame."""
    size_wh = (32 * multiples[0], 32 * multiples[1])
    model = multipose(*size_wh)
    frame = frame_of(frame_wh)
    tensor, to_frame = preprocess(frame.image, None, model.input_spec)
    assert tensor.shape == (1, size_wh[1], size_wh[0], 3)
    per_px = max(frame_wh[0] / size_wh[0], frame_wh[1] / size_wh[1])
    points = np.array(at) * frame_wh
    box = (0.0, 0.0, frame_wh[0] * 0.5, frame_wh[1] * 0.75)
    unit = per_px * np.array(size_wh)
    unit_box = tuple((np.array(box).reshape(2, 2) / unit).ravel().tolist())
    poses = model.decode([output_of(points / unit, unit_box, 0.8)], to_frame)
    # The frame fills a whole number of tensor px, so its far edge is off by up to half of one, and
    # by one frame px if its size is odd and it is halved.
    off_px = 0.51 * max(to_frame.scale_xy) + 1.01
    np.testing.assert_allclose(poses.keypoints[0], points, atol=off_px)
    np.testing.assert_allclose(poses.boxes_xyxy[0], box, atol=off_px)


def test_multipose_preprocess_pads_right_and_bottom() -> None:
    frame = frame_of((640, 360))
    model = multipose()
    tensor, to_frame = preprocess(frame.image, None, model.input_spec)
    assert (tensor[0, :144] == 127).all()
    assert not tensor[0, 144:].any()
    assert to_frame == TensorToFrame((2.5, 2.5), (0.0, 0.0))


def test_multipose_sorts_by_score() -> None:
    rng = np.random.default_rng(1)
    output = rng.uniform(0, 1, (1, 6, 56)).astype(np.float32)
    output[0, :, 55] = (0.1, 0.9, 0.3, 0.8, 0.2, 0.0)
    poses = multipose(256, 192).decode([output], TensorToFrame((1.0, 1.0), (0.0, 0.0)))
    np.testing.assert_array_equal(
        poses.scores, np.array([0.9, 0.8, 0.3, 0.2, 0.1, 0.0], np.float32)
    )
    best = output[0, 1]
    np.testing.assert_allclose(poses.keypoints[0, 3], (best[10] * 256, best[9] * 192))
    np.testing.assert_allclose(poses.keypoint_scores[0], best[2:51:3])
    np.testing.assert_allclose(
        poses.boxes_xyxy[0], (best[52] * 256, best[51] * 192, best[54] * 256, best[53] * 192)
    )


@given(order=st.permutations(range(6)))
def test_multipose_order_of_outputs(order: list[int]) -> None:
    rng = np.random.default_rng(2)
    output = rng.uniform(0, 1, (1, 6, 56)).astype(np.float32)
    to_frame = TensorToFrame((2.0, 3.0), (4.0, 5.0))
    straight, permuted = (
        multipose().decode([places], to_frame) for places in (output, output[:, order])
    )
    np.testing.assert_array_equal(straight.keypoints, permuted.keypoints)
    np.testing.assert_array_equal(straight.boxes_xyxy, permuted.boxes_xyxy)


def test_multipose_max_poses() -> None:
    """The poses with the best scores are kept."""
    output = np.zeros((1, 6, 56), np.float32)
    output[0, :, 55] = (0.1, 0.9, 0.3, 0.8, 0.2, 0.0)
    model = multipose(max_poses=2)
    poses = model.decode([output], TensorToFrame((1.0, 1.0), (0.0, 0.0)))
    np.testing.assert_array_equal(poses.scores, np.array([0.9, 0.8], np.float32))
    assert not model.crops


def test_multipose_decode_does_not_change_output() -> None:
    output = np.full((1, 6, 56), 0.5, np.float32)
    poses = multipose().decode([output], TensorToFrame((2.0, 2.0), (1.0, 1.0)))
    poses.keypoint_scores[:] = 0.0
    assert (output == 0.5).all()


def test_multipose_quantized_outputs() -> None:
    spec = replace(OUTPUT, dtype=np.dtype(np.uint8), scale=1 / 200, zero_point=10)
    model = MovenetMultipose(image_input(256, 256), (spec,), name="m.tflite")
    stored = np.full((1, 6, 56), 110, np.uint8)
    poses = model.decode([stored], TensorToFrame((1.0, 1.0), (0.0, 0.0)))
    np.testing.assert_allclose(poses.scores, 0.5, atol=1e-6)
    np.testing.assert_allclose(poses.keypoints, 128.0, atol=1e-4)


def test_multipose_sides_not_multiple_of_32() -> None:
    with pytest.raises(ModelShapeError, match="250x256, expected sides that are multiples of 32"):
        multipose(250, 256)


def test_multipose_decode_without_poses() -> None:
    spec = replace(OUTPUT, shape=(1, 0, 56))
    model = MovenetMultipose(image_input(256, 256), (spec,), name="m.tflite")
    poses = model.decode([np.empty((1, 0, 56), np.float32)], TensorToFrame((1, 1), (0, 0)))
    assert isinstance(poses, Poses)
    assert len(poses) == 0
