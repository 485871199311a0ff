"""Persons who lie on the floor, and a camera that lies on its side."""

from pathlib import Path

import cv2
import numpy as np

from edgepose.datatypes import Frame
from edgepose.skeleton import LEFT_HIP, LEFT_SHOULDER
from edgepose.sources.images import read_image
from edgepose.sources.video_file import VideoFileSource
from tests.builders import SECOND_NS, load_model, pipeline_of

MODEL = "movenet-lightning-int8"


def test_pipeline_person_on_the_floor(shared_data: Path) -> None:
    """A man who lies in an office, with his head to the left in the image: within a second."""
    image = read_image(shared_data / "stills" / "ambianic_fall_img_3.png")
    pipeline = pipeline_of(load_model(MODEL))
    frames = [Frame(image, index * SECOND_NS // 10, index) for index in range(11)]
    found = [pipeline.process(frame).tracked for frame in frames]
    assert found[-1].track_ids.tolist() == [1]
    keypoints = found[-1].poses.keypoints[0]
    assert keypoints[LEFT_SHOULDER, 0] < keypoints[LEFT_HIP, 0]


def test_pipeline_turned_clip(shared_data: Path) -> None:
    """A worker is found within a second, and followed; a clip as it was recorded has 69 of 71."""
    pipeline = pipeline_of(load_model(MODEL))
    found = []
    for frame in VideoFileSource(shared_data / "video" / "worker-zone-detection.mp4").frames():
        turned = cv2.rotate(frame.image, cv2.ROTATE_90_CLOCKWISE).astype(np.uint8)
        tracked = pipeline.process(Frame(turned, frame.timestamp_ns, frame.sequence)).tracked
        found.append(tracked.track_ids.tolist())
    assert [1] in found[:10]
    assert found.count([1]) >= 60
