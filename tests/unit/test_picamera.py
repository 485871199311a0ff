"""PicameraSource with a fake picamera2 that misbehaves like the real one."""

import importlib
import sys
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Literal
from unittest.mock import Mock

import numpy as np
import pytest
from numpy.typing import NDArray

from edgepose.clock import boottime_ns
from edgepose.datatypes import Image
from edgepose.errors import (
    SourceBusyError,
    SourceError,
    SourceNotFoundError,
    SourceStalledError,
)
from edgepose.sources import _base
from edgepose.sources._buffer_format import BufferFormat
from edgepose.sources.picamera import PicameraSource
from tests.fakes import picamera2
from tests.fakes.picamera2 import ColourSpace, Named, World
from tests.fakes.sources import ScriptedDemand
from tests.media import BLUE, GREEN, GREY, RED, assert_colours, quarters


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = picamera2.install(monkeypatch)
    world.image = quarters()
    return world


@pytest.mark.parametrize("padding", [0, 32])
@pytest.mark.parametrize("stream", ["main", "lores"])
@pytest.mark.parametrize(
    "settled", [None, "BGR888", "RGB888", "XBGR8888", "XRGB8888", "YUV420", "NV12"]
)
def test_picamera_every_buffer_format(
    world: World, settled: str | None, stream: Literal["main", "lores"], padding: int
) -> None:
    """Images are RGB in every format that the camera may choose, padded or not."""
    world.adjusted_format, world.stride_padding = settled, padding
    frame = next(PicameraSource(0, size_wh=(64, 48), stream=stream).frames())
    assert frame.size_wh == (64, 48)
    assert frame.image.flags.c_contiguous
    assert not frame.image.flags.writeable
    yuv = "YUV" in (settled or "") or settled == "NV12" or (stream == "lores" and not settled)
    assert_colours(frame.image, [RED, GREEN, BLUE, GREY], tolerance=4 if yuv else 0)
    # The padding is not part of the image.
    assert np.abs(frame.image[5, -1].astype(int) - GREEN).max() <= (4 if yuv else 0)


def test_picamera_adjusted_size(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The size chosen by the camera is used, and logged."""
    world.adjusted_size = (128, 96)
    frame = next(PicameraSource(0, size_wh=(64, 48)).frames())
    assert frame.size_wh == (128, 96)
    assert_colours(frame.image, [RED, GREEN, BLUE, GREY], tolerance=0)
    assert "asked for 64x48, the camera delivers 128x96" in caplog.text


# The weights of red, green and blue in luma.
_ENCODINGS = {
    "Rec601": (0.299, 0.587, 0.114),
    "Rec709": (0.2126, 0.7152, 0.0722),
    "Rec2020": (0.2627, 0.678, 0.0593),
}


@pytest.mark.parametrize("layout", ["YUV420", "NV12"])
@pytest.mark.parametrize("span", ["Limited", "Full"])
@pytest.mark.parametrize("encoding", list(_ENCODINGS))
def test_picamera_every_colour_space(
    world: World, monkeypatch: pytest.MonkeyPatch, encoding: str, span: str, layout: str
) -> None:
    """YUV is converted by the matrix and range of the chosen colour space."""
    world.adjusted_format, world.stride_padding = layout, 32
    world.adjusted_space = ColourSpace(Named(encoding), Named(span))
    world.image = quarters()
    red, green, blue = (world.image[..., channel] / 255 for channel in range(3))
    weights = _ENCODINGS[encoding]
    luma = weights[0] * red + weights[1] * green + weights[2] * blue
    blueness = (blue - luma) / (2 - 2 * weights[2])
    redness = (red - luma) / (2 - 2 * weights[0])
    offset, luma_span, chroma_span = (16, 219, 224) if span == "Limited" else (0, 255, 255)
    planes = [np.rint(offset + luma_span * luma)]
    planes += [np.rint(128 + chroma_span * chroma)[::2, ::2] for chroma in (blueness, redness)]
    if layout == "NV12":
        planes[1:] = [np.stack(planes[1:], -1).reshape(24, 64)]
    strides = [96, 96] if layout == "NV12" else [96, 48, 48]
    rows = [
        np.pad(plane, ((0, 0), (0, stride - plane.shape[1])), constant_values=238).reshape(-1)
        for plane, stride in zip(planes, strides, strict=True)
    ]
    buffer = np.concatenate(rows).astype(np.uint8)
    monkeypatch.setattr(picamera2.FakeRequest, "make_buffer", lambda self, name: buffer)
    frame = next(PicameraSource(0, size_wh=(64, 48)).frames())
    assert_colours(frame.image, [RED, GREEN, BLUE, GREY], tolerance=3)


def test_picamera_colour_space_without_encoding(world: World) -> None:
    """It is converted as BT.601 in limited range."""
    world.adjusted_format = "NV12"
    world.adjusted_space = ColourSpace(Named("Null"), Named("Full"))
    frame = next(PicameraSource(0, size_wh=(64, 48)).frames())
    assert_colours(frame.image, [RED, GREEN, BLUE, GREY], tolerance=4)


def test_picamera_requested_configuration(world: World) -> None:
    """Size, format and frame duration are requested for the chosen stream."""
    next(PicameraSource(0, size_wh=(64, 48), fps=20).frames())
    assert world.configured["main"] == {"size": (64, 48), "format": "BGR888"}
    assert "lores" not in world.configured
    assert world.configured["controls"] == {"FrameDurationLimits": (50_000, 50_000)}
    next(PicameraSource(0, size_wh=(64, 48), stream="lores").frames())
    assert world.configured["lores"] == {"size": (64, 48), "format": "YUV420"}
    main_wh = world.configured["main"]["size"]
    assert main_wh[0] >= 64
    assert main_wh[1] >= 48


def test_picamera_unsupported_format(world: World) -> None:
    """It raises SourceError with the format's name and closes the camera."""
    world.adjusted_format = "MJPEG"
    with pytest.raises(SourceError, match="delivers MJPEG"):
        next(PicameraSource(0).frames())
    assert all(camera.closed for camera in world.opened)


def test_picamera_timeout_then_frame(world: World) -> None:
    """The pending job is cancelled and the next frame is read."""
    world.timeouts_then_fine = 2
    frame = next(PicameraSource(0, size_wh=(64, 48)).frames())
    assert frame.sequence == 0
    assert world.flushes == 2


def test_picamera_frame_at_timeout(world: World) -> None:
    """It is used: its buffer would be lost, and after four of these the camera would be silent."""
    world.late_results = 1
    with closing(PicameraSource(0, size_wh=(64, 48)).frames()) as frames:
        assert [next(frames).sequence for _ in range(2)] == [0, 1]
        assert world.requests_out == 0
    assert world.flushes == 1


def test_picamera_low_frame_rate(world: World) -> None:
    """At a frame every five seconds the timeout is longer than that."""
    next(PicameraSource(0, size_wh=(64, 48), fps=0.2).frames())
    assert min(float(str(wait)) for wait in world.waits) > 5


def test_picamera_stalled(world: World) -> None:
    """It raises SourceStalledError within 4 s and keeps no job and no buffer."""
    with closing(PicameraSource(0, size_wh=(64, 48)).frames()) as frames:
        next(frames)
        world.waits.clear()
        world.stalled = True
        with pytest.raises(SourceStalledError, match="picamera:0: no frame for 3 s"):
            next(frames)
    assert sum(float(str(wait)) for wait in world.waits) <= 4
    assert world.leaked_jobs == 0
    assert world.requests_out == 0
    assert world.opened[-1].closed


def test_picamera_open_again(world: World) -> None:
    """Each open uses a new Picamera2 object."""
    source = PicameraSource(0, size_wh=(64, 48))
    for _ in range(2):
        assert next(source.frames()).sequence == 0
    assert len(world.opened) == 2
    assert world.opened[0] is not world.opened[1]


def test_picamera_unusable_buffer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is released if its buffer cannot be converted."""
    monkeypatch.setattr(
        picamera2.FakeRequest, "make_buffer", lambda self, name: np.zeros(10, np.uint8)
    )
    with pytest.raises(SourceError):
        next(PicameraSource(0, size_wh=(64, 48)).frames())
    assert world.requests_out == 0


def test_picamera_capture_error(world: World) -> None:
    """An exception of picamera2 becomes SourceError with its text."""
    with closing(PicameraSource(0, size_wh=(64, 48)).frames()) as frames:
        next(frames)
        world.capture_error = RuntimeError("Camera frontend has timed out!")
        with pytest.raises(SourceError, match="frontend has timed out"):
            next(frames)


def test_picamera_event_loop_error(world: World) -> None:
    """The error that ended picamera2's event loop is raised at once, not a stall after 3 s."""
    with closing(PicameraSource(0, size_wh=(64, 48)).frames()) as frames:
        next(frames)
        world.waits.clear()
        world.loop_error = RuntimeError("Failed to queue request: No such device")
        with pytest.raises(SourceError, match="No such device") as caught:
            next(frames)
        assert not isinstance(caught.value, SourceStalledError)
        assert world.waits == []
    assert world.requests_out == 0


def test_picamera_close_error(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged once, and not raised."""

    def broken(self: object) -> None:
        raise RuntimeError("Failed to release camera")

    monkeypatch.setattr(picamera2.FakeCamera, "close", broken)
    with closing(PicameraSource(0).frames()) as frames:
        next(frames)
    assert caplog.text.count("Failed to release camera") == 1


@pytest.mark.parametrize(("cameras", "index"), [(0, 0), (1, 1)])
def test_picamera_missing_camera(world: World, cameras: int, index: int) -> None:
    """It raises SourceNotFoundError with the number of cameras and a remedy."""
    world.cameras = cameras
    with pytest.raises(SourceNotFoundError) as caught:
        next(PicameraSource(index).frames())
    assert f"picamera:{index}: " in str(caught.value)
    assert f"libcamera finds {cameras} of them" in str(caught.value)
    assert "rpicam-hello" in str(caught.value)


def test_picamera_camera_added_later(world: World) -> None:
    """libcamera's list is read again, so a sensor driver loaded late is found."""
    world.cameras, world.appear_at_reset = 0, 1
    for _ in range(2):
        assert next(PicameraSource(0, size_wh=(64, 48)).frames()).sequence == 0
        assert world.resets == 1


@pytest.mark.parametrize(
    "error", [IndexError("list index out of range"), RuntimeError("No camera number 0 found")]
)
def test_picamera_camera_removed_before_open(world: World, error: Exception) -> None:
    """It raises SourceNotFoundError."""
    world.open_error = error
    with pytest.raises(SourceNotFoundError, match="rpicam-hello"):
        next(PicameraSource(0).frames())


def test_picamera_used_by_another_program(world: World) -> None:
    """It raises SourceBusyError with the root cause."""
    with closing(PicameraSource(0).frames()) as frames:
        next(frames)
        with pytest.raises(SourceBusyError, match=r"another program uses .*fuser"):
            next(PicameraSource(0).frames())


@pytest.mark.parametrize("reason", ["busy", "heap"])
def test_picamera_open_error_frees_descriptors(world: World, reason: str) -> None:
    """No file descriptor is leaked: a camera busy overnight used up the daemon's last one."""
    if reason == "busy":
        world.open_error = picamera2.busy()
    else:
        world.heap_error = PermissionError(13, "Permission denied", "/dev/dma_heap/linux,cma")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with pytest.raises(SourceError, match="group video" if reason == "heap" else "another"):
            next(PicameraSource(0).frames())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert all(camera.closed for camera in world.opened)


def test_picamera_other_open_error(world: World) -> None:
    """It raises SourceError with the root cause, not SourceBusyError."""
    world.open_error = RuntimeError("Camera __init__ sequence did not complete.")
    world.open_error.__cause__ = RuntimeError("IPA module failed to load")
    with pytest.raises(SourceError, match="IPA module failed to load") as caught:
        next(PicameraSource(0).frames())
    assert not isinstance(caught.value, SourceBusyError)


def test_picamera_no_permission(world: World) -> None:
    """A permission error names the group and closes the camera."""
    world.configure_error = PermissionError(13, "Permission denied", "/dev/dma_heap/linux,cma")
    with pytest.raises(SourceError, match=r"group video.*dma_heap"):
        next(PicameraSource(0).frames())
    assert world.opened[-1].closed


def test_picamera_module_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picamera2 that cannot be imported raises SourceError."""
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(SourceError) as caught:
        next(PicameraSource(0).frames())
    assert "picamera2" in str(caught.value)


class _Broken(ModuleType):
    """An entry of `sys.meta_path` that makes the import of picamera2 fail."""

    def __init__(self, error: Exception) -> None:
        super().__init__("broken")
        self.error = error

    def find_spec(self, name: str, *_: object) -> None:
        if name == "picamera2":
            raise self.error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module named 'picamera2'", name="picamera2"),
            "--system-site-packages",
        ),
        (ModuleNotFoundError("No module named 'libcamera'", name="libcamera"), "'libcamera'"),
        (ValueError("numpy.dtype size changed, may indicate binary incompatibility"), "numpy < 2"),
        (ImportError("libcamera.so.0.5: cannot open shared object file"), "--reinstall"),
    ],
)
def test_picamera_import_errors(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    """Each import error has its own remedy."""
    monkeypatch.delitem(sys.modules, "picamera2", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Broken(error), *sys.meta_path])
    with pytest.raises(SourceError) as caught:
        next(PicameraSource(0).frames())
    assert message in str(caught.value)


def test_picamera_sensor_timestamp(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sensor's timestamp is the frame's; a repeated one is increased."""
    now_ns = boottime_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)
    monkeypatch.setattr(_base, "boottime_ns", lambda: now_ns)
    start_ns = now_ns - 40_000_000
    world.timestamps = [start_ns, start_ns + 33_000_000, start_ns + 33_000_000]
    source = PicameraSource(0, size_wh=(64, 48))
    stamps = [frame.timestamp_ns for frame in islice(source.frames(), 3)]
    assert stamps[:2] == [start_ns, start_ns + 33_000_000]
    assert stamps[2] > stamps[1], "a repeated timestamp is increased"


def test_capture_clock_suspend(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time in suspend is added to CLOCK_MONOTONIC; unknown clocks are ignored."""
    now_ns, suspended_ns = 9_000_000_000_000, 3_600_000_000_000
    monkeypatch.setattr(_base, "boottime_ns", lambda: now_ns)
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns - suspended_ns)
    of_monotonic = now_ns - suspended_ns - 20_000_000
    assert _base.CaptureClock().stamp(of_monotonic) == now_ns - 20_000_000
    assert _base.CaptureClock().stamp(now_ns - 20_000_000) == now_ns - 20_000_000
    assert _base.CaptureClock().stamp(123) == now_ns, "an unknown clock"
    assert _base.CaptureClock().stamp(now_ns + 10**9) == now_ns, "a clock that is ahead"
    assert _base.CaptureClock().stamp(None) == now_ns


def test_picamera_unwanted_frames_are_not_converted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their buffers go back to the camera, and their numbers are used up."""
    converted = []
    to_rgb = BufferFormat.to_rgb

    def counted(of: BufferFormat, buffer: NDArray[np.uint8]) -> Image:
        converted.append(buffer)
        return to_rgb(of, buffer)

    monkeypatch.setattr(BufferFormat, "to_rgb", counted)
    with closing(PicameraSource(0, size_wh=(64, 48)).frames()) as frames:
        assert next(frames).sequence == 0
        assert frames.send(ScriptedDemand(False, False, False, True)).sequence == 4
        assert frames.send(ScriptedDemand(True)).sequence == 5
        assert world.requests_out == 0
    assert len(converted) == 3


def test_picamera_is_slower_while_idle(world: World) -> None:
    """To 15 frames a second, from which it is back within 300 ms; each change is set once."""
    with closing(PicameraSource(0, size_wh=(64, 48), fps=25).frames()) as frames:
        next(frames)
        for idle in (False, True, True, False, False):
            frames.send(ScriptedDemand(idle=idle))
    assert world.controls == [
        {"FrameDurationLimits": (66667, 66667)},
        {"FrameDurationLimits": (40000, 40000)},
    ]


@pytest.mark.parametrize(("fps", "restored"), [(None, 33333), (15, None), (5, None)])
def test_picamera_idle_rate_and_its_own(
    world: World, fps: float | None, restored: int | None
) -> None:
    """Without a configured rate it returns to 30; a camera that is slow already stays so."""
    with closing(PicameraSource(0, size_wh=(64, 48), fps=fps).frames()) as frames:
        next(frames)
        for idle in (True, False):
            frames.send(ScriptedDemand(idle=idle))
    limits = [controls["FrameDurationLimits"] for controls in world.controls]
    assert limits == ([(66667, 66667), (restored, restored)] if restored else [])


def test_picamera_opened_again_while_idle(world: World) -> None:
    """A camera that is opened has its full rate."""
    source = PicameraSource(0, size_wh=(64, 48))
    for _ in range(2):
        with closing(source.frames()) as frames:
            next(frames)
            frames.send(ScriptedDemand(idle=True))
    assert len(world.controls) == 2


@pytest.mark.parametrize(("prefix", "own_venv"), [("/usr/lib/edgepose", False), ("/venv", True)])
def test_picamera_missing_in_the_package(
    monkeypatch: pytest.MonkeyPatch, prefix: str, own_venv: bool
) -> None:
    """With the Debian package, picamera2 is one command away, without an environment to create."""
    monkeypatch.setitem(sys.modules, "picamera2", None)
    monkeypatch.setattr(sys, "prefix", prefix)
    error = ModuleNotFoundError("No module named 'picamera2'", name="picamera2")
    monkeypatch.setattr(importlib, "import_module", Mock(side_effect=error))
    with pytest.raises(SourceError, match="sudo apt install python3-picamera2") as missing:
        next(PicameraSource(0).frames())
    assert ("--system-site-packages" in str(missing.value)) == own_venv
