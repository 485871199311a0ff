"""A fake picamera2 with the observed behaviour of 0.3.38: it adjusts, pads, times out and leaks."""

import os
import sys
import time
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Named:
    """A value of one of libcamera's enumerations."""

    name: str


@dataclass(frozen=True)
class ColourSpace:
    """The attributes of libcamera.ColorSpace that are used."""

    ycbcrEncoding: Named  # noqa: N815 - libcamera's name
    range: Named


@dataclass
class World:
    """The image and the faults of the fake cameras, and what was done with them."""

    image: Bytes = field(default_factory=lambda: np.zeros((48, 64, 3), np.uint8))
    cameras: int = 1
    adjusted_format: str | None = None
    adjusted_size: tuple[int, int] | None = None
    adjusted_space: ColourSpace | None = None
    appear_at_reset: int = 0
    resets: int = 0
    stride_padding: int = 32
    open_error: BaseException | None = None
    heap_error: BaseException | None = None
    configure_error: BaseException | None = None
    capture_error: BaseException | None = None
    loop_error: BaseException | None = None
    stalled: bool = False
    timeouts_then_fine: int = 0
    late_results: int = 0
    suspended_ns: int = 0
    timestamps: list[int] = field(default_factory=list)
    requests_out: int = 0
    leaked_jobs: int = 0
    flushes: int = 0
    opened: list["FakeCamera"] = field(default_factory=list)
    configured: dict[str, Any] = field(default_factory=dict)
    waits: list[object] = field(default_factory=list)
    controls: list[dict[str, Any]] = field(default_factory=list)


def packed(rgb: Bytes, fmt: str, stride: int) -> Bytes:
    """Return a camera buffer with an RGB image, in rows of `stride` bytes."""
    height, width = rgb.shape[:2]
    rows: list[Bytes]
    if fmt in ("YUV420", "NV12"):
        planar = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).astype(np.uint8, copy=False)
        luma, chroma = planar[:height], planar[height:].reshape(2, height // 2, width // 2)
        if fmt == "NV12":
            pairs = np.stack((chroma[0], chroma[1]), axis=-1).reshape(height // 2, width)
            return np.concatenate((_padded(luma, stride), _padded(pairs, stride)))
        return np.concatenate((_padded(luma, stride), *(_padded(c, stride // 2) for c in chroma)))
    order = {"BGR888": "RGB", "RGB888": "BGR", "XBGR8888": "RGBX", "XRGB8888": "BGRX"}[fmt]
    planes = {
        "R": rgb[..., 0],
        "G": rgb[..., 1],
        "B": rgb[..., 2],
        "X": np.full_like(rgb[..., 0], 255),
    }
    rows = [planes[letter] for letter in order]
    return _padded(np.stack(rows, axis=-1).reshape(height, -1), stride)


def _padded(rows: Bytes, stride: int) -> Bytes:
    # Padding far from black, so that it is visible in the image.
    out = np.full((rows.shape[0], stride), 0xEE, np.uint8)
    out[:, : rows.shape[1]] = rows
    return out.reshape(-1)


class FakeRequest:
    def __init__(self, camera: "FakeCamera", timestamp_ns: int | None) -> None:
        self._camera = camera
        self._timestamp_ns = timestamp_ns
        self._released = False
        camera.world.requests_out += 1

    def make_buffer(self, name: str) -> Bytes:
        assert not self._released
        settled = self._camera.settled[name]
        width, height = settled["size"]
        image = cv2.resize(
            self._camera.world.image, (width, height), interpolation=cv2.INTER_NEAREST
        ).astype(np.uint8, copy=False)
        return packed(image, settled["format"], settled["stride"])

    def get_metadata(self) -> dict[str, Any]:
        return {} if self._timestamp_ns is None else {"SensorTimestamp": self._timestamp_ns}

    def release(self) -> None:
        assert not self._released
        self._released = True
        self._camera.world.requests_out -= 1


class FakeJob:
    """A requested capture; of those that time out some end late, some never."""

    def __init__(self, camera: "FakeCamera") -> None:
        self.camera = camera
        self.cancelled = False
        self.late: FakeRequest | None = None

    def get_result(self, timeout: float) -> FakeRequest:
        world = self.camera.world
        assert isinstance(timeout, float), "a wait without a timeout may never end"
        if world.loop_error is not None and not self.camera.loop_ended:
            self.camera.loop_ended = True
            with pytest.raises(SystemExit):
                self.camera.preview.handle_request(self.camera)
        if self.cancelled:
            raise CancelledError
        if self.camera.loop_ended:
            raise TimeoutError
        world.waits.append(timeout)
        if self.late is not None:
            return self.late
        if world.capture_error is not None:
            raise world.capture_error
        if world.late_results:
            # Removed from the list of jobs in time, but its result arrives after the timeout.
            world.late_results -= 1
            self.late = FakeRequest(self.camera, time.monotonic_ns())
            self.camera.jobs.remove(self)
            raise TimeoutError
        if world.stalled or world.timeouts_then_fine:
            world.timeouts_then_fine = max(0, world.timeouts_then_fine - 1)
            world.leaked_jobs += 1
            raise TimeoutError
        assert world.leaked_jobs == 0, "a job left behind swallows this frame"
        self.camera.jobs.remove(self)
        timestamp: int | None = time.monotonic_ns()
        if world.timestamps:
            timestamp = world.timestamps.pop(0)
        return FakeRequest(self.camera, timestamp)


class FakePreview:
    """An event loop that runs in the thread that waits for a frame."""

    def handle_request(self, camera: "FakeCamera") -> None:
        if camera.world.loop_error is not None:
            raise camera.world.loop_error


class FakeManager:
    """Enumerates cameras when it is reset."""

    def __init__(self, world: World) -> None:
        self._world = world

    def reset(self) -> None:
        self._world.resets += 1
        self._world.cameras += self._world.appear_at_reset
        self._world.appear_at_reset = 0


class FakeCamera:
    world: World

    @classmethod
    def global_camera_info(cls) -> list[dict[str, Any]]:
        return [{"Model": "imx708", "Num": number} for number in range(cls.world.cameras)]

    def __init__(self, index: int) -> None:
        self.started = self.closed = False
        self.settled: dict[str, Any] = {}
        self.jobs: list[FakeJob] = []
        self.preview = FakePreview()
        self.loop_ended = False
        reader, self.notifyme_w = os.pipe()
        self.notifymeread = os.fdopen(reader, "rb")
        if self.world.open_error is not None:
            raise self.world.open_error
        held = [camera for camera in self.world.opened if not camera.closed]
        if held:
            raise busy()
        self.world.opened.append(self)
        if self.world.heap_error is not None:
            raise self.world.heap_error
        self.allocator = object()

    def create_video_configuration(self, **wishes: Any) -> dict[str, Any]:
        assert wishes["queue"] is False, "queue=True hands out old frames"
        return wishes

    def configure(self, wishes: dict[str, Any]) -> None:
        if self.world.configure_error is not None:
            raise self.world.configure_error
        self.world.configured = wishes
        for name in ("main", "lores"):
            if name not in wishes:
                continue
            size = self.world.adjusted_size or wishes[name]["size"]
            fmt = self.world.adjusted_format or wishes[name]["format"]
            depth = {"YUV420": 1, "NV12": 1, "BGR888": 3, "RGB888": 3}.get(fmt, 4)
            stride = size[0] * depth + self.world.stride_padding
            self.settled[name] = {"format": fmt, "size": size, "stride": stride}
        self.settled["colour_space"] = self.world.adjusted_space or wishes.get("colour_space")

    def camera_configuration(self) -> dict[str, Any]:
        return self.settled

    def set_controls(self, controls: dict[str, Any]) -> None:
        assert self.started
        self.world.controls.append(controls)

    def start_preview(self, preview: FakePreview) -> None:
        self.preview = preview

    def start(self) -> None:
        self.started = True

    def capture_request(self, wait: bool) -> FakeJob:
        assert wait is False, "without its job a late result cannot be picked up"
        self.jobs.append(FakeJob(self))
        return self.jobs[-1]

    def wait(self, job: FakeJob, timeout: float) -> FakeRequest:
        return job.get_result(timeout)

    def cancel_all_and_flush(self) -> None:
        self.world.flushes += 1
        self.world.leaked_jobs = 0
        for job in self.jobs:
            job.cancelled = True
        self.jobs.clear()

    def stop(self) -> None:
        self.started = False

    def close(self) -> None:
        assert self.world.requests_out == 0, "closed while a request is held"
        if self not in self.world.opened or self.closed:
            return
        self.stop()
        self.closed = True
        self.notifymeread.close()
        os.close(self.notifyme_w)
        del self.allocator


def busy() -> RuntimeError:
    error = RuntimeError("Camera __init__ sequence did not complete.")
    error.__cause__ = RuntimeError("Failed to acquire camera: Device or resource busy")
    return error


def install(monkeypatch: pytest.MonkeyPatch) -> World:
    """Replace picamera2 and libcamera with the fake; return its state."""
    world = World()
    picamera2 = ModuleType("picamera2")
    camera = type("Picamera2", (FakeCamera,), {"world": world, "_cm": FakeManager(world)})
    picamera2.Picamera2 = camera  # type: ignore[attr-defined]
    picamera2.Preview = SimpleNamespace(  # type: ignore[attr-defined]
        NULL=SimpleNamespace(value=FakePreview)
    )
    libcamera = ModuleType("libcamera")
    libcamera.ColorSpace = type(  # type: ignore[attr-defined]
        "ColorSpace", (), {"Smpte170m": staticmethod(lambda: "smpte170m")}
    )
    monkeypatch.setitem(sys.modules, "picamera2", picamera2)
    monkeypatch.setitem(sys.modules, "libcamera", libcamera)
    return world
