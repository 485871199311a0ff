"""What every frame source promises, asked of each of them."""

from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgepose.config.source_uri import parse_source_uri
from edgepose.daemon.capture import Capture, FrameMailbox
from edgepose.datatypes import Frame
from edgepose.protocols import FrameSource
from edgepose.sources import rtsp
from edgepose.sources._opencv import open_capture
from edgepose.sources.images import ImageSource
from edgepose.sources.orientation import OrientedSource
from edgepose.sources.picamera import PicameraSource
from edgepose.sources.rtsp import RtspSource
from edgepose.sources.synthetic import SyntheticSource
from edgepose.sources.v4l2 import UsbCameraSource
from edgepose.sources.video_file import VideoFileSource
from tests import fake_picamera2
from tests.fakes.pipeline import FakePoseModel, PipelineRig
from tests.media import BLUE, GREEN, GREY, RED, assert_colours, quarters, save, write_video
from tests.unit.test_v4l2 import Camera

COUNT = 5
Make = Callable[[], FrameSource]


def _pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    paths = [save(tmp_path / f"{k}.png", quarters()) for k in range(COUNT)]
    return ImageSource(paths)


def _pictures_in_a_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    return ImageSource([save(tmp_path / "p.png", quarters())], loop=True)


def _video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    return VideoFileSource(write_video(tmp_path / "v.avi", [quarters()] * COUNT))


def _video_in_a_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    return VideoFileSource(write_video(tmp_path / "v.avi", [quarters()] * 2), loop=True)


def _video_in_real_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    path = write_video(tmp_path / "v.avi", [quarters()] * COUNT, fps=100)
    return VideoFileSource(path, realtime=True)


def _rtsp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    """The real thing has tests of its own; here a file plays the stream."""
    path = write_video(tmp_path / "v.avi", [quarters()] * COUNT)
    really = open_capture
    monkeypatch.setattr(
        rtsp, "open_capture", lambda url, backend, parameters: really(str(path), backend)
    )
    uri = parse_source_uri("rtsp://admin:S3cr3t@cam/live?pwd=S3cr3t")
    return RtspSource(uri.target, description=str(uri))


def _usb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    camera = Camera(monkeypatch, tmp_path)
    picture = cv2.cvtColor(quarters(), cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)
    camera.pictures = [picture] * 100
    return UsbCameraSource(str(camera.node), size_wh=(64, 48))


def _picamera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    fake_picamera2.install(monkeypatch).picture = quarters()
    return PicameraSource(0, size_wh=(64, 48))


def _picamera_lores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    fake_picamera2.install(monkeypatch).picture = quarters()
    return PicameraSource(0, size_wh=(64, 48), stream="lores")


def _synthetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    return SyntheticSource(size_wh=(64, 48), frame_count=COUNT, realtime=False)


def _synthetic_in_real_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    return SyntheticSource(size_wh=(64, 48), fps=100)


def _turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    # Turned twice by half, the colours are where they were.
    inner = OrientedSource(_video(tmp_path, monkeypatch), rotation=180, mirror=True)
    return OrientedSource(inner, rotation=180, mirror=True)


SOURCES = [
    _pictures,
    _pictures_in_a_loop,
    _video,
    _video_in_a_loop,
    _video_in_real_time,
    _rtsp,
    _usb,
    _picamera,
    _picamera_lores,
    _synthetic,
    _synthetic_in_real_time,
    _turned,
]
LIVE = {_video_in_real_time, _rtsp, _usb, _picamera, _picamera_lores, _synthetic_in_real_time}


@pytest.fixture(params=SOURCES, ids=lambda make: make.__name__.strip("_"))
def source(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FrameSource:
    made: FrameSource = request.param(tmp_path, monkeypatch)
    assert isinstance(made, FrameSource)
    assert made.live == (request.param in LIVE)
    return made


def _some(source: FrameSource, count: int = COUNT) -> list[Frame]:
    frames = list(islice(source.frames(), count))
    assert len(frames) == count
    return frames


def test_images_are_read_only_contiguous_rgb(source: FrameSource) -> None:
    with source:
        frames = _some(source)
    for frame in frames:
        assert frame.image.dtype == np.uint8
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.flags.c_contiguous
        assert not frame.image.flags.writeable
        assert not frame.mirrored
        if not source.description.startswith("synthetic"):
            assert_colours(frame.image, [RED, GREEN, BLUE, GREY], tolerance=16)


def test_sequences_count_up_and_timestamps_rise(source: FrameSource) -> None:
    with source:
        frames = _some(source)
    assert [frame.sequence for frame in frames] == list(range(COUNT))
    assert all(b.timestamp_ns > a.timestamp_ns for a, b in pairwise(frames))


def test_a_frame_stays_what_it_was(source: FrameSource) -> None:
    """No buffer is used again under the feet of whoever keeps a frame."""
    with source:
        frames = source.frames()
        first = next(frames)
        copy = first.image.copy()
        following = list(islice(frames, COUNT - 1))
    np.testing.assert_array_equal(first.image, copy)
    assert not any(np.shares_memory(first.image, frame.image) for frame in following)


def test_closing_is_fine_twice_and_without_reading(source: FrameSource) -> None:
    with source:
        pass
    source.__exit__(None, None, None)
    source.__exit__(None, None, None)


def test_it_can_be_opened_again_and_begins_anew(source: FrameSource) -> None:
    with source:
        before = _some(source, 2)
    with source:
        after = _some(source, 2)
    assert [frame.sequence for frame in after] == [0, 1]
    assert after[0].timestamp_ns >= before[0].timestamp_ns


def test_the_description_is_for_everybodys_eyes(source: FrameSource) -> None:
    assert source.description
    assert "\n" not in source.description
    assert "S3cr3t" not in source.description


def test_it_runs_in_a_capture_thread(source: FrameSource) -> None:
    mailbox = FrameMailbox()
    capture = Capture("contract", source, PipelineRig(FakePoseModel(0, 0)).pipeline, mailbox)
    capture.start()
    first = mailbox.take(10)
    assert first is not None
    assert first.frame is not None
    if not source.live:
        assert first.frame.sequence == 0
    capture.stop()
    assert capture.join(10)
    assert mailbox.take(0) is None
