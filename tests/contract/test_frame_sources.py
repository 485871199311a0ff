"""The contract of every frame source."""

from collections.abc import Callable
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgepose.build import PathSource
from edgepose.config.source_uri import parse_source_uri
from edgepose.daemon.capture import Capture, FrameMailbox
from edgepose.datatypes import Frame
from edgepose.protocols import FrameSource
from edgepose.sources import rtsp
from edgepose.sources._video import open_video
from edgepose.sources.images import ImageSource
from edgepose.sources.orientation import OrientedSource
from edgepose.sources.picamera import PicameraSource
from edgepose.sources.rtsp import RtspSource
from edgepose.sources.synthetic import SyntheticSource
from edgepose.sources.v4l2 import UsbCameraSource
from edgepose.sources.video_file import VideoFileSource
from tests.fakes import picamera2
from tests.fakes.pipeline import FakePoseModel, PipelineRig
from tests.fakes.usb_camera import FakeUsbCamera
from tests.media import BLUE, GREEN, GREY, RED, assert_colours, quarters, save, write_video

COUNT = 5
Make = Callable[[], FrameSource]


def _images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    paths = [save(tmp_path / f"{k}.png", quarters()) for k in range(COUNT)]
    return ImageSource(paths)


def _images_looped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    return ImageSource([save(tmp_path / "p.png", quarters())], loop=True)


def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    for number in range(COUNT):
        save(tmp_path / f"{number}.png", quarters())
    return PathSource(tmp_path)


def _video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    return VideoFileSource(write_video(tmp_path / "v.avi", [quarters()] * COUNT))


def _video_looped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    return VideoFileSource(write_video(tmp_path / "v.avi", [quarters()] * 2), loop=True)


def _video_realtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    path = write_video(tmp_path / "v.avi", [quarters()] * COUNT, fps=100)
    return VideoFileSource(path, live=True)


def _rtsp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    """Here a file replaces the stream; `tests/integration/test_rtsp.py` uses a server."""
    path = write_video(tmp_path / "v.avi", [quarters()] * COUNT)
    monkeypatch.setattr(
        rtsp, "open_video", lambda url, name, **_: open_video(str(path), name, options={})
    )
    uri = parse_source_uri("rtsp://admin:S3cr3t@cam/live?pwd=S3cr3t")
    return RtspSource(uri.target, description=str(uri))


def _usb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    camera = FakeUsbCamera(monkeypatch, tmp_path)
    image = cv2.cvtColor(quarters(), cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)
    camera.images = [image] * 100
    return UsbCameraSource(str(camera.node), size_wh=(64, 48))


def _picamera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    picamera2.install(monkeypatch).image = quarters()
    return PicameraSource(0, size_wh=(64, 48))


def _picamera_lores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    picamera2.install(monkeypatch).image = quarters()
    return PicameraSource(0, size_wh=(64, 48), stream="lores")


def _synthetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    return SyntheticSource(size_wh=(64, 48), live=False)


def _synthetic_realtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    return SyntheticSource(size_wh=(64, 48), fps=100)


def _oriented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameSource:
    # Two rotations by 180 degrees and two mirrorings cancel out.
    inner = OrientedSource(_video(tmp_path, monkeypatch), rotation=180, mirror=True)
    return OrientedSource(inner, rotation=180, mirror=True)


SOURCES = [
    _images,
    _images_looped,
    _folder,
    _video,
    _video_looped,
    _video_realtime,
    _rtsp,
    _usb,
    _picamera,
    _picamera_lores,
    _synthetic,
    _synthetic_realtime,
    _oriented,
]
LIVE = {_video_realtime, _rtsp, _usb, _picamera, _picamera_lores, _synthetic_realtime}


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


def test_frame_source_image_format(source: FrameSource) -> None:
    """Images are read-only, contiguous uint8 RGB."""
    for frame in _some(source):
        assert frame.image.dtype == np.uint8
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.flags.c_contiguous
        assert not frame.image.flags.writeable
        assert not frame.mirrored
        if not source.description.startswith("synthetic"):
            assert_colours(frame.image, [RED, GREEN, BLUE, GREY], tolerance=16)


def test_frame_source_sequence_and_timestamps(source: FrameSource) -> None:
    """Sequence numbers count from 0, timestamps increase strictly."""
    frames = _some(source)
    assert [frame.sequence for frame in frames] == list(range(COUNT))
    assert all(b.timestamp_ns > a.timestamp_ns for a, b in pairwise(frames))


def test_frame_source_does_not_reuse_buffers(source: FrameSource) -> None:
    """A frame that is kept does not change while later frames are read."""
    with closing(source.frames()) as frames:
        first = next(frames)
        copy = first.image.copy()
        following = list(islice(frames, COUNT - 1))
    np.testing.assert_array_equal(first.image, copy)
    assert not any(np.shares_memory(first.image, frame.image) for frame in following)


def test_frame_source_close_without_reading(source: FrameSource) -> None:
    source.frames().close()


def test_frame_source_open_again(source: FrameSource) -> None:
    """After opening again, the sequence starts at 0."""
    before = _some(source, 2)
    after = _some(source, 2)
    assert [frame.sequence for frame in after] == [0, 1]
    assert after[0].timestamp_ns >= before[0].timestamp_ns


def test_frame_source_description(source: FrameSource) -> None:
    """The description is one line without secrets."""
    assert source.description
    assert "\n" not in source.description
    assert "S3cr3t" not in source.description


def test_frame_source_in_capture_thread(source: FrameSource) -> None:
    """A capture thread reads its first frame and closes it."""
    mailbox = FrameMailbox()
    pipeline = PipelineRig(FakePoseModel(0, 0)).pipeline
    capture = Capture("contract", lambda: source, 10**10, pipeline, mailbox)
    capture.start()
    first = mailbox.take(10)
    assert first is not None
    frame = first[1]
    assert isinstance(frame, Frame)
    if not source.live:
        assert frame.sequence == 0
    capture.stop()
    assert capture.join(60)
    assert mailbox.take(0) is None
