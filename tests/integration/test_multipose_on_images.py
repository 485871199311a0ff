"""PoseNet and MoveNet MultiPose files on real images of several people."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgepose.datatypes import Frame, Poses, TensorToFrame
from edgepose.imaging.preprocess import preprocess
from edgepose.inference.interpreter import tensor_spec
from edgepose.pose_models import movenet_multipose, posenet
from edgepose.pose_models.detect_kind import detect_kind
from edgepose.pose_models.movenet_multipose import MovenetMultipose
from edgepose.pose_models.posenet import Posenet
from edgepose.protocols import Tensor
from edgepose.registry.tflite_file import POSENET_DECODER_OP, without_custom_op
from edgepose.tracking.similarity import keypoint_similarity
from tests.conftest import MODELS, SHARED
from tests.images import EMPTY, THREE_PEOPLE, existing, existing_models, frame, image
from tests.posenet_scenes import Doubles, Outputs, reference_poses

FLOAT = "posenet-mobilenet-fp32.tflite"
INT8 = "posenet-mobilenet-int8.tflite"
CORAL = "posenet_mobilenet_v1_075_353_481_quant.tflite"
CORAL_LARGE = "posenet_mobilenet_v1_075_481_641_quant.tflite"
CORAL_DECODER = "posenet_mobilenet_v1_075_353_481_quant_decoder.tflite"
MULTIPOSE = "movenet-multipose-fp16.tflite"
POSENETS = (FLOAT, INT8, *existing_models(CORAL, CORAL_LARGE, CORAL_DECODER))
EVERY = (*POSENETS, MULTIPOSE)
# One of the three has a score of only 0.44 with Coral's larger file.
SURE = tuple(name for name in EVERY if name != CORAL_LARGE)
PILOTS = "stills/pilots.jpg"
TRIOS = (THREE_PEOPLE, *existing("stills/three_people.jpg", PILOTS))
PAIRS = existing("coco/images/000000000338.jpg")
CLOSE_COUPLE = "coco/images/000000164602.jpg"


class Runner:
    """A file on the CPU, from an image to poses in frame px."""

    def __init__(self, path: Path, *, multiple: bool = True) -> None:
        litert = pytest.importorskip("ai_edge_litert.interpreter")
        data = without_custom_op(path.read_bytes(), POSENET_DECODER_OP, name=path.name)
        self._interpreter = litert.Interpreter(model_content=data, num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._interpreter.get_output_details()
        self.specs = tuple(tensor_spec(output) for output in self._outputs)
        input_spec = tensor_spec(self._input)
        kind = detect_kind(self.specs, name=path.name)
        self.model: Posenet | MovenetMultipose
        if kind == "posenet":
            self.model = Posenet(
                input_spec, self.specs, name=path.name, max_poses=5 if multiple else 1
            )
            self.threshold = posenet.DEFAULT_POSE_THRESHOLD
        else:
            self.model = MovenetMultipose(input_spec, self.specs, name=path.name)
            self.threshold = movenet_multipose.DEFAULT_POSE_THRESHOLD

    def outputs(self, frame: Frame) -> tuple[Sequence[Tensor], TensorToFrame]:
        tensor, to_frame = preprocess(frame.image, None, self.model.input_spec)
        self._interpreter.set_tensor(self._input["index"], tensor)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output["index"]) for output in self._outputs], to_frame

    def candidates(self, frame: Frame) -> Poses:
        return self.model.decode(*self.outputs(frame))

    def poses(self, frame: Frame) -> Poses:
        found = self.candidates(frame)
        return found.select(found.scores >= self.threshold)


def runner(name: str, *, multiple: bool = True) -> Runner:
    folder = MODELS if (MODELS / name).exists() else SHARED / "models"
    return Runner(folder / name, multiple=multiple)


def real_outputs(name: str, run: Runner, outputs: Sequence[Tensor]) -> Outputs:
    """Return the outputs of a file as real numbers, without the decoder."""
    real = {}
    for spec, stored in zip(run.specs, outputs, strict=True):
        values: Doubles = stored[0].astype(np.float64)
        if spec.scale:
            values = (values - spec.zero_point) * spec.scale
        channels = values.shape[2]
        if channels == 64:
            real["forward"], real["backward"] = values[:, :, :32], values[:, :, 32:]
        elif channels == 32:
            real["forward" if "fwd" in spec.name else "backward"] = values
        else:
            real["heatmaps" if channels == 17 else "offsets"] = values
    assert sorted(real) == ["backward", "forward", "heatmaps", "offsets"], name
    columns = real["heatmaps"].shape[1]
    stride = round((run.model.input_spec.size_wh[0] - 1) / (columns - 1))
    return Outputs(stride=stride, **real)


@pytest.mark.parametrize("name", POSENETS)
@pytest.mark.parametrize("path", [*TRIOS, *existing(CLOSE_COUPLE), "astronaut"])
def test_posenet_equals_reference_decoder(name: str, path: str) -> None:
    run = runner(name)
    assert isinstance(run.model, Posenet)
    outputs, _ = run.outputs(frame(path))
    poses = run.model.decode(outputs, TensorToFrame((1.0, 1.0), (0.0, 0.0)))
    expected = reference_poses(real_outputs(name, run, outputs), max_poses=5)
    assert len(poses) == len(expected) >= 1
    for index, (points, keypoint_scores, score) in enumerate(expected):
        np.testing.assert_allclose(
            poses.keypoints[index, :, ::-1] - 0.5, points, atol=0.01, err_msg=f"pose {index}"
        )
        np.testing.assert_allclose(poses.keypoint_scores[index], keypoint_scores, atol=1e-4)
        assert poses.scores[index] == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("name", SURE)
@pytest.mark.parametrize(
    ("path", "count"), [*((trio, 3) for trio in TRIOS), *((pair, 2) for pair in PAIRS)]
)
def test_multipose_counts_people_side_by_side(name: str, path: str, count: int) -> None:
    assert len(runner(name).poses(frame(path))) == count


@pytest.mark.parametrize("name", SURE)
def test_multipose_positions_of_people_side_by_side(name: str) -> None:
    poses = runner(name).poses(frame(THREE_PEOPLE))
    noses = poses.keypoints[np.argsort(poses.keypoints[:, 0, 0]), 0]
    # The noses in the image, 1138 px wide, measured by eye.
    np.testing.assert_allclose(noses, ((173, 96), (593, 127), (972, 155)), atol=16)


@pytest.mark.parametrize("name", [FLOAT, *existing_models(CORAL), MULTIPOSE])
@pytest.mark.parametrize("path", existing(CLOSE_COUPLE))
def test_multipose_two_adjacent_faces(name: str, path: str) -> None:
    """Two faces next to each other: neither is taken twice."""
    poses = runner(name).poses(frame(path))
    assert len(poses) == 2
    noses = poses.keypoints[np.argsort(poses.keypoints[:, 0, 0]), 0]
    # The middle of each face in the image, 640 px wide, measured by eye.
    np.testing.assert_allclose(noses, ((284, 142), (345, 195)), atol=30)


@pytest.mark.parametrize("name", EVERY)
def test_multipose_without_a_person(name: str) -> None:
    run = runner(name)
    assert [path for path in EMPTY if len(run.poses(frame(path)))] == []
    more = sorted((SHARED / "data" / "coco" / "negatives").glob("*.jpg"))
    false_poses = [path for path in more if len(run.poses(frame(str(path))))]
    assert len(false_poses) <= len(more) / 20, false_poses


@pytest.mark.parametrize("path", [THREE_PEOPLE, *existing(PILOTS)])
@pytest.mark.parametrize("name", SURE)
def test_multipose_mirrored_image(name: str, path: str) -> None:
    """When the decoder counted pixels from their centre, this was off by a pixel and a cell."""
    run = runner(name)
    original = frame(path)
    mirrored = Frame(np.ascontiguousarray(original.image[:, ::-1]), 1, 0)
    straight, flipped = run.poses(original), run.poses(mirrored)
    width = original.size_wh[0]

    def eyes_x(poses: Poses) -> NDArray[np.float32]:
        middles: NDArray[np.float32] = poses.keypoints[:, 1:3, 0].mean(axis=1)
        return np.sort(middles)

    assert len(straight) == len(flipped) == 3
    np.testing.assert_allclose(eyes_x(straight), np.sort(width - eyes_x(flipped)), atol=8)


@pytest.mark.parametrize("name", EVERY)
def test_multipose_swapped_halves_of_image(name: str) -> None:
    run = runner(name)
    near = image("astronaut")[:400, :400]
    far = np.full_like(near, 127)
    far[100:, 50:350] = cv2.resize(near, (300, 300), interpolation=cv2.INTER_AREA)
    near_left, near_right = (
        run.candidates(Frame(np.hstack(halves), 1, 0)) for halves in ((near, far), (far, near))
    )

    def face(poses: Poses, left: float) -> tuple[float, float]:
        """Return the nose and the distance of the eyes of the person in one half."""
        inside = (poses.keypoints[:, 0, 0] - left) // 400 == 0
        best = poses.select(inside & (poses.scores >= 0.25))
        assert len(best) == 1
        eyes = best.keypoints[0, 1] - best.keypoints[0, 2]
        return float(best.keypoints[0, 0, 0]), float(np.hypot(*eyes))

    for near_half, far_half, poses in ((0, 400, near_left), (400, 0, near_right)):
        nose, eyes = face(poses, near_half)
        far_nose, far_eyes = face(poses, far_half)
        # The noses in the image, measured by eye.
        assert nose - near_half == pytest.approx(221, abs=12)
        assert far_nose - far_half == pytest.approx(50 + 0.75 * 221, abs=12)
        assert eyes > far_eyes


@pytest.mark.parametrize("decoder", existing_models(CORAL_DECODER))
def test_posenet_coral_decoder_file_equals_plain_file(decoder: str) -> None:
    first, second = (runner(name).poses(frame(PILOTS)) for name in (CORAL, decoder))
    similarity = keypoint_similarity(first, second)
    assert similarity.shape == (3, 3)
    assert (similarity.max(axis=1) > 0.9).all()


@pytest.mark.parametrize("name", [FLOAT, INT8, *existing_models(CORAL)])
def test_posenet_single_equals_multiple_for_one_person(name: str) -> None:
    one = runner(name, multiple=False).candidates(frame("astronaut"))
    several = runner(name).candidates(frame("astronaut"))
    assert len(one) == 1
    assert keypoint_similarity(several, one)[0, 0] > 0.8
    # The nose in the image, 512 px wide, measured by eye.
    np.testing.assert_allclose(one.keypoints[0, 0], (221, 125), atol=12)
