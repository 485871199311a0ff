"""Every single-person model in the pipeline, on the images and a clip of tests/data."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgepose.datatypes import Event, Frame, Image
from edgepose.events.presence import PresenceDetector
from edgepose.sources.video_file import VideoFileSource
from tests.builders import load_model, pipeline_of
from tests.images import EMPTY, frame, image
from tests.media import write_video

MODELS = (
    "movenet-lightning-int8",
    "movenet-lightning-fp16",
    "movenet-thunder-int8",
    "movenet-thunder-fp16",
)
# Keypoint number and place in px, measured by eye: nose, left and right shoulder of the
# photograph; nose of the man behind the camera; nose and eyes of a woman of whom only head and
# shoulders are visible.
TRUTH = {
    "astronaut": {0: (221, 125), 5: (322, 268), 6: (112, 258)},
    "camera.jpg": {0: (250, 165)},
    "grace_hopper.jpg": {0: (265, 222), 1: (308, 190), 2: (222, 190)},
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("path", TRUTH)
def test_pipeline_finds_the_person_of_an_image(name: str, path: str) -> None:
    result = pipeline_of(load_model(name)).process(frame(path))
    assert len(result.tracked) == 1
    for keypoint, place in TRUTH[path].items():
        found = result.tracked.poses.keypoints[0, keypoint]
        assert np.abs(found - place).max() <= 25, (keypoint, found)


@pytest.mark.parametrize("name", MODELS)
def test_pipeline_reports_no_pose_without_a_person(name: str) -> None:
    model = load_model(name)
    found = {path: len(pipeline_of(model).process(frame(path)).tracked) for path in EMPTY}
    assert found == dict.fromkeys(EMPTY, 0)


FPS = 10
ENTERS_S, LEAVES_S, ENDS_S = 2.0, 6.0, 9.0


def visitor(background: Image) -> Iterator[Image]:
    """Yield a clip: an empty room, a person who walks in from the right, and out again."""
    height = background.shape[0]
    person = cv2.resize(image("camera.jpg"), (300, 300), interpolation=cv2.INTER_AREA)
    person = person[:, :190]
    for number in range(round(ENDS_S * FPS)):
        room, at_s = background.copy(), number / FPS
        if ENTERS_S <= at_s < LEAVES_S:
            left = 60 + round(200 * abs(at_s - (ENTERS_S + LEAVES_S) / 2) / (LEAVES_S - ENTERS_S))
            room[height - 300 :, left : left + person.shape[1]] = person
        yield room


def test_pipeline_presence_and_events_of_a_visitor(tmp_path: Path) -> None:
    """One enter and one leave, one track, and presence right but for a second at each change."""
    background = np.full((360, 480, 3), 150, np.uint8)
    clip = write_video(tmp_path / "visitor.avi", visitor(background), fps=FPS)
    pipeline = pipeline_of(load_model("movenet-lightning-int8"))
    presence = PresenceDetector()
    wrong, ids = [], set()
    events: list[Event] = []
    start_ns: int | None = None
    for each in VideoFileSource(clip).frames():
        start_ns = each.timestamp_ns if start_ns is None else start_ns
        at_s = (each.timestamp_ns - start_ns) / 1e9
        result = pipeline.process(each)
        ids |= set(result.tracked.track_ids.tolist())
        events += presence.update(result.tracked_frame)
        near_change = min(abs(at_s - ENTERS_S), abs(at_s - LEAVES_S)) <= 1.5
        present = presence.states["presence"] == "ON"
        if not near_change and present != (ENTERS_S <= at_s < LEAVES_S):
            wrong.append(round(at_s, 1))
    assert wrong == []
    assert [event.type for event in events] == ["enter", "leave"]
    assert len(ids) == 1


def test_pipeline_keeps_the_crop_on_a_small_person() -> None:
    """A person of a sixth of the frame's height is found, after the crop has closed in."""
    room = np.full((960, 1280, 3), 150, np.uint8)
    person = cv2.resize(image("camera.jpg"), (240, 240), interpolation=cv2.INTER_AREA)[:, :150]
    room[500:740, 600:750] = person
    pipeline = pipeline_of(load_model("movenet-lightning-fp16"))
    results = [
        pipeline.process(Frame(room.copy(), number * 10**8, number)) for number in range(1, 6)
    ]
    assert len(results[-1].tracked) == 1
    nose = results[-1].tracked.poses.keypoints[0, 0]
    # The nose in the image of the man is at (250, 165) of 512 px.
    np.testing.assert_allclose(nose, (600 + 250 * 240 / 512, 500 + 165 * 240 / 512), atol=20)
