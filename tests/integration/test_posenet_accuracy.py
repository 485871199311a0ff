"""PoseNet and MoveNet MultiPose files on real pictures."""

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
from tests.conftest import MODELS
from tests.posenet_scenes import Doubles, Outputs, reference_poses

FLOAT = "posenet-mobilenet-fp32.tflite"
INT8 = "posenet-mobilenet-int8.tflite"
CORAL = "posenet_mobilenet_v1_075_353_481_quant.tflite"
CORAL_LARGE = "posenet_mobilenet_v1_075_481_641_quant.tflite"
CORAL_DECODER = "posenet_mobilenet_v1_075_353_481_quant_decoder.tflite"
MULTIPOSE = "movenet-multipose-fp16.tflite"
POSENETS = (FLOAT, INT8, CORAL, CORAL_LARGE, CORAL_DECODER)
EVERY = (*POSENETS, MULTIPOSE)
CLOSE_COUPLE = "coco/images/000000164602.jpg"


class Runner:
    """A file on the CPU, from a picture to poses in frame px."""

    def __init__(self, path: Path, *, multiple: bool = True) -> None:
        litert = pytest.importorskip("ai_edge_litert.interpreter")
        data = without_custom_op(path.read_bytes(), POSENET_DECODER_OP, name=path.name)
        self._interpreter = litert.Interpreter(model_content=data, num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._interpreter.get_output_details()
        self.specs = tuple(tensor_spec(output) for output in self._outputs)
        input_spec = tensor_spec(self._input)
        kind = detect_kind(input_spec, self.specs, name=path.name)
        self.model: Posenet | MovenetMultipose
        if kind == "posenet":
            self.model = Posenet(input_spec, self.specs, name=path.name, multiple=multiple)
            self.threshold = posenet.DEFAULT_POSE_THRESHOLD
        else:
            self.model = MovenetMultipose(input_spec, self.specs, name=path.name)
            self.threshold = movenet_multipose.DEFAULT_POSE_THRESHOLD

    def outputs(self, frame: Frame) -> tuple[Sequence[Tensor], TensorToFrame]:
        region = self.model.default_region(frame.size_wh)
        tensor, to_frame = preprocess(frame.image, region, self.model.input_spec)
        self._interpreter.set_tensor(self._input["index"], tensor)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output["index"]) for output in self._outputs], to_frame

    def candidates(self, frame: Frame) -> Poses:
        return self.model.decode(*self.outputs(frame))

    def poses(self, frame: Frame) -> Poses:
        found = self.candidates(frame)
        return found.select(found.scores >= self.threshold)


def runner(name: str, shared_data: Path, *, multiple: bool = True) -> Runner:
    for folder in (MODELS, shared_data.parent / "models"):
        if (folder / name).exists():
            return Runner(folder / name, multiple=multiple)
    pytest.skip(f"{name} is not here")


def picture(path: Path) -> Frame:
    image = cv2.imread(str(path))
    assert image is not None
    return Frame(np.ascontiguousarray(image[:, :, ::-1]), 0, 0)


def real_outputs(model: Posenet, name: str, run: Runner, outputs: Sequence[Tensor]) -> Outputs:
    """Return a file's outputs as real numbers, sorted out without the decoder's help."""
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
    return Outputs(stride=model.stride, **real)


@pytest.mark.parametrize("name", POSENETS)
@pytest.mark.parametrize(
    "path", ["stills/three_people.jpg", "stills/pilots.jpg", CLOSE_COUPLE, "stills/astronaut.png"]
)
def test_decoding_agrees_with_a_second_implementation(
    name: str, path: str, shared_data: Path
) -> None:
    run = runner(name, shared_data)
    assert isinstance(run.model, Posenet)
    outputs, _ = run.outputs(picture(shared_data / path))
    poses = run.model.decode(outputs, TensorToFrame((1.0, 1.0), (0.0, 0.0)))
    expected = reference_poses(real_outputs(run.model, name, run, outputs), max_poses=5)
    assert len(poses) == len(expected) >= 1
    for index, (points, keypoint_scores, score) in enumerate(expected):
        np.testing.assert_allclose(
            poses.keypoints[index, :, ::-1] - 0.5, points, atol=0.01, err_msg=f"pose {index}"
        )
        np.testing.assert_allclose(poses.keypoint_scores[index], keypoint_scores, atol=1e-4)
        assert poses.scores[index] == pytest.approx(score, abs=1e-4)


# Coral's larger file is left out: it believes in one of the three men at 0.44 only.
@pytest.mark.parametrize("name", [FLOAT, INT8, CORAL, CORAL_DECODER, MULTIPOSE])
@pytest.mark.parametrize(
    ("path", "count"),
    [("stills/three_people.jpg", 3), ("stills/pilots.jpg", 3), ("coco/images/000000000338.jpg", 2)],
)
def test_people_side_by_side_are_counted(
    name: str, path: str, count: int, shared_data: Path
) -> None:
    assert len(runner(name, shared_data).poses(picture(shared_data / path))) == count


@pytest.mark.parametrize("name", [FLOAT, CORAL, MULTIPOSE])
def test_two_people_close_together_are_two(name: str, shared_data: Path) -> None:
    """A couple cheek to cheek: two faces next to each other, neither taken twice."""
    poses = runner(name, shared_data).poses(picture(shared_data / CLOSE_COUPLE))
    assert len(poses) == 2
    noses = poses.keypoints[np.argsort(poses.keypoints[:, 0, 0]), 0]
    # The middle of each face in the picture, 640 px wide, seen by eye.
    np.testing.assert_allclose(noses, ((284, 142), (345, 195)), atol=30)


@pytest.mark.parametrize("name", EVERY)
def test_nobody_is_found_where_nobody_is(name: str, shared_data: Path) -> None:
    run = runner(name, shared_data)
    paths = sorted((shared_data / "coco" / "negatives").glob("*.jpg"))
    assert len(paths) >= 40
    ghosts = [path.name for path in paths if len(run.poses(picture(path)))]
    assert len(ghosts) <= len(paths) / 20, ghosts


@pytest.mark.parametrize("name", EVERY)
def test_a_mirrored_picture_gives_mirrored_poses(name: str, shared_data: Path) -> None:
    """Where the decoder counted pixels from their middle, this was off by a pixel and a cell."""
    run = runner(name, shared_data)
    frame = picture(shared_data / "stills" / "pilots.jpg")
    mirrored = Frame(np.ascontiguousarray(frame.image[:, ::-1]), 0, 0)
    straight, flipped = run.poses(frame), run.poses(mirrored)
    width = frame.size_wh[0]

    def eyes_x(poses: Poses) -> NDArray[np.float32]:
        middles: NDArray[np.float32] = poses.keypoints[:, 1:3, 0].mean(axis=1)
        return np.sort(middles)

    assert len(straight) == len(flipped) == 3
    np.testing.assert_allclose(eyes_x(straight), np.sort(width - eyes_x(flipped)), atol=5)


@pytest.mark.parametrize("name", EVERY)
def test_swapping_two_halves_of_a_picture_swaps_the_people(name: str, shared_data: Path) -> None:
    run = runner(name, shared_data)
    near = picture(shared_data / "stills" / "astronaut.png").image[:400, :400]
    far = np.full_like(near, 127)
    far[100:, 50:350] = cv2.resize(near, (300, 300), interpolation=cv2.INTER_AREA)
    near_left, near_right = (
        run.candidates(Frame(np.hstack(halves), 0, 0)) for halves in ((near, far), (far, near))
    )

    def face(poses: Poses, left: float) -> tuple[float, float]:
        """Return the nose and the distance of the eyes of whoever is in one half."""
        inside = (poses.keypoints[:, 0, 0] - left) // 400 == 0
        best = poses.select(inside & (poses.scores >= 0.25))
        assert len(best) == 1
        eyes = best.keypoints[0, 1] - best.keypoints[0, 2]
        return float(best.keypoints[0, 0, 0]), float(np.hypot(*eyes))

    for near_half, far_half, poses in ((0, 400, near_left), (400, 0, near_right)):
        nose, eyes = face(poses, near_half)
        far_nose, far_eyes = face(poses, far_half)
        # The noses in the picture, seen by eye.
        assert nose - near_half == pytest.approx(221, abs=12)
        assert far_nose - far_half == pytest.approx(50 + 0.75 * 221, abs=12)
        assert eyes > far_eyes


def test_the_decoder_file_agrees_with_the_plain_one(shared_data: Path) -> None:
    plain, decoder = (runner(name, shared_data) for name in (CORAL, CORAL_DECODER))
    frame = picture(shared_data / "stills" / "pilots.jpg")
    first, second = plain.poses(frame), decoder.poses(frame)
    similarity = keypoint_similarity(first, second)
    assert similarity.shape == (3, 3)
    assert (similarity.max(axis=1) > 0.9).all()


@pytest.mark.parametrize("name", [FLOAT, CORAL])
def test_single_finds_the_one_person_where_multiple_does(name: str, shared_data: Path) -> None:
    frame = picture(shared_data / "stills" / "astronaut.png")
    one = runner(name, shared_data, multiple=False).candidates(frame)
    several = runner(name, shared_data).candidates(frame)
    assert len(one) == 1
    assert keypoint_similarity(several, one)[0, 0] > 0.8
    # The nose in the picture, 512 px wide, seen by eye.
    np.testing.assert_allclose(one.keypoints[0, 0], (221, 125), atol=12)
