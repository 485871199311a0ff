"""USB cameras, through Video4Linux."""

import errno
import fcntl
import logging
import os
import struct
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from edgepose.clock import boottime_ns
from edgepose.datatypes import Image
from edgepose.errors import SourceBusyError, SourceError, SourceNotFoundError, SourceStalledError
from edgepose.protocols import FrameDemand, FrameStream
from edgepose.sources._base import DamageCounter, camera_frames, warn_if_adjusted
from edgepose.sources._opencv import SELECT_TIMEOUT_S, open_capture, to_rgb
from edgepose.sources._video import JpegDecoder

log = logging.getLogger(__name__)

BY_PORT: Final = Path("/dev/v4l/by-path")
"""Device names by USB port. The names by maker and model are the same for two cameras alike."""
MAX_FAILED_READS: Final = 10
"""A damaged image now and then is usual on a poor cable; this many in a row are a fault."""

_MJPG: Final = cv2.VideoWriter.fourcc(*"MJPG")
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO})
_OPEN_FLAGS: Final = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
# linux/videodev2.h
_VIDIOC_QUERYCAP: Final = 0x80685600
_VIDIOC_REQBUFS: Final = 0xC0145608
_CAPABILITIES: Final = struct.Struct("16s32s32sIII3I")
_REQUEST_BUFFERS: Final = struct.Struct("IIIII")
_CAP_VIDEO_CAPTURE: Final = 0x1
_CAP_VIDEO_CAPTURE_MPLANE: Final = 0x1000
_CAP_DEVICE_CAPS: Final = 0x80000000
_BUF_TYPE_VIDEO_CAPTURE: Final = 1
_MEMORY_MMAP: Final = 1

known_ports: Final[dict[str, Path]] = {}
"""The USB port of each device's camera when this process last opened it.

A source is built anew for every attempt, so it cannot remember the port itself.
"""


@dataclass
class UsbCameraSource:
    """Reads a USB camera; size and rate are requests, and the camera may choose others.

    `description` is its device. A camera that was unplugged may come back as another /dev/video* if
    the old one is still in use: it is found by the port it was connected to.
    """

    description: str
    size_wh: tuple[int, int] = (640, 480)
    fps: float | None = None
    live = True

    def frames(self) -> FrameStream:
        """Yield frames as they arrive."""
        node = _current_node(self.description)
        name = _probe(node)
        with open_capture(node, cv2.CAP_V4L2) as capture:
            self._configure(capture, name)
            _remember_port(self.description, node)
            with closing(DamageCounter(self.description, live=True)) as damage:
                reader = _Reader(capture, damage)
                yield from camera_frames(partial(self._read, reader, node))

    def _configure(self, capture: cv2.VideoCapture, name: str) -> None:
        # JPEG, since USB 2 has no bandwidth for more than uncompressed 640x480 at 30 fps. The
        # format first: the available sizes depend on it.
        capture.set(cv2.CAP_PROP_FOURCC, _MJPG)
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, self.size_wh[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self.size_wh[1])
        if self.fps:
            capture.set(cv2.CAP_PROP_FPS, self.fps)
        device = self.description
        if not capture.isOpened():
            raise SourceError(
                f"{device}: the camera ({name}) has no image format that OpenCV reads; "
                f"`v4l2-ctl -d {device} --list-formats-ext` lists its formats"
            )
        actual_wh = (
            round(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        )
        fps = capture.get(cv2.CAP_PROP_FPS)
        log.info("%s: %s, %dx%d at %.3g fps", device, name, *actual_wh, fps)
        warn_if_adjusted(device, self.size_wh, actual_wh)

    def _read(
        self, reader: "_Reader", node: str, demand: FrameDemand | None
    ) -> tuple[Image, int] | None:
        for _ in range(MAX_FAILED_READS):
            started_ns = boottime_ns()
            grabbed = reader.grab()
            if grabbed and demand is not None and not demand.wanted():
                return None
            image = reader.retrieve() if grabbed else None
            if image is not None:
                return image, reader.driver_ns
            waited_s = (boottime_ns() - started_ns) / 1e9
            try:
                os.close(os.open(node, _OPEN_FLAGS))
            except OSError as error:
                if error.errno in _GONE:
                    raise SourceNotFoundError(
                        f"{self.description}: the camera was unplugged"
                    ) from error
            if waited_s >= SELECT_TIMEOUT_S / 2:
                raise SourceStalledError(
                    f"{self.description}: no frame for {waited_s:.0f} s; plug the camera in again, "
                    "and check `dmesg` for messages of uvcvideo"
                )
        raise SourceError(
            f"{self.description}: {MAX_FAILED_READS} frames in a row could not be read; another "
            "cable, or a lower width and height, may help"
        )


class _Reader:
    """Reads the images of a capture, JPEG undecoded: OpenCV's decoder prints each damage."""

    def __init__(self, capture: cv2.VideoCapture, damage: DamageCounter) -> None:
        self._capture = capture
        self._damage = damage
        self._decoder: JpegDecoder | None = None
        if round(capture.get(cv2.CAP_PROP_FOURCC)) == _MJPG:
            capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
            self._decoder = JpegDecoder()

    @property
    def driver_ns(self) -> int:
        """When the driver began to fill the buffer: for V4L2, that is the position."""
        return round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)

    def grab(self) -> bool:
        """Wait for the next image; return False if it could not be read."""
        return self._capture.grab()

    def retrieve(self) -> Image | None:
        """Return the image that was grabbed as RGB, or None if it could not be read."""
        read, array = self._capture.retrieve()
        if not read or array is None:
            return None
        data = array.astype(np.uint8, copy=False)
        if self._decoder is None or data.ndim == 3:
            return to_rgb(data)
        image, damaged = self._decoder.decode(data.tobytes())
        if damaged:
            self._damage.add()
        return image


def _current_node(device: str) -> str:
    """Return the device node at which a device's camera is now."""
    port = known_ports.get(device)
    if port is None or not port.exists():
        return device
    node = str(port.resolve())
    if node != str(Path(device).resolve()):
        log.warning("%s: the camera is %s since it was plugged in again", device, node)
    return node


def _remember_port(device: str, node: str) -> None:
    path = Path(node).resolve()
    for name in BY_PORT.glob("*"):
        if name.resolve() == path:
            known_ports[device] = name
            return


def _probe(device: str) -> str:
    """Return a camera's name; raises SourceError with the reason that OpenCV would hide."""
    try:
        with os.fdopen(os.open(device, _OPEN_FLAGS), "r+b", buffering=0) as node:
            return _check_node(device, node.fileno())
    except SourceError:
        raise
    except OSError as error:
        raise _open_error(device, error) from error


def _check_node(device: str, node: int) -> str:
    """Return the name of a camera that can be read; raises OSError or SourceError for others."""
    answer = bytearray(_CAPABILITIES.size)
    fcntl.ioctl(node, _VIDIOC_QUERYCAP, answer)
    _, card, _, _, of_driver, of_node, *_ = _CAPABILITIES.unpack(answer)
    name = str(card.rstrip(b"\0"), "utf-8", "replace")
    capabilities = of_node if of_driver & _CAP_DEVICE_CAPS else of_driver
    if not capabilities & (_CAP_VIDEO_CAPTURE | _CAP_VIDEO_CAPTURE_MPLANE):
        raise SourceError(
            f"{device}: this node of {name} delivers no images (cameras have a second one for "
            f"metadata); {_available()}"
        )
    if capabilities & _CAP_VIDEO_CAPTURE:
        # Several programs can open a camera, but only one can have its buffers: request some to
        # find out whether another program has them, and free them.
        for count in (1, 0):
            request = _REQUEST_BUFFERS.pack(count, _BUF_TYPE_VIDEO_CAPTURE, _MEMORY_MMAP, 0, 0)
            try:
                fcntl.ioctl(node, _VIDIOC_REQBUFS, bytearray(request))
            except OSError as error:
                if error.errno == errno.EBUSY or error.errno in _GONE:
                    raise
                break
    return name


def _open_error(device: str, error: OSError) -> SourceError:
    if error.errno in _GONE:
        return SourceNotFoundError(f"{device}: no such camera; is it plugged in? {_available()}")
    if error.errno == errno.EBUSY:
        return SourceBusyError(
            f"{device}: another program uses the camera; `fuser -v {device}` names it"
        )
    if isinstance(error, PermissionError):
        return SourceError(
            f"{device}: no permission; add this user to the group video "
            "(`sudo usermod -aG video $USER`) and log in again"
        )
    if error.errno == errno.ENOTTY:
        return SourceError(f"{device}: expected a camera, this is another device")
    return SourceError(f"{device}: cannot open the camera: {error.strerror}")


def _available() -> str:
    """Return the video devices as text, by the names that survive replugging if there are any."""
    for folder, pattern in ((Path("/dev/v4l/by-id"), "*"), (Path("/dev"), "video*")):
        found = sorted(str(path) for path in folder.glob(pattern))
        if found:
            return f"available: {', '.join(found)}"
    return "there is no /dev/video* at all"
