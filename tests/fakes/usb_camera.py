"""A fake USB camera, in place of the kernel's interface and of OpenCV's capture."""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgepose.clock import boottime_ns
from edgepose.sources import v4l2

CAPTURE, METADATA = 0x04200001, 0x04A00000


class FakeUsbCamera:
    """A USB camera with images to read, of which None is a failed read, and with faults."""

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
        self.retrieved = 0
        self._grabbed: NDArray[np.uint8] | None = None
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

    @contextmanager
    def _open(self, device: str, backend: int) -> Iterator["FakeUsbCamera"]:
        assert backend == cv2.CAP_V4L2
        self.opened.append(device)
        try:
            yield self
        finally:
            self.released += 1

    def isOpened(self) -> bool:  # noqa: N802
        return self.opens

    def set(self, name: int, value: float) -> bool:
        if name not in self.refused:
            self.properties[name] = value
        return name not in self.refused

    def get(self, name: int) -> float:
        return self.properties.get(name, 0.0)

    def grab(self) -> bool:
        self.now_ns += self.read_takes_ns
        self._grabbed = self.images.pop(0) if self.images else None
        return self._grabbed is not None

    def retrieve(self) -> tuple[bool, NDArray[np.uint8] | None]:
        self.retrieved += 1
        return True, self._grabbed
