"""The Raspberry Pi's camera, through picamera2.

What picamera2 does that its manual does not say was measured on 0.3.38 with libcamera 0.7, and
`tests/camera` runs against them: a configuration is adjusted silently, colour space included; a
capture that timed out leaves a job behind that swallows a later frame; `queue=True` hands out a
frame that is already old; its event loop ends silently where a buffer cannot be given back; an
object that failed to open keeps a file descriptor, and the camera if it got that far; and cameras
are looked for once.
"""

import contextlib
import gc
import importlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import CancelledError
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
from edgepose.sources._base import CaptureClock
from edgepose.util.resource import Resource

log = logging.getLogger(__name__)

FRAME_TIMEOUT_S: Final = 1.0
TIMEOUTS_TO_STALL: Final = 3
LATE_RESULT_S: Final = 0.5
"""How long a capture that was under way when its time ran out may take to end."""

_Convert = Literal["rgb", "bgr", "rgbx", "bgrx", "yuv420", "nv12"]
_Matrix = NDArray[np.float32]
# The weights of red and blue in luma (ITU-R BT.601, BT.709, BT.2020).
_LUMA_WEIGHTS: Final = {"Rec601": (0.299, 0.114), "Rec709": (0.2126, 0.0722),
                        "Rec2020": (0.2627, 0.0593)}  # fmt: skip
# The names say the order in a 32-bit word; in memory it is the other way round.
_FORMATS: Final[dict[str, _Convert]] = {
    "BGR888": "rgb",
    "RGB888": "bgr",
    "XBGR8888": "rgbx",
    "XRGB8888": "bgrx",
    "YUV420": "yuv420",
    "NV12": "nv12",
}


class PicameraSource(Resource):
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
        self._loop: _EventLoop | None = None
        self._format: _Convert = "rgb"
        self._width = self._height = self._stride = 0
        self._matrix: _Matrix | None = None

    def open(self) -> None:
        """Open, configure and start the camera; raises SourceError with the reason and remedy."""
        picamera2 = _import("picamera2", self.description)
        if not log.isEnabledFor(logging.DEBUG):
            # What it says, tracebacks included, is said by our errors, with the camera's name.
            logging.getLogger("picamera2").setLevel(logging.CRITICAL)
        try:
            self._find(picamera2.Picamera2)
            self._camera = _opened(picamera2.Picamera2, self._index)
            self._camera.configure(self._configuration())
            self._read_back()
            self._loop = _EventLoop(picamera2.Preview.NULL.value())
            self._camera.start_preview(self._loop.preview)
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
        # Its parts refer to each other in a circle: until Python happens to look for those, the
        # closed camera would keep descriptors, and libcamera what it knew of the cameras.
        del camera
        gc.collect()

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
                request = self._request()
                if request is None:
                    continue
                try:
                    image = self._to_rgb(request.make_buffer(self._stream))
                    return image, request.get_metadata().get("SensorTimestamp")
                finally:
                    request.release()
            except Exception as error:
                raise self._sentence(error) from error
        raise SourceStalledError(
            f"{self.description}: no frame for {TIMEOUTS_TO_STALL * self._timeout_s:.0f} s; "
            "check the ribbon cable and `dmesg` for messages of the sensor"
        )

    def _request(self) -> Any:
        """Return the next completed request, which the caller must release, or None in silence."""
        job = self._camera.capture_request(wait=False)
        try:
            return self._camera.wait(job, self._timeout_s)
        except (TimeoutError, CancelledError):
            if self._loop is not None and self._loop.failure is not None:
                raise self._loop.failure from None
            # Without this, the job that timed out takes a later frame and keeps its buffer.
            self._camera.cancel_all_and_flush()
        # A frame that came just then is in no list any more: untaken, its buffer would be lost.
        with contextlib.suppress(CancelledError, TimeoutError):
            return self._camera.wait(job, LATE_RESULT_S)
        return None

    def _find(self, kind: Any) -> None:
        """Raise SourceNotFoundError where there is no such camera."""
        if self._index < len(kind.global_camera_info()):
            return
        # What libcamera found is remembered; a camera whose driver came up since is not in it.
        manager = getattr(kind, "_cm", None)
        if manager is not None and hasattr(manager, "reset"):
            manager.reset()
        cameras = len(kind.global_camera_info())
        if self._index >= cameras:
            raise self._not_found(cameras)

    def _configuration(self) -> Any:
        wanted = {"size": self._size_wh, "format": "BGR888"}
        options: dict[str, Any] = {"main": wanted}
        if self._stream == "lores":
            # main must not be smaller than lores; it is configured alike and never read.
            options["lores"] = {"size": self._size_wh, "format": "YUV420"}
            # The one that OpenCV converts fast; from 1280x720 on picamera2 takes another.
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
        configuration = self._camera.camera_configuration()
        settled = configuration[self._stream]
        kind = _FORMATS.get(str(settled["format"]))
        if kind is None:
            raise SourceError(
                f"{self.description}: the camera delivers {settled['format']}, expected one of "
                f"{', '.join(_FORMATS)}; try the other of stream: main and lores"
            )
        self._format = kind
        self._width, self._height = settled["size"]
        self._stride = int(settled["stride"])
        self._matrix = None
        if kind in ("yuv420", "nv12"):
            self._matrix = _matrix_of(configuration.get("colour_space"))
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
                rows = chroma.reshape(height // 2, stride)[:, :width]
                pairs = np.ascontiguousarray(rows.reshape(height // 2, width // 2, 2))
                if self._matrix is not None:
                    return _yuv_to_rgb(luma, pairs, self._matrix)
                rgb = cv2.cvtColorTwoPlane(luma, pairs, cv2.COLOR_YUV2RGB_NV12)
            else:
                planes = chroma.reshape(2, height // 2, stride // 2)[:, :, : width // 2]
                if self._matrix is not None:
                    return _yuv_to_rgb(luma, np.stack((planes[0], planes[1]), -1), self._matrix)
                packed = np.concatenate((luma.reshape(-1), planes.reshape(-1)))
                rgb = cv2.cvtColor(packed.reshape(height * 3 // 2, width), cv2.COLOR_YUV2RGB_I420)
            return rgb.astype(np.uint8, copy=False)
        depth = 4 if kind in ("rgbx", "bgrx") else 3
        used = buffer[: height * stride].reshape(height, stride)[:, : width * depth]
        pixels = used.reshape(height, width, depth)
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


class _EventLoop:
    """picamera2's event loop, which remembers what it ended of."""

    def __init__(self, preview: Any) -> None:
        self.preview = preview
        self.failure: Exception | None = None
        self._handle = preview.handle_request
        preview.handle_request = self._handle_or_end

    def _handle_or_end(self, camera: Any) -> None:
        try:
            self._handle(camera)
        except Exception as error:
            self.failure = error
            # Whoever waits for a frame waits in vain.
            camera.cancel_all_and_flush()
            # Ends the thread as the error would, but for the traceback on stderr.
            raise SystemExit from error


def _opened(kind: Any, index: int) -> Any:
    """Return an open Picamera2; of one that does not open nothing stays behind."""
    camera = kind.__new__(kind)
    try:
        camera.__init__(index)
    except BaseException:
        _abandon(camera)
        raise
    return camera


def _abandon(camera: Any) -> None:
    """Give back what a Picamera2 took before its constructor failed, which it does not itself."""
    # Half open, it fails at closing too, but only after it released the camera.
    with contextlib.suppress(Exception):
        camera.close()
    reader = getattr(camera, "notifymeread", None)
    # Where closing got further, both ends of its pipe are closed, and their numbers in use again.
    if reader is not None and not reader.closed:
        with contextlib.suppress(OSError):
            reader.close()
            os.close(camera.notifyme_w)


def _matrix_of(space: Any) -> _Matrix | None:
    """Return what makes RGB of Y, Cb, Cr in a libcamera colour space; None is OpenCV's own.

    The matrix (3, 4) takes values 0..255 to values 0..255. A space that says nothing of its
    encoding is taken for OpenCV's, which is BT.601 in limited range.
    """
    encoding = getattr(getattr(space, "ycbcrEncoding", None), "name", "")
    full = getattr(getattr(space, "range", None), "name", "") == "Full"
    if encoding not in _LUMA_WEIGHTS or (encoding == "Rec601" and not full):
        return None
    red, blue = _LUMA_WEIGHTS[encoding]
    green = 1.0 - red - blue
    luma_scale, chroma_scale = (1.0, 1.0) if full else (255 / 219, 255 / 224)
    of_luma, of_cb, of_cr = np.array(
        [
            [1.0, 1.0, 1.0],
            [0.0, -2 * blue * (1 - blue) / green, 2 * (1 - blue)],
            [2 * (1 - red), -2 * red * (1 - red) / green, 0.0],
        ]
    ) * np.array([[luma_scale], [chroma_scale], [chroma_scale]])
    black = 0.0 if full else 16.0
    constant = -black * of_luma - 128.0 * (of_cb + of_cr)
    matrix: _Matrix = np.stack((of_luma, of_cb, of_cr, constant), axis=1).astype(np.float32)
    return matrix


def _yuv_to_rgb(luma: Image, chroma: Image, matrix: _Matrix) -> Image:
    """Convert luma (height, width) and Cb, Cr (height / 2, width / 2, 2) by a matrix."""
    height, width = luma.shape
    wide = cv2.resize(chroma, (width, height), interpolation=cv2.INTER_NEAREST)
    return cv2.transform(cv2.merge((luma, wide)), matrix).astype(np.uint8, copy=False)


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while True:
        last = chain[-1]
        cause = last.__cause__ or (None if last.__suppress_context__ else last.__context__)
        if cause is None or cause in chain:
            return chain
        chain.append(cause)


def _import(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "picamera2":
            raise _does_not_load(name, error) from error
        raise SourceError(
            f"{name}: picamera2 is not installed for this Python; "
            "`sudo apt install python3-picamera2`, and make the virtual environment with "
            "`python3 -m venv --system-site-packages` (for the service: `make install` again)"
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
