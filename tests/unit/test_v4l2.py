"""UsbCameraSource with a fake kernel interface and a fake OpenCV capture."""

import errno
import os
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgepose.errors import (
    SourceBusyError,
    SourceError,
    SourceNotFoundError,
    SourceStalledError,
)
from edgepose.sources import _base, v4l2
from edgepose.sources.v4l2 import UsbCameraSource
from tests.fakes.sources import ScriptedDemand
from tests.fakes.usb_camera import METADATA, FakeUsbCamera
from tests.media import BLUE, GREEN, GREY, RED, assert_colours, quarters


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeUsbCamera:
    camera = FakeUsbCamera(monkeypatch, tmp_path)
    camera.images = [cv2.cvtColor(quarters(), cv2.COLOR_RGB2BGR)] * 2  # type: ignore[list-item]
    return camera


def _source(camera: FakeUsbCamera) -> UsbCameraSource:
    return UsbCameraSource(str(camera.node), size_wh=(64, 48), fps=30)


def test_usb_camera_requests_jpeg(camera: FakeUsbCamera) -> None:
    """JPEG is requested before the size, and frames are RGB."""
    frame = next(_source(camera).frames())
    assert_colours(frame.image, [RED, GREEN, BLUE, GREY], tolerance=0)
    assert list(camera.properties)[:3] == [
        cv2.CAP_PROP_FOURCC,
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
    ]
    assert camera.properties[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    assert camera.properties[cv2.CAP_PROP_FPS] == 30
    assert camera.opened == [str(camera.node)]
    # The buffers requested by the check are freed: else OpenCV would find the camera busy.
    assert camera.requests == [(1, 1), (0, 1)]
    assert camera.released == 1


def test_usb_camera_other_size(camera: FakeUsbCamera, caplog: pytest.LogCaptureFixture) -> None:
    """A size other than the requested one is logged."""
    camera.properties = {cv2.CAP_PROP_FRAME_WIDTH: 320, cv2.CAP_PROP_FRAME_HEIGHT: 240}
    camera.refused = {cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT}
    next(_source(camera).frames())
    assert "asked for 64x48, the camera delivers 320x240" in caplog.text


def test_usb_camera_driver_timestamp(
    camera: FakeUsbCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's timestamp is the frame's."""
    monkeypatch.setattr(_base, "boottime_ns", lambda: camera.now_ns)
    monkeypatch.setattr(time, "monotonic_ns", lambda: camera.now_ns)
    taken_ns = camera.now_ns - 20_000_000
    camera.properties[cv2.CAP_PROP_POS_MSEC] = taken_ns / 1e6
    frame = next(_source(camera).frames())
    # A float of milliseconds rounds the nanoseconds.
    assert frame.timestamp_ns == pytest.approx(taken_ns, rel=0, abs=1000)


def test_usb_camera_missing_device(tmp_path: Path) -> None:
    """It raises SourceNotFoundError with the available devices."""
    with pytest.raises(SourceNotFoundError, match="is it plugged in"):
        next(UsbCameraSource(str(tmp_path / "video9")).frames())


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.EACCES, SourceError, "group video"),
        (errno.EPERM, SourceError, "group video"),
        (errno.EBUSY, SourceBusyError, "another program uses the camera"),
        (errno.ENODEV, SourceNotFoundError, "no such camera"),
        (errno.EIO, SourceError, "cannot open the camera"),
    ],
)
def test_usb_camera_open_errors(
    camera: FakeUsbCamera,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[SourceError],
    message: str,
) -> None:
    """Each errno has its own exception and remedy."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind, match=message) as caught:
        next(_source(camera).frames())
    assert type(caught.value) is kind


def test_usb_camera_used_by_another_program(camera: FakeUsbCamera) -> None:
    """It raises SourceBusyError."""
    camera.errors[0xC0145608] = errno.EBUSY
    with pytest.raises(SourceBusyError, match="fuser -v"):
        next(_source(camera).frames())


def test_usb_camera_driver_without_mmap_buffers(camera: FakeUsbCamera) -> None:
    """The check for other users is skipped."""
    camera.errors[0xC0145608] = errno.EINVAL
    assert next(_source(camera).frames()).sequence == 0


def test_usb_camera_metadata_node(camera: FakeUsbCamera) -> None:
    """The metadata node of a camera raises SourceError with the camera's name."""
    camera.node_capabilities = METADATA
    with pytest.raises(SourceError, match="HD Pro Webcam delivers no images"):
        next(_source(camera).frames())


def test_usb_camera_other_device() -> None:
    """A device that is not a camera raises SourceError."""
    with pytest.raises(SourceError, match="expected a camera, this is another device"):
        next(UsbCameraSource("/dev/null").frames())


def test_usb_camera_unsupported_format(camera: FakeUsbCamera) -> None:
    """It raises SourceError and releases the camera."""
    camera.opens = False
    with pytest.raises(SourceError, match="no image format"):
        next(_source(camera).frames())
    assert camera.released == 1


def _jpeg(width: int, height: int) -> NDArray[np.uint8]:
    """Return an image as OpenCV delivers it undecoded."""
    bgr = cv2.cvtColor(quarters(width, height), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr)[1].reshape(1, -1).astype(np.uint8)


def test_usb_camera_jpeg_of_any_size(camera: FakeUsbCamera) -> None:
    """JPEG is not decoded by OpenCV; each image has its own size."""
    camera.images = [_jpeg(64, 48), _jpeg(320, 240), _jpeg(32, 32)]
    with closing(_source(camera).frames()) as frames:
        taken = [next(frames) for _ in range(3)]
    assert camera.properties[cv2.CAP_PROP_CONVERT_RGB] == 0
    assert [frame.size_wh for frame in taken] == [(64, 48), (320, 240), (32, 32)]
    for frame in taken:
        assert_colours(frame.image, [RED, GREEN, BLUE, GREY], tolerance=16)


def test_usb_camera_damaged_jpeg(
    camera: FakeUsbCamera, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first damaged image is logged, then their number; no library prints anything."""
    whole = _jpeg(64, 48)
    broken = whole.copy()
    broken[0, -60:-20] = 0xFF
    camera.images = [whole, broken, np.zeros((1, 100), np.uint8), broken, whole]
    with closing(_source(camera).frames()) as frames:
        sequences = [next(frames).sequence for _ in range(4)]
        assert sequences == [0, 1, 2, 3]
    node = camera.node
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{node}: a frame is damaged; further ones are counted",
        f"{node}: damaged frames: 3",
    ]
    assert capfd.readouterr() == ("", "")


def test_usb_camera_damaged_frame(camera: FakeUsbCamera) -> None:
    """A read without an image is skipped."""
    camera.images = [camera.images[0], None, None, camera.images[0]]
    with closing(_source(camera).frames()) as frames:
        assert [next(frames).sequence for _ in range(2)] == [0, 1]


def test_usb_camera_damaged_frames_apart(camera: FakeUsbCamera) -> None:
    """Failed reads are counted only in a row."""
    image = camera.images[0]
    nearly_too_many: list[NDArray[np.uint8] | None] = [None] * (v4l2.MAX_FAILED_READS - 1)
    camera.images = [image, *nearly_too_many, image, *nearly_too_many, image]
    with closing(_source(camera).frames()) as frames:
        assert [next(frames).sequence for _ in range(3)] == [0, 1, 2]


def test_usb_camera_many_damaged_frames(camera: FakeUsbCamera) -> None:
    """MAX_FAILED_READS in a row raise SourceError."""
    camera.images = []
    with pytest.raises(SourceError, match="another cable"):
        next(_source(camera).frames())


def test_usb_camera_stalled(camera: FakeUsbCamera) -> None:
    """A read that times out raises SourceStalledError."""
    camera.images = []
    camera.read_takes_ns = 3_000_000_000
    with pytest.raises(SourceStalledError, match="no frame for 3 s"):
        next(_source(camera).frames())


def test_usb_camera_unplugged(camera: FakeUsbCamera) -> None:
    """A device node that no longer exists raises SourceNotFoundError at the next read."""
    with closing(_source(camera).frames()) as frames:
        next(frames)
        camera.images = []
        camera.node.unlink()
        with pytest.raises(SourceNotFoundError, match="was unplugged"):
            next(frames)
    assert camera.released == 1


def test_usb_camera_replugged_as_other_device(
    camera: FakeUsbCamera, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is found by its USB port, and the change is logged."""
    port = tmp_path / "by-path" / "usb-0:1.2:1.0-video-index0"
    other = tmp_path / "by-path" / "usb-0:1.3:1.0-video-index0"
    port.parent.mkdir()
    port.symlink_to(camera.node)
    other.symlink_to(tmp_path / "video7")
    with closing(_source(camera).frames()) as frames:
        next(frames)
        camera.images = []
        camera.node.unlink()
        port.unlink()
        with pytest.raises(SourceNotFoundError, match="was unplugged"):
            next(frames)
    with pytest.raises(SourceNotFoundError, match=str(camera.node)):
        next(_source(camera).frames())
    moved = tmp_path / "video1"
    moved.touch()
    port.symlink_to(moved)
    camera.images = [np.zeros((48, 64, 3), np.uint8)]
    with closing(_source(camera).frames()) as frames:
        next(frames)
        assert camera.opened[-1] == str(moved)
        # Its new node is checked, although its old number is used again.
        camera.node.touch()
        moved.unlink()
        with pytest.raises(SourceNotFoundError, match="was unplugged"):
            next(frames)
    assert caplog.text.count(f"the camera is {moved}") == 1


def test_usb_camera_other_camera_at_other_port(camera: FakeUsbCamera, tmp_path: Path) -> None:
    """A camera at another port is not used in its place."""
    port = tmp_path / "by-path" / "usb-0:1.2:1.0-video-index0"
    port.parent.mkdir()
    port.symlink_to(camera.node)
    next(_source(camera).frames())
    port.unlink()
    (tmp_path / "video1").touch()
    (tmp_path / "by-path" / "usb-0:1.3:1.0-video-index0").symlink_to(tmp_path / "video1")
    next(_source(camera).frames())
    assert camera.opened == [str(camera.node)] * 2


def test_usb_camera_unwanted_frames_are_not_decoded(camera: FakeUsbCamera) -> None:
    """They are taken from the driver only, and their numbers are used up."""
    camera.images = camera.images[:1] * 6
    with closing(_source(camera).frames()) as frames:
        assert next(frames).sequence == 0
        assert frames.send(ScriptedDemand(False, False, True)).sequence == 3
        assert frames.send(None).sequence == 4
    assert camera.retrieved == 3
