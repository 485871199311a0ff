"""The Raspberry Pi's camera, through picamera2.

Behaviour of picamera2 that its manual does not mention was measured on 0.3.38 with libcamera 0.7,
and `tests/camera` runs against them: a configuration is adjusted silently, colour space included; a
capture that timed out leaves a job behind that swallows a later frame; `queue=True` returns a frame
that is already old; its event loop ends silently if a buffer cannot be returned; an object that
failed to open keeps a file descriptor, and the camera if it got that far; and cameras are
enumerated once.
"""

import contextlib
import gc
import importlib
import logging
import os
import sys
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, Final, Literal

from edgepose.errors import SourceBusyError, SourceError, SourceNotFoundError, SourceStalledError
from edgepose.protocols import FrameDemand, FrameStream
from edgepose.sources._base import Captured, camera_frames, warn_if_adjusted
from edgepose.sources._buffer_format import FORMATS, BufferFormat
from edgepose.sources._opencv import configure_opencv

log = logging.getLogger(__name__)

FRAME_TIMEOUT_S: Final = 1.0
TIMEOUTS_TO_STALL: Final = 3
DEFAULT_FPS: Final = 30.0
"""The frame rate of picamera2's video configuration."""
IDLE_FPS: Final = 15.0
"""The camera's rate while idle: a new rate takes effect up to three frames later, here 200 ms."""
PACKAGE_PREFIX: Final = "/usr/lib/edgepose"
"""Where the Debian package has its virtual environment, which sees the packages of the system."""
LATE_RESULT_S: Final = 0.5
"""How long a capture that was running when its time ran out may take to end."""


@dataclass
class PicameraSource:
    """Reads one stream of a Pi camera.

    `stream` lores is the camera's second, smaller stream (YUV on a Pi 4), main its first. The
    camera chooses the format and size, which are read back after configuring.
    """

    index: int
    size_wh: tuple[int, int] = (640, 480)
    fps: float | None = None
    stream: Literal["main", "lores"] = "main"
    live = True

    def __post_init__(self) -> None:
        self.description = f"picamera:{self.index}"
        # At a low frame rate the next frame is not late before it is due.
        self._timeout_s = max(FRAME_TIMEOUT_S, 2 / self.fps) if self.fps else FRAME_TIMEOUT_S
        self._idle = False
        self._camera: Any = None
        self._loop: _EventLoop
        self._format: BufferFormat

    def frames(self) -> FrameStream:
        """Yield frames as they arrive."""
        try:
            self._open()
            yield from camera_frames(self._read)
        except SourceError:
            raise
        except Exception as error:
            raise self._explained(error) from error
        finally:
            self._close()

    def _open(self) -> None:
        """Open, configure and start the camera."""
        configure_opencv()
        picamera2 = _import("picamera2", self.description)
        if not log.isEnabledFor(logging.DEBUG):
            # Our errors carry the same reasons, with the camera's name and without tracebacks.
            logging.getLogger("picamera2").setLevel(logging.CRITICAL)
        self._check_exists(picamera2.Picamera2)
        self._camera = _construct(picamera2.Picamera2, self.index)
        self._camera.configure(self._configuration())
        self._format = self._read_format()
        self._loop = _EventLoop(picamera2.Preview.NULL.value())
        self._camera.start_preview(self._loop.preview)
        self._camera.start()
        self._idle = False

    def _close(self) -> None:
        """Stop and free the camera, so that it can be opened again."""
        camera, self._camera = self._camera, None
        if camera is None:
            return
        try:
            # This also stops the camera, after its event loop: `stop` alone would wait for that
            # loop, which may have died.
            camera.close()
        except Exception as error:  # noqa: BLE001 - a broken camera may not close either
            log.warning("%s: the camera did not close properly: %s", self.description, error)
        # Its parts form a reference cycle: until Python collects it, the closed camera would keep
        # file descriptors, and libcamera its list of cameras.
        del camera
        gc.collect()

    def _read(self, demand: FrameDemand | None) -> Captured | None:
        self._slow_down(idle=demand is not None and demand.idle)
        for _ in range(TIMEOUTS_TO_STALL):
            request = self._next_request()
            if request is None:
                continue
            try:
                if demand is not None and not demand.wanted():
                    return None
                image = self._format.to_rgb(request.make_buffer(self.stream))
                return image, request.get_metadata().get("SensorTimestamp")
            finally:
                request.release()
        raise SourceStalledError(
            f"{self.description}: no frame for {TIMEOUTS_TO_STALL * self._timeout_s:.0f} s; "
            "check the ribbon cable and `dmesg` for messages of the sensor"
        )

    def _slow_down(self, *, idle: bool) -> None:
        """Let the camera deliver fewer frames while idle."""
        fps = self.fps or DEFAULT_FPS
        if idle == self._idle or fps <= IDLE_FPS:
            return
        self._idle = idle
        self._camera.set_controls(_frame_duration(IDLE_FPS if idle else fps))

    def _next_request(self) -> Any:
        """Return the next completed request, which the caller must release; None on timeout."""
        camera = self._camera
        job = camera.capture_request(wait=False)
        try:
            return camera.wait(job, self._timeout_s)
        except (TimeoutError, CancelledError):
            if self._loop.failure is not None:
                raise self._loop.failure from None
            # Without this, the job that timed out takes a later frame and keeps its buffer.
            camera.cancel_all_and_flush()
        # A frame that arrived just then is in no list any more: its buffer would be lost.
        with contextlib.suppress(CancelledError, TimeoutError):
            return camera.wait(job, LATE_RESULT_S)
        return None

    def _check_exists(self, picamera2_class: Any) -> None:
        if self.index < len(picamera2_class.global_camera_info()):
            return
        # libcamera's list of cameras is cached; one whose driver was loaded since is not in it.
        manager = getattr(picamera2_class, "_cm", None)
        if manager is not None and hasattr(manager, "reset"):
            manager.reset()
        count = len(picamera2_class.global_camera_info())
        if self.index >= count:
            raise self._not_found(f"no such camera; libcamera finds {count} of them")

    def _configuration(self) -> Any:
        options: dict[str, Any] = {"main": {"size": self.size_wh, "format": "BGR888"}}
        if self.stream == "lores":
            # main must not be smaller than lores; it has the same size and is never read.
            options["lores"] = {"size": self.size_wh, "format": "YUV420"}
            # The colour space that OpenCV converts fast; picamera2 selects another from 1280x720.
            libcamera = _import("libcamera", self.description)
            options["colour_space"] = libcamera.ColorSpace.Smpte170m()
        controls = _frame_duration(self.fps) if self.fps else {}
        return self._camera.create_video_configuration(
            **options, controls=controls, buffer_count=4, queue=False, display=None, encode=None
        )

    def _read_format(self) -> BufferFormat:
        """Return the format the camera chose; raises SourceError for an unsupported one."""
        configuration = self._camera.camera_configuration()
        chosen = configuration[self.stream]
        name, size_wh = str(chosen["format"]), tuple(chosen["size"])
        if name not in FORMATS:
            raise SourceError(
                f"{self.description}: the camera delivers {name}, expected one of "
                f"{', '.join(FORMATS)}; try the other of stream: main and lores"
            )
        warn_if_adjusted(self.description, self.size_wh, size_wh)
        return BufferFormat(name, size_wh, int(chosen["stride"]), configuration.get("colour_space"))

    def _explained(self, error: Exception) -> SourceError:
        """Return the SourceError, with a remedy, for anything that picamera2 raised."""
        name = self.description
        causes = _causes(error)
        root = causes[-1]
        text = " ".join(str(cause) for cause in causes)
        if isinstance(error, IndexError) or "No camera number" in text:
            return self._not_found("no such camera")
        if "busy" in text.lower() or "acquire" in text:
            return SourceBusyError(
                f"{name}: another program uses the camera ({root}); "
                "`fuser -v /dev/media* /dev/video*` names it"
            )
        if any(isinstance(cause, PermissionError) for cause in causes):
            return SourceError(
                f"{name}: no permission ({root}); the user must be in the group video and may need "
                "/dev/dma_heap"
            )
        return SourceError(
            f"{name}: the camera failed ({type(root).__name__}: {root}); if it happens again, "
            "check with `rpicam-hello` whether the camera works at all"
        )

    def _not_found(self, reason: str) -> SourceNotFoundError:
        return SourceNotFoundError(
            f"{self.description}: {reason}; `rpicam-hello --list-cameras` lists what is connected, "
            "check the ribbon cable and camera_auto_detect=1 in /boot/firmware/config.txt"
        )


class _EventLoop:
    """picamera2's event loop, with the error that ended it kept in `failure`."""

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
            # Wakes the thread that waits for a frame.
            camera.cancel_all_and_flush()
            # Ends the loop's thread as the error would, but without a traceback on stderr.
            raise SystemExit from error


def _frame_duration(fps: float) -> dict[str, tuple[int, int]]:
    """Return the controls that set a frame rate."""
    duration_us = round(1e6 / fps)
    return {"FrameDurationLimits": (duration_us, duration_us)}


def _construct(picamera2_class: Any, index: int) -> Any:
    """Return an open Picamera2; if its constructor fails, free what it had acquired until then."""
    camera = picamera2_class.__new__(picamera2_class)
    try:
        camera.__init__(index)
    except BaseException:
        # Half open, closing fails too, but only after it released the camera.
        with contextlib.suppress(Exception):
            camera.close()
        reader = getattr(camera, "notifymeread", None)
        # If closing got further, both ends of its pipe are closed and their numbers used again.
        if reader is not None and not reader.closed:
            with contextlib.suppress(OSError):
                reader.close()
                os.close(camera.notifyme_w)
        raise
    return camera


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and what caused it, the root cause last."""
    chain = [error]
    while True:
        last = chain[-1]
        cause = last.__cause__ or (None if last.__suppress_context__ else last.__context__)
        if cause is None or cause in chain:
            return chain
        chain.append(cause)


def _import(module: str, name: str) -> Any:
    """Import picamera2 or libcamera; raises SourceError with how to install or repair it."""
    try:
        return importlib.import_module(module)
    except Exception as error:  # a numpy that does not fit raises ValueError, libcamera other kinds
        if isinstance(error, ModuleNotFoundError) and error.name == "picamera2":
            raise SourceError(
                f"{name}: picamera2 is not installed for this Python; "
                f"`sudo apt install python3-picamera2`{_venv_remedy()}"
            ) from error
        remedy = (
            "this numpy does not fit it: on Raspberry Pi OS Bookworm keep numpy < 2"
            if "numpy" in str(error)
            else "`sudo apt install --reinstall python3-picamera2 python3-libcamera`"
        )
        raise SourceError(
            f"{name}: picamera2 is installed but cannot be imported ({error}); {remedy}"
        ) from error


def _venv_remedy() -> str:
    """Return what else is needed in an environment that the Debian package did not make."""
    if sys.prefix == PACKAGE_PREFIX:
        return ""
    return (
        ", and create the virtual environment with `python3 -m venv --system-site-packages` (for "
        "the service: `make install` again)"
    )
