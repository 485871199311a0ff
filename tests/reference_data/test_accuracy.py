"""The pipeline on annotated images and clips beside the checkout."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgepose.datatypes import Frame
from edgepose.skeleton import KEYPOINT_NAMES
from edgepose.sources.images import read_image
from edgepose.sources.video_file import VideoFileSource
from tests.builders import load_model, pipeline_of

LIGHTNINGS = ("movenet-lightning-int8", "movenet-lightning-fp16")


@pytest.mark.parametrize("name", LIGHTNINGS)
def test_pipeline_sample_image_of_tensorflow(shared_data: Path, name: str) -> None:
    folder = shared_data / "peer/tf_examples"
    (row,) = csv.DictReader((folder / "pose_landmark_truth.image1.csv").open())
    truth = np.array(
        [[float(row[f"{keypoint}_{axis}"]) for axis in "xy"] for keypoint in KEYPOINT_NAMES]
    )
    frame = Frame(read_image(folder / "image1.png"), 1, 0, still=True)
    result = pipeline_of(load_model(name)).process(frame)
    assert len(result.tracked) == 1
    assert np.abs(result.tracked.poses.keypoints[0] - truth).max() <= 21


@pytest.mark.parametrize(("name", "mean_px"), list(zip(LIGHTNINGS, (4.35, 4.2), strict=True)))
def test_pipeline_clip_of_tfjs(shared_data: Path, name: str, mean_px: float) -> None:
    folder = shared_data / "peer/tfjs_movenet"
    truth = [
        [[keypoints[keypoint][axis] for axis in "xy"] for keypoint in KEYPOINT_NAMES]
        for keypoints in json.loads((folder / "pose_1.json").read_text())
    ]
    pipeline = pipeline_of(load_model(name))
    found: list[NDArray[np.float32]] = []
    for frame in VideoFileSource(folder / "pose_1.mp4").frames():
        if frame.sequence == 0:
            # Confirm the pose, so that the first frame counts too.
            pipeline.process(frame)
            pipeline.process(frame)
        result = pipeline.process(frame)
        assert len(result.tracked) == 1
        found.append(result.tracked.poses.keypoints[0])
    assert len(found) == len(truth) == 120
    errors = np.linalg.norm(np.array(found) - np.array(truth), axis=2)
    assert errors.mean() <= mean_px
    assert errors.max() <= 60


def test_keypoint_names_equal_coco(shared_data: Path) -> None:
    header = (shared_data / "peer/tf_examples/pose_landmark_truth.image1.csv").read_text()
    assert re.findall(r"(\w+)_x", header.splitlines()[0]) == list(KEYPOINT_NAMES)
