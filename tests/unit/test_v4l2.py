"""UsbCameraSource with a fake kernel interface and a fake OpenCV capture."""

import errno
import fcntl
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgepose.clock import boottime_ns
from edgepose.errors import (
    SourceBusyError,
    SourceError,
    SourceNotFoundError,
    SourceStalledError,
)
from edgepose.sources import v4l2
from edgepose.sources.v4l2 import UsbCameraSource
from tests.media import BLUE, GREEN, GREY, RED, assert_colours, quarters

CAPTURE, METADATA = 0x04200001, 0x04A00000


class Camera:
    """A fake of the kernel's and OpenCV's view of a USB camera: None is a read without an image."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.node = tmp_path / "video0"
        self.node.touch()
        self.node_capabilities = CAPTURE
        self.errors: dict[int, int] = {}
        self.requests: list[tuple[int, int]] = []
        self.opens = True
        self.images: list[NDArray[np.uint8] | None] = []
        self.read_takes_ns = 0
        self.properties: dict[int, float] = {}
        self.refused: set[int] = set()
        self.released = 0
        self.opened: list[str] = []
        self.now_ns = boottime_ns()
        monkeypatch.setattr(fcntl, "ioctl", self._ioctl)
        monkeypatch.setattr(v4l2, "open_capture", self._open)
        monkeypatch.setattr(v4l2, "boottime_ns", lambda: self.now_ns)
        monkeypatch.setattr(v4l2, "BY_PORT", tmp_path / "by-path")
        monkeypatch.setattr(v4l2, "known_ports", {})

    def _ioctl(self, node: int, request: int, argument: bytearray) -> int:
        if request in self.errors:
            raise OSError(self.errors[request], os.strerror(self.errors[request]))
        if request == 0x80685600:
            driver_capabilities = 0x80000000 | CAPTURE | METADATA
            argument[:] = struct.pack(
                "16s32s32s6I", b"uvcvideo", b"HD Pro Webcam", b"usb-1", 0x60100,
                driver_capabilities, self.node_capabilities, 0, 0, 0,
            )  # fmt: skip
        else:
            count, kind, *_ = struct.unpack("5I", argument)
            self.requests.append((count, kind))
        return 0

    def _open(self, device: str, backend: int) -> "Camera":
        assert backend == cv2.CAP_V4L2
        self.opened.append(device)
        return self

    def isOpened(self) -> bool:  # noqa: N802
        return self.opens

    def set(self, name: int, value: float) -> bool:
        if name not in self.refused:
            self.properties[name] = value
        return name not in self.refused

    def get(self, name: int) -> float:
        return self.properties.get(name, 0.0)

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        self.now_ns += self.read_takes_ns
        image = self.images.pop(0) if self.images else None
        return image is not None, image

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Camera:
    camera = Camera(monkeypatch, tmp_path)
    camera.images = [cv2.cvtColor(quarters(), cv2.COLOR_RGB2BGR)] * 2  # type: ignore[list-item]
    return camera


def _source(camera: Camera) -> UsbCameraSource:
    return UsbCameraSource(str(camera.node), size_wh=(64, 48), fps=30)


def test_usb_camera_requests_jpeg(camera: Camera) -> None:
    """JPEG is requested before the size, and frames are RGB."""
    with _source(camera) as source:
        frame = next(source.frames())
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


def test_usb_camera_other_size(camera: Camera, caplog: pytest.LogCaptureFixture) -> None:
    """A size other than the requested one is logged."""
    camera.properties = {cv2.CAP_PROP_FRAME_WIDTH: 320, cv2.CAP_PROP_FRAME_HEIGHT: 240}
    camera.refused = {cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT}
    with _source(camera):
        pass
    assert "asked for 64x48, the camera delivers 320x240" in caplog.text


def test_usb_camera_driver_timestamp(camera: Camera) -> None:
    """The driver's timestamp is the frame's."""
    taken_ns = boottime_ns() - 20_000_000
    camera.properties[cv2.CAP_PROP_POS_MSEC] = taken_ns / 1e6
    with _source(camera) as source:
        frame = next(source.frames())
    assert abs(frame.timestamp_ns - taken_ns) < 1_000_000


def test_usb_camera_missing_device(tmp_path: Path) -> None:
    """It raises SourceNotFoundError with the available devices."""
    with pytest.raises(SourceNotFoundError, match="is it plugged in"):
        UsbCameraSource(str(tmp_path / "video9")).open()


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
    camera: Camera,
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
        _source(camera).open()
    assert type(caught.value) is kind


def test_usb_camera_used_by_another_program(camera: Camera) -> None:
    """It raises SourceBusyError."""
    camera.errors[0xC0145608] = errno.EBUSY
    with pytest.raises(SourceBusyError, match="fuser -v"):
        _source(camera).open()


def test_usb_camera_driver_without_mmap_buffers(camera: Camera) -> None:
    """The check for other users is skipped."""
    camera.errors[0xC0145608] = errno.EINVAL
    with _source(camera) as source:
        assert next(source.frames()).sequence == 0


def test_usb_camera_metadata_node(camera: Camera) -> None:
    """The metadata node of a camera raises SourceError with the camera's name."""
    camera.node_capabilities = METADATA
    with pytest.raises(SourceError, match="HD Pro Webcam delivers no images"):
        _source(camera).open()


def test_usb_camera_other_device() -> None:
    """A device that is not a camera raises SourceError."""
    with pytest.raises(SourceError, match="expected a camera, this is another device"):
        UsbCameraSource("/dev/null").open()


def test_usb_camera_unsupported_format(camera: Camera) -> None:
    """It raises SourceError and releases the camera."""
    camera.opens = False
    with pytest.raises(SourceError, match="no image format"):
        _source(camera).open()
    assert camera.released == 1


def test_usb_camera_damaged_frame(camera: Camera) -> None:
    """A read without an image is skipped."""
    camera.images = [camera.images[0], None, None, camera.images[0]]
    with _source(camera) as source:
        frames = source.frames()
        assert [next(frames).sequence for _ in range(2)] == [0, 1]


def test_usb_camera_damaged_frames_apart(camera: Camera) -> None:
    """Failed reads are counted only in a row."""
    image = camera.images[0]
    nearly_too_many: list[NDArray[np.uint8] | None] = [None] * (v4l2.MAX_FAILED_READS - 1)
    camera.images = [image, *nearly_too_many, image, *nearly_too_many, image]
    with _source(camera) as source:
        frames = source.frames()
        assert [next(frames).sequence for _ in range(3)] == [0, 1, 2]


def test_usb_camera_many_damaged_frames(camera: Camera) -> None:
    """MAX_FAILED_READS in a row raise SourceError."""
    camera.images = []
    with _source(camera) as source, pytest.raises(SourceError, match="another cable"):
        next(source.frames())


def test_usb_camera_stalled(camera: Camera) -> None:
    """A read that times out raises SourceStalledError."""
    camera.images = []
    camera.read_takes_ns = 3_000_000_000
    with _source(camera) as source, pytest.raises(SourceStalledError, match="no frame for 3 s"):
        next(source.frames())


def test_usb_camera_unplugged(camera: Camera) -> None:
    """A device node that no longer exists raises SourceNotFoundError at the next read."""
    with _source(camera) as source:
        frames = source.frames()
        next(frames)
        camera.images = []
        camera.node.unlink()
        with pytest.raises(SourceNotFoundError, match="was unplugged"):
            next(frames)
    assert camera.released == 1


def test_usb_camera_replugged_as_other_device(
    camera: Camera, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is found by its USB port, and the change is logged."""
    port = tmp_path / "by-path" / "usb-0:1.2:1.0-video-index0"
    other = tmp_path / "by-path" / "usb-0:1.3:1.0-video-index0"
    port.parent.mkdir()
    port.symlink_to(camera.node)
    other.symlink_to(tmp_path / "video7")
    with _source(camera) as source:
        frames = source.frames()
        next(frames)
        camera.images = []
        camera.node.unlink()
        port.unlink()
        with pytest.raises(SourceNotFoundError, match="was unplugged"):
            next(frames)
    with pytest.raises(SourceNotFoundError, match=str(camera.node)):
        _source(camera).open()
    moved = tmp_path / "video1"
    moved.touch()
    port.symlink_to(moved)
    camera.images = [np.zeros((48, 64, 3), np.uint8)]
    with _source(camera) as source:
        next(source.frames())
        assert camera.opened[-1] == str(moved)
        # Its new node is checked, although its old number is used again.
        camera.node.touch()
        moved.unlink()
        with pytest.raises(SourceNotFoundError, match="was unplugged"):
            next(source.frames())
    assert caplog.text.count(f"the camera is {moved}") == 1


def test_usb_camera_other_camera_at_other_port(camera: Camera, tmp_path: Path) -> None:
    """A camera at another port is not used in its place."""
    port = tmp_path / "by-path" / "usb-0:1.2:1.0-video-index0"
    port.parent.mkdir()
    port.symlink_to(camera.node)
    with _source(camera):
        pass
    port.unlink()
    (tmp_path / "video1").touch()
    (tmp_path / "by-path" / "usb-0:1.3:1.0-video-index0").symlink_to(tmp_path / "video1")
    with _source(camera):
        pass
    assert camera.opened == [str(camera.node)] * 2
