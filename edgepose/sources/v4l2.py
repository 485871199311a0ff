"""USB cameras, through Video4Linux."""

import errno
import fcntl
import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cv2

from edgepose.clock import boottime_ns
from edgepose.datatypes import Frame
from edgepose.errors import (
    SourceBusyError,
    SourceError,
    SourceNotFoundError,
    SourceStalledError,
)
from edgepose.sources._base import CaptureClock
from edgepose.sources._opencv import SELECT_TIMEOUT_S, open_capture, read_rgb
from edgepose.util.resource import Resource

log = logging.getLogger(__name__)

BY_PORT: Final = Path("/dev/v4l/by-path")
"""Names by the port a camera is plugged into; of two alike, those by its maker and model are one's
own only until it is unplugged."""

MAX_FAILED_READS: Final = 10
"""A damaged picture now and then is usual on a poor cable; this many in a row are a fault."""

_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO})
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


# The port at which this process found a device's camera. Sources are made afresh for every try.
_ports: Final[dict[str, Path]] = {}


class UsbCameraSource(Resource):
    """Reads a USB camera; size and rate are wishes that the camera may answer with others.

    A camera that was unplugged, or fell off the bus for a moment, may come back as another
    /dev/video*, since the old one is still in use then: it is looked for at the port it was at.
    """

    live = True

    def __init__(
        self, device: str, *, size_wh: tuple[int, int] = (640, 480), fps: float | None = None
    ) -> None:
        self.description = device
        self._device = self._node = device
        self._size_wh = size_wh
        self._fps = fps
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> None:
        """Open the camera; raises SourceError with the reason and the remedy."""
        self._node = _node_of(self._device)
        card = _probe(self._node)
        capture = open_capture(self._node, cv2.CAP_V4L2, [])
        self._capture = capture
        # Uncompressed, USB 2 has room for 640x480 at 30 fps and no more; and the format first,
        # since the sizes depend on it.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._size_wh[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._size_wh[1])
        if self._fps:
            capture.set(cv2.CAP_PROP_FPS, self._fps)
        if not capture.isOpened():
            self.close()
            raise SourceError(
                f"{self._device}: the camera ({card}) offers no picture format that OpenCV reads; "
                f"`v4l2-ctl -d {self._device} --list-formats-ext` lists what it has"
            )
        _remember_port(self._device, self._node)
        settled_wh = (
            round(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        )
        log.info(
            "%s: %s, %dx%d at %.3g fps",
            self._device,
            card,
            *settled_wh,
            capture.get(cv2.CAP_PROP_FPS),
        )
        if settled_wh != self._size_wh:
            log.warning(
                "%s: asked for %dx%d, the camera delivers %dx%d",
                self._device,
                *self._size_wh,
                *settled_wh,
            )

    def close(self) -> None:
        """Release the camera."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def frames(self) -> Iterator[Frame]:
        """Yield frames; raises SourceStalledError in silence and SourceError when unplugged."""
        clock = CaptureClock()
        sequence = failed = 0
        while self._capture is not None:
            asked_ns = boottime_ns()
            image = read_rgb(self._capture)
            if image is None:
                failed += 1
                self._give_up_where_hopeless(failed, (boottime_ns() - asked_ns) / 1e9)
                continue
            failed = 0
            # For V4L2 the position is the moment at which the driver began to fill the buffer.
            told_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
            yield Frame(image, clock.stamp(told_ns), sequence)
            # While the next one is awaited, this one belongs to whoever took it.
            del image
            sequence += 1

    def _give_up_where_hopeless(self, failed: int, waited_s: float) -> None:
        """Tell unplugged, silent and damaged apart after a read without a picture."""
        device = self._device
        try:
            os.close(os.open(self._node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            if error.errno in _GONE:
                raise SourceNotFoundError(f"{device}: the camera was unplugged") from error
        if waited_s >= SELECT_TIMEOUT_S / 2:
            raise SourceStalledError(
                f"{device}: no frame for {waited_s:.0f} s; plug the camera in again, and look for "
                "messages of uvcvideo in `dmesg`"
            )
        if failed >= MAX_FAILED_READS:
            raise SourceError(
                f"{device}: {failed} frames in a row could not be read; another cable, or a lower "
                "width and height, may help"
            )


def _node_of(device: str) -> str:
    """Return where a device's camera is now."""
    port = _ports.get(device)
    # Without a camera at that port, the configured device is whatever it says it is.
    if port is None or not port.exists():
        return device
    node = str(port.resolve())
    if node != str(Path(device).resolve()):
        log.warning("%s: the camera is %s since it was plugged in again", device, node)
    return node


def _remember_port(device: str, node: str) -> None:
    """Note the port of a camera that is open."""
    place = Path(node).resolve()
    for name in BY_PORT.glob("*"):
        if name.resolve() == place:
            _ports[device] = name
            return


def _probe(device: str) -> str:
    """Return a camera's name; raises SourceError with what OpenCV would not tell."""
    try:
        node = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _sentence(device, error) from error
    try:
        answer = bytearray(_CAPABILITIES.size)
        try:
            fcntl.ioctl(node, _VIDIOC_QUERYCAP, answer)
        except OSError as error:
            if error.errno in _GONE:
                raise _sentence(device, error) from error
            raise SourceError(f"{device}: expected a camera, this is another device") from error
        _, card, _, _, of_driver, of_node, *_ = _CAPABILITIES.unpack(answer)
        name = str(card.rstrip(b"\0"), "utf-8", "replace")
        capabilities = of_node if of_driver & _CAP_DEVICE_CAPS else of_driver
        if not capabilities & (_CAP_VIDEO_CAPTURE | _CAP_VIDEO_CAPTURE_MPLANE):
            raise SourceError(
                f"{device}: this node of {name} delivers no pictures (cameras have a second one "
                f"for metadata); {_devices()}"
            )
        if capabilities & _CAP_VIDEO_CAPTURE:
            # Several programs may open a camera; only one may have its buffers.
            for count in (1, 0):
                wish = bytearray(
                    _REQUEST_BUFFERS.pack(count, _BUF_TYPE_VIDEO_CAPTURE, _MEMORY_MMAP, 0, 0)
                )
                try:
                    fcntl.ioctl(node, _VIDIOC_REQBUFS, wish)
                except OSError as error:
                    if error.errno == errno.EBUSY or error.errno in _GONE:
                        raise _sentence(device, error) from error
                    break
    finally:
        os.close(node)
    return name


def _sentence(device: str, error: OSError) -> SourceError:
    if error.errno in _GONE:
        return SourceNotFoundError(f"{device}: no such camera; is it plugged in? {_devices()}")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return SourceError(
            f"{device}: no permission; add this user to the group video "
            "(`sudo usermod -aG video $USER`) and log in again"
        )
    if error.errno == errno.EBUSY:
        return SourceBusyError(
            f"{device}: another program holds the camera; `fuser -v {device}` names it"
        )
    return SourceError(f"{device}: cannot open the camera: {error.strerror}")


def _devices() -> str:
    """Say which nodes there are, by the names that outlive replugging where there are any."""
    for folder, pattern in ((Path("/dev/v4l/by-id"), "*"), (Path("/dev"), "video*")):
        found = sorted(str(path) for path in folder.glob(pattern))
        if found:
            return f"there are {', '.join(found)}"
    return "there is no /dev/video* at all"
