"""PoseNet's decoding, on outputs made from known people."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgepose.datatypes import InputSpec, Poses, TensorSpec, TensorToFrame
from edgepose.errors import ModelShapeError
from edgepose.imaging.crop import padded_region
from edgepose.pose_models.posenet import PARENT_CHILD, Posenet
from edgepose.skeleton import EDGES, KEYPOINT_NAMES
from tests.posenet_scenes import Doubles, Outputs, Person, draw, reference_poses

IDENTITY = TensorToFrame((1.0, 1.0), (0.0, 0.0))
ROWS, COLUMNS, STRIDE = 23, 31, 16


def image_input(size_wh: tuple[int, int], dtype: str = "float32") -> TensorSpec:
    return TensorSpec("image", (1, size_wh[1], size_wh[0], 3), np.dtype(dtype))


def posenet(outputs: Outputs, **options: object) -> Posenet:
    return Posenet(
        image_input(outputs.size_wh),
        outputs.specs(),
        name="x.tflite",
        **options,  # type: ignore[arg-type]
    )


def points_yx(poses: Poses) -> NDArray[np.float32]:
    """Undo x before y and the half pixel between a pixel's middle and its corner."""
    return poses.keypoints[:, :, ::-1] - 0.5


@st.composite
def bodies(draw_: st.DrawFn, columns: tuple[int, int], stride: int = STRIDE) -> Doubles:
    """Keypoints anywhere in some columns, not on the border between two cells."""
    cells = draw_(
        st.lists(
            st.tuples(st.integers(1, ROWS - 2), st.integers(*columns)), min_size=17, max_size=17
        )
    )
    within = draw_(
        st.lists(
            st.tuples(st.floats(-0.45, 0.45), st.floats(-0.45, 0.45)), min_size=17, max_size=17
        )
    )
    body: Doubles = (np.array(cells) + np.array(within)) * stride
    return body


LEFT_BODY = bodies((1, 12))
RIGHT_BODY = bodies((16, COLUMNS - 2))


@pytest.mark.parametrize("stride", [8, 16, 32])
@given(body=bodies((1, COLUMNS - 2), 1), score=st.floats(0.55, 0.99))
@settings(max_examples=40)
def test_posenet_one_person(stride: int, body: Doubles, score: float) -> None:
    outputs = draw([Person(body * stride, score)], rows=ROWS, columns=COLUMNS, stride=stride)
    poses = posenet(outputs).decode(outputs.tensors(), IDENTITY)
    assert len(poses) == 1
    np.testing.assert_allclose(points_yx(poses)[0], body * stride, atol=0.01)
    np.testing.assert_allclose(poses.keypoint_scores[0], score, atol=1e-5)
    assert poses.scores[0] == pytest.approx(score, abs=1e-5)


@given(left=LEFT_BODY, right=RIGHT_BODY)
@settings(max_examples=60)
def test_posenet_swapped_people(left: Doubles, right: Doubles) -> None:
    """Two people who change places are swapped in the result."""
    decoded = []
    for left_score, right_score in ((0.9, 0.7), (0.7, 0.9)):
        people = [Person(left, left_score), Person(right, right_score)]
        outputs = draw(people, rows=ROWS, columns=COLUMNS, stride=STRIDE)
        decoded.append(points_yx(posenet(outputs).decode(outputs.tensors(), IDENTITY)))
    for found, expected in zip(decoded, ((left, right), (right, left)), strict=True):
        assert found.shape == (2, 17, 2)
        np.testing.assert_allclose(found, expected, atol=0.01)


@given(left=LEFT_BODY, right=RIGHT_BODY)
@settings(max_examples=40)
def test_posenet_single_uses_best_cell_of_each_keypoint(left: Doubles, right: Doubles) -> None:
    people = [Person(left, 0.7), Person(right, 0.9)]
    outputs = draw(people, rows=ROWS, columns=COLUMNS, stride=STRIDE)
    poses = posenet(outputs, max_poses=1).decode(outputs.tensors(), IDENTITY)
    assert len(poses) == 1
    np.testing.assert_allclose(points_yx(poses)[0], right, atol=0.01)
    assert poses.scores[0] == pytest.approx(0.9, abs=1e-5)


@given(seed=st.integers(0, 2**32 - 1), max_poses=st.integers(2, 8))
@settings(max_examples=25, deadline=None)
def test_posenet_equals_reference_decoder_on_any_outputs(seed: int, max_poses: int) -> None:
    rng = np.random.default_rng(seed)
    outputs = Outputs(
        rng.normal(-3.0, 2.0, (9, 11, 17)).astype(np.float32).astype(np.float64),
        rng.normal(0.0, 6.0, (9, 11, 34)).astype(np.float32).astype(np.float64),
        rng.normal(0.0, 30.0, (9, 11, 32)).astype(np.float32).astype(np.float64),
        rng.normal(0.0, 30.0, (9, 11, 32)).astype(np.float32).astype(np.float64),
        STRIDE,
    )
    expected = reference_poses(outputs, max_poses=max_poses)
    poses = posenet(outputs, max_poses=max_poses).decode(outputs.tensors(), IDENTITY)
    assert len(poses) == len(expected)
    for index, (points, keypoint_scores, score) in enumerate(expected):
        np.testing.assert_allclose(points_yx(poses)[index], points, atol=0.01)
        np.testing.assert_allclose(poses.keypoint_scores[index], keypoint_scores, atol=1e-5)
        assert poses.scores[index] == pytest.approx(score, abs=1e-4)


def body_at(y: float, x: float) -> Doubles:
    """A body about there, its keypoints well inside their cells."""
    rng = np.random.default_rng(3)
    cells = np.rint(np.array((y, x)) / STRIDE) + rng.integers(-3, 4, (17, 2))
    body: Doubles = (cells + rng.uniform(-0.3, 0.3, (17, 2))) * STRIDE
    return body


def quantized(real: Doubles, scale: float, zero_point: int) -> NDArray[np.uint8]:
    stored: NDArray[np.uint8] = np.clip(np.rint(real / scale) + zero_point, 0, 255).astype(np.uint8)
    return stored[np.newaxis]


def coral(outputs: Outputs) -> tuple[tuple[TensorSpec, ...], list[NDArray[np.uint8]]]:
    """Return the outputs as Coral's quantized files have them: 17, 64 and 34 channels."""
    middle = np.concatenate((outputs.forward, outputs.backward), axis=2)
    layers = (
        ("float_heatmaps", outputs.heatmaps, 0.08, 150),
        ("float_mid_offsets", middle, 1.4, 120),
        ("float_short_offsets", outputs.offsets, 0.08, 128),
    )
    tensors = [quantized(real, scale, zero) for _, real, scale, zero in layers]
    specs = tuple(
        TensorSpec(name, tensor.shape, tensor.dtype, scale, zero)
        for (name, _, scale, zero), tensor in zip(layers, tensors, strict=True)
    )
    return specs, tensors


def test_posenet_quantized_outputs_with_joined_displacements() -> None:
    """They give the same poses as float outputs."""
    people = [Person(body_at(150, 120), 0.9), Person(body_at(180, 340), 0.8)]
    outputs = draw(people, rows=ROWS, columns=COLUMNS, stride=STRIDE)
    specs, tensors = coral(outputs)
    model = Posenet(image_input(outputs.size_wh, "uint8"), specs, name="x.tflite")
    poses = model.decode(tensors, IDENTITY)
    assert len(poses) == 2
    # Half a step of the offsets, 0.04 px each way.
    np.testing.assert_allclose(
        points_yx(poses), [person.points_yx for person in people], atol=0.041
    )
    np.testing.assert_allclose(poses.scores, (0.9, 0.8), atol=0.01)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_posenet_outputs_in_any_order(order: tuple[int, ...]) -> None:
    """Outputs are found by their channels and names."""
    person = Person(body_at(150, 240), 0.9)
    outputs = draw([person], rows=ROWS, columns=COLUMNS, stride=STRIDE)
    specs = tuple(outputs.specs()[index] for index in order)
    tensors = [outputs.tensors()[index] for index in order]
    model = Posenet(image_input(outputs.size_wh), specs, name="x.tflite")
    np.testing.assert_allclose(
        points_yx(model.decode(tensors, IDENTITY))[0], person.points_yx, atol=0.01
    )


def test_posenet_displacements_without_names() -> None:
    """Without names, the forward displacements come first."""
    person = Person(body_at(150, 240), 0.9)
    outputs = draw([person], rows=ROWS, columns=COLUMNS, stride=STRIDE)
    specs = tuple(replace(spec, name=f"Identity_{i}") for i, spec in enumerate(outputs.specs()))
    model = Posenet(image_input(outputs.size_wh), specs, name="x.tflite")
    np.testing.assert_allclose(
        points_yx(model.decode(outputs.tensors(), IDENTITY))[0], person.points_yx, atol=0.01
    )


def test_posenet_heatmaps_of_scores() -> None:
    """Heatmaps that are scores already are used unchanged."""
    outputs = draw([Person(body_at(150, 240), 0.8)], rows=ROWS, columns=COLUMNS, stride=STRIDE)
    scores = replace(outputs, heatmaps=np.where(outputs.heatmaps > 0, 0.8, 0.001))
    poses = posenet(scores).decode(scores.tensors(), IDENTITY)
    assert len(poses) == 1
    assert poses.scores[0] == pytest.approx(0.8, abs=1e-5)
    single = posenet(scores, max_poses=1).decode(scores.tensors(), IDENTITY)
    assert single.scores[0] == pytest.approx(0.8, abs=1e-5)


@pytest.mark.parametrize(
    ("scale", "zero_point", "stored", "expected"),
    [(1 / 256, 0, 200, 200 / 256), (0.05, 128, 168, 1 / (1 + np.exp(-2.0)))],
    ids=["scores", "logits"],
)
def test_posenet_quantized_heatmaps(
    scale: float, zero_point: int, stored: int, expected: float
) -> None:
    """The values show whether heatmaps are scores or logits."""
    outputs = draw([Person(body_at(150, 240), 0.8)], rows=ROWS, columns=COLUMNS, stride=STRIDE)
    specs, tensors = coral(outputs)
    tensors[0] = np.where(outputs.heatmaps > 0, stored, 0).astype(np.uint8)[np.newaxis]
    specs = (replace(specs[0], scale=scale, zero_point=zero_point), *specs[1:])
    poses = Posenet(image_input(outputs.size_wh, "uint8"), specs, name="x.tflite").decode(
        tensors, IDENTITY
    )
    assert len(poses) == 1
    np.testing.assert_allclose(poses.keypoint_scores[0], expected, rtol=1e-5)


def test_posenet_without_a_person() -> None:
    outputs = draw([], rows=ROWS, columns=COLUMNS, stride=STRIDE)
    poses = posenet(outputs).decode(outputs.tensors(), IDENTITY)
    assert len(poses) == 0
    assert poses.keypoints.shape == (0, 17, 2)


def test_posenet_max_poses() -> None:
    """The poses with the best scores are kept."""
    crowd = [Person(body_at(80 + 20 * i, 70 + 45 * i), 0.6 + 0.05 * i) for i in range(7)]
    outputs = draw(crowd, rows=ROWS, columns=COLUMNS, stride=STRIDE)
    poses = posenet(outputs, max_poses=3).decode(outputs.tensors(), IDENTITY)
    np.testing.assert_allclose(poses.scores, (0.9, 0.85, 0.8), atol=1e-5)


def test_posenet_nms_radius() -> None:
    """The twin stands 3 cells to the right: 48 px."""
    body = np.rint(body_at(150, 200) / STRIDE) * STRIDE
    people = [Person(body, 0.9), Person(body + np.array((0.0, 48.0)), 0.8)]
    outputs = draw(people, rows=ROWS, columns=COLUMNS, stride=STRIDE)
    # A keypoint of the one in a cell next to the same keypoint of the other would not be a root.
    near = posenet(outputs, nms_radius_px=20.0).decode(outputs.tensors(), IDENTITY)
    far = posenet(outputs, nms_radius_px=60.0).decode(outputs.tensors(), IDENTITY)
    assert len(near) == 2
    assert len(far) == 1


@given(left=LEFT_BODY)
@settings(max_examples=30)
def test_posenet_pose_threshold_before_max_poses(left: Doubles) -> None:
    """Poor poses with strong roots do not take the places of a better pose."""
    poor = [Person(body_at(90, 350), 0.02), Person(body_at(270, 350), 0.02)]
    outputs = draw([Person(left, 0.8), *poor], rows=ROWS, columns=COLUMNS, stride=STRIDE)
    for person in poor:
        row, column = np.rint(person.points_yx[0] / STRIDE).astype(int)
        outputs.heatmaps[row, column, 0] = 5.0
    poses = posenet(outputs, max_poses=2, pose_threshold=0.4).decode(outputs.tensors(), IDENTITY)
    assert len(poses) == 1
    np.testing.assert_allclose(points_yx(poses)[0], left, atol=0.01)


def test_posenet_coordinates_and_box() -> None:
    """Coordinates are in px from the frame's corner; the box bounds the visible keypoints."""
    body = body_at(150, 240)
    outputs = draw([Person(body, 0.9)], rows=ROWS, columns=COLUMNS, stride=STRIDE)
    row, column = np.rint(body[16] / STRIDE).astype(int)
    outputs.heatmaps[row, column, 16] = -6.0
    poses = posenet(outputs).decode(outputs.tensors(), TensorToFrame((2.0, 3.0), (-10.0, 5.0)))
    expected = (body[:, ::-1] + 0.5) * (2.0, 3.0) + (-10.0, 5.0)
    np.testing.assert_allclose(poses.keypoints[0], expected, atol=0.02)
    visible = expected[:16]
    np.testing.assert_allclose(
        poses.boxes_xyxy[0], (*visible.min(axis=0), *visible.max(axis=0)), atol=0.02
    )


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30])
def test_posenet_invalid_vectors(garbage: float) -> None:
    """They do not raise."""
    outputs = draw([Person(body_at(150, 240), 0.9)], rows=ROWS, columns=COLUMNS, stride=STRIDE)
    outputs.forward[:] = outputs.backward[:] = outputs.offsets[:] = garbage
    with np.errstate(all="ignore"):
        poses = posenet(outputs).decode(outputs.tensors(), IDENTITY)
    assert len(poses) <= 5


@given(
    frame_width=st.integers(16, 4000),
    frame_height=st.integers(16, 4000),
)
def test_posenet_whole_frame_is_centred(frame_width: int, frame_height: int) -> None:
    outputs = draw([], rows=ROWS, columns=COLUMNS, stride=STRIDE)
    model = posenet(outputs)
    spec = model.input_spec
    region = padded_region((frame_width, frame_height), spec.size_wh, centred=spec.centred)
    width, height = region.x_max - region.x_min, region.y_max - region.y_min
    tensor_width, tensor_height = spec.size_wh
    assert width / height == pytest.approx(tensor_width / tensor_height)
    assert region.x_min + region.x_max == pytest.approx(frame_width)
    assert region.y_min + region.y_max == pytest.approx(frame_height)
    assert min(width - frame_width, height - frame_height) == pytest.approx(0, abs=1e-6)
    assert not model.crops


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "expected"),
    [
        ("float32", 0.0, 0, (1 / 127.5, -1.0)),
        ("uint8", 1 / 128, 128, (1.0, 0.0)),
        ("uint8", 1 / 127.5, 128, (1.0, 0.0)),
        ("int8", 1 / 128, 0, (1.0, -128.0)),
        ("int8", 1 / 127.5, 0, (1.0, -128.0)),
        ("uint8", 0.0, 0, (1.0, 0.0)),
        ("uint8", 0.02, 100, (1 / (127.5 * 0.02), 50.0)),
    ],
)
def test_posenet_preprocess_scale_and_offset(
    dtype: str, scale: float, zero_point: int, expected: tuple[float, float]
) -> None:
    outputs = draw([], rows=ROWS, columns=COLUMNS, stride=STRIDE)
    tensor = replace(image_input(outputs.size_wh, dtype), scale=scale, zero_point=zero_point)
    spec = Posenet(tensor, outputs.specs(), name="x.tflite").input_spec
    assert isinstance(spec, InputSpec)
    assert spec.size_wh == outputs.size_wh
    assert (spec.pixel_scale, spec.pixel_offset) == pytest.approx(expected)


def test_posenet_coral_720p_grid() -> None:
    """81 x 46 cells on 1280 x 720: a spacing of 15.98, which is stride 16."""
    outputs = draw([], rows=46, columns=81, stride=16)
    model = Posenet(image_input((1280, 720)), outputs.specs(), name="x.tflite")
    assert model.input_spec.size_wh == (1280, 720)


def test_posenet_invalid_stride() -> None:
    outputs = draw([], rows=ROWS, columns=COLUMNS, stride=STRIDE)
    with pytest.raises(ModelShapeError, match=r"192x192.*31x23 cells.*8, 16 or 32"):
        Posenet(image_input((192, 192)), outputs.specs(), name="x.tflite")
    one_cell = draw([], rows=1, columns=1, stride=STRIDE)
    with pytest.raises(ModelShapeError, match="1x1 cells"):
        Posenet(image_input((192, 192)), one_cell.specs(), name="x.tflite")


def test_posenet_input_is_not_an_image() -> None:
    outputs = draw([], rows=ROWS, columns=COLUMNS, stride=STRIDE)
    with pytest.raises(ModelShapeError, match=r"input is \(1, 40\).*height, width, 3"):
        Posenet(TensorSpec("x", (1, 40), np.dtype("f4")), outputs.specs(), name="x.tflite")


def test_posenet_tree_connects_every_keypoint() -> None:
    """Every keypoint is connected to the nose by one path."""
    reached = {0}
    for parent, child in PARENT_CHILD:
        assert parent in reached
        assert child not in reached
        reached.add(child)
    assert reached == set(range(len(KEYPOINT_NAMES)))
    limbs = {edge for edge in PARENT_CHILD if 0 not in edge}
    assert limbs <= set(EDGES)


@given(first=LEFT_BODY, second=LEFT_BODY)
@settings(max_examples=60)
def test_posenet_second_person_does_not_move_first(first: Doubles, second: Doubles) -> None:
    """The same people anywhere, even mixed up, as long as no keypoint shares or touches a cell."""
    gap = np.abs(np.rint(first / STRIDE) - np.rint(second / STRIDE)).max(axis=1)
    assume(gap.min() > 1)
    assume(np.linalg.norm(first - second, axis=1).min() > 20)
    people = [Person(first, 0.9), Person(second, 0.7)]
    outputs = draw(people, rows=ROWS, columns=COLUMNS, stride=STRIDE)
    poses = posenet(outputs).decode(outputs.tensors(), IDENTITY)
    assert len(poses) == 2
    np.testing.assert_allclose(points_yx(poses), (first, second), atol=0.01)
