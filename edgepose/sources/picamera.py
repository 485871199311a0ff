"""The Raspberry Pi's camera, through picamera2.

What picamera2 does that its manual does not say was measured on 0.3.38 with libcamera 0.7: a
configuration is adjusted silently, a capture that timed out leaves a job behind that swallows a
later frame, and `queue=True` hands out a frame that is already old.
"""

import importlib
import logging
from collections.abc import Iterator
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import Frame, Image
from edgepose.errors import (
    SourceBusyError,
    SourceError,
    SourceNotFoundError,
    SourceStalledError,
)
from edgepose.sources._base import CaptureClock, OpenableSource

log = logging.getLogger(__name__)

FRAME_TIMEOUT_S: Final = 1.0
TIMEOUTS_TO_STALL: Final = 3

_Convert = Literal["rgb", "bgr", "rgbx", "bgrx", "yuv420", "nv12"]
# The names say the order in a 32-bit word; in memory it is the other way round.
_FORMATS: Final[dict[str, _Convert]] = {
    "BGR888": "rgb",
    "RGB888": "bgr",
    "XBGR8888": "rgbx",
    "XRGB8888": "bgrx",
    "YUV420": "yuv420",
    "NV12": "nv12",
}


class PicameraSource(OpenableSource):
    """Reads one stream of a Pi camera.

    `stream` lores takes the camera's second, smaller stream (YUV on a Pi 4), main its first. The
    format and size are what the camera settled for, read back after configuring.
    """

    live = True

    def __init__(
        self,
        index: int,
        *,
        size_wh: tuple[int, int] = (640, 480),
        fps: float | None = None,
        stream: Literal["main", "lores"] = "main",
    ) -> None:
        self.description = f"picamera:{index}"
        self._index = index
        self._size_wh = size_wh
        self._fps = fps
        self._stream = stream
        # At a slow rate the next frame is not late before its time.
        self._timeout_s = max(FRAME_TIMEOUT_S, 2 / fps) if fps else FRAME_TIMEOUT_S
        self._camera: Any = None
        self._format: _Convert = "rgb"
        self._width = self._height = self._stride = 0

    def open(self) -> None:
        """Open, configure and start the camera; raises SourceError with the reason and remedy."""
        picamera2 = _import("picamera2", self.description)
        try:
            cameras = picamera2.Picamera2.global_camera_info()
            if self._index >= len(cameras):
                raise self._not_found(len(cameras))
            self._camera = picamera2.Picamera2(self._index)
            self._camera.configure(self._configuration())
            self._read_back()
            self._camera.start()
        except SourceError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise self._sentence(error) from error

    def close(self) -> None:
        """Stop and free the camera, so that another program, or we, can open it."""
        camera, self._camera = self._camera, None
        if camera is None:
            return
        try:
            # It stops the camera too, and after its event loop: `stop` alone would wait for that
            # loop, which may have died.
            camera.close()
        except Exception as error:  # noqa: BLE001 - a camera that broke may not close either
            log.warning("%s: the camera did not close properly: %s", self.description, error)

    def frames(self) -> Iterator[Frame]:
        """Yield frames as the sensor takes them; raises SourceStalledError in silence."""
        clock = CaptureClock()
        sequence = 0
        while self._camera is not None:
            image, sensor_ns = self._capture()
            yield Frame(image, clock.stamp(sensor_ns), sequence)
            # While the next one is awaited, this one belongs to whoever took it.
            del image
            sequence += 1

    def _capture(self) -> tuple[Image, int | None]:
        """Wait for the next frame; return its image and its moment on the sensor's clock."""
        for _ in range(TIMEOUTS_TO_STALL):
            try:
                request = self._camera.capture_request(wait=self._timeout_s)
                try:
                    image = self._to_rgb(request.make_buffer(self._stream))
                    return image, request.get_metadata().get("SensorTimestamp")
                finally:
                    request.release()
            except TimeoutError:
                # Without this, the job that timed out takes a later frame and keeps its buffer.
                self._camera.cancel_all_and_flush()
            except Exception as error:
                raise self._sentence(error) from error
        raise SourceStalledError(
            f"{self.description}: no frame for {TIMEOUTS_TO_STALL * self._timeout_s:.0f} s; "
            "check the ribbon cable and `dmesg` for messages of the sensor"
        )

    def _configuration(self) -> Any:
        wanted = {"size": self._size_wh, "format": "BGR888"}
        options: dict[str, Any] = {"main": wanted}
        if self._stream == "lores":
            # main must not be smaller than lores; it is configured alike and never read.
            options["lores"] = {"size": self._size_wh, "format": "YUV420"}
            # The colour space that OpenCV assumes; from 1280x720 on picamera2 takes another one.
            libcamera = _import("libcamera", self.description)
            options["colour_space"] = libcamera.ColorSpace.Smpte170m()
        controls: dict[str, Any] = {}
        if self._fps:
            duration_us = round(1e6 / self._fps)
            controls["FrameDurationLimits"] = (duration_us, duration_us)
        return self._camera.create_video_configuration(
            **options, controls=controls, buffer_count=4, queue=False, display=None, encode=None
        )

    def _read_back(self) -> None:
        settled = self._camera.camera_configuration()[self._stream]
        kind = _FORMATS.get(str(settled["format"]))
        if kind is None:
            raise SourceError(
                f"{self.description}: the camera delivers {settled['format']}, expected one of "
                f"{', '.join(_FORMATS)}; try the other of stream: main and lores"
            )
        self._format = kind
        self._width, self._height = settled["size"]
        self._stride = int(settled["stride"])
        if (self._width, self._height) != self._size_wh:
            log.warning(
                "%s: asked for %dx%d, the camera delivers %dx%d",
                self.description,
                *self._size_wh,
                self._width,
                self._height,
            )

    def _to_rgb(self, buffer: NDArray[np.uint8]) -> Image:
        width, height, stride = self._width, self._height, self._stride
        kind = self._format
        if kind in ("yuv420", "nv12"):
            # Rows of luma, then half as many rows' worth of chroma, all padded to the stride.
            luma = np.ascontiguousarray(
                buffer[: height * stride].reshape(height, stride)[:, :width]
            )
            chroma = buffer[height * stride : height * stride * 3 // 2]
            if kind == "nv12":
                pairs = chroma.reshape(height // 2, stride)[:, :width].reshape(
                    height // 2, width // 2, 2
                )
                rgb = cv2.cvtColorTwoPlane(
                    luma, np.ascontiguousarray(pairs), cv2.COLOR_YUV2RGB_NV12
                )
            else:
                planes = chroma.reshape(2, height // 2, stride // 2)[:, :, : width // 2]
                packed = np.concatenate((luma.reshape(-1), planes.reshape(-1)))
                rgb = cv2.cvtColor(packed.reshape(height * 3 // 2, width), cv2.COLOR_YUV2RGB_I420)
            return rgb.astype(np.uint8, copy=False)
        depth = 4 if kind in ("rgbx", "bgrx") else 3
        rows = buffer[: height * stride].reshape(height, stride)[:, : width * depth]
        pixels = rows.reshape(height, width, depth)
        if kind == "rgb":
            # What comes in is a copy of the camera's buffer already; only padding needs another.
            return np.ascontiguousarray(pixels)
        codes = {
            "bgr": cv2.COLOR_BGR2RGB,
            "rgbx": cv2.COLOR_RGBA2RGB,
            "bgrx": cv2.COLOR_BGRA2RGB,
        }
        return cv2.cvtColor(pixels, codes[kind]).astype(np.uint8, copy=False)

    def _sentence(self, error: Exception) -> SourceError:
        """Turn what picamera2 raises into what is wrong and what to do."""
        name = self.description
        reasons = " ".join(str(reason) for reason in _chain(error))
        if isinstance(error, IndexError) or "No camera number" in reasons:
            return self._not_found(None)
        if "busy" in reasons.lower() or "acquire" in reasons:
            return SourceBusyError(
                f"{name}: another program holds the camera ({_chain(error)[-1]}); "
                "`fuser -v /dev/media* /dev/video*` names it"
            )
        if any(isinstance(reason, PermissionError) for reason in _chain(error)):
            return SourceError(
                f"{name}: no permission ({_chain(error)[-1]}); the user must be in the group video "
                "and may need /dev/dma_heap"
            )
        first = _chain(error)[-1]
        return SourceError(
            f"{name}: the camera failed ({type(first).__name__}: {first}); if it stays so, "
            "`rpicam-hello` shows whether the camera works at all"
        )

    def _not_found(self, count: int | None) -> SourceNotFoundError:
        there = {None: "no such camera", 0: "there is no camera"}.get(
            count, f"no such camera, there are {count} (counted from 0)"
        )
        return SourceNotFoundError(
            f"{self.description}: {there}; `rpicam-hello --list-cameras` shows what is connected, "
            "check the ribbon cable and camera_auto_detect=1 in /boot/firmware/config.txt"
        )


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    return chain


def _import(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "picamera2":
            raise _does_not_load(name, error) from error
        raise SourceError(
            f"{name}: picamera2 is not installed for this Python; "
            "`sudo apt install python3-picamera2`, and make the virtual environment with "
            "`python3 -m venv --system-site-packages`"
        ) from error
    except Exception as error:
        # A numpy that its compiled parts do not fit is a ValueError, a broken libcamera another.
        raise _does_not_load(name, error) from error


def _does_not_load(name: str, error: Exception) -> SourceError:
    remedy = (
        "this numpy does not fit it: on Raspberry Pi OS Bookworm keep numpy < 2"
        if "numpy" in str(error)
        else "`sudo apt install --reinstall python3-picamera2 python3-libcamera`"
    )
    return SourceError(f"{name}: picamera2 is installed but does not load ({error}); {remedy}")
