"""Makes picamera2 take libcamera's virtual camera for a sensor; for tests only.

Imported by a `.pth` file in every Python of the test's Debian, so that `edgepose run` itself stays
as it is. picamera2 is changed in two places when it is imported, and in no other way.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


class _Patching(importlib.abc.MetaPathFinder):
    """Changes picamera2 right after it was imported, and not before somebody wants it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "picamera2":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            execute: Any = spec.loader.exec_module

            def execute_and_patch(module: ModuleType) -> None:
                execute(module)
                _patch(module)

            spec.loader.exec_module = execute_and_patch  # type: ignore[method-assign]
        return spec


class _FrameBuffers:
    """libcamera.FrameBuffer, but one piece of memory is told as luma and chroma.

    The virtual camera fills both by name; a Pi's camera takes them as one.
    """

    def __init__(self, frame_buffer: Any) -> None:
        self.Plane = frame_buffer.Plane
        self._frame_buffer = frame_buffer

    def __call__(self, planes: Sequence[Any]) -> Any:
        (luma,) = planes
        chroma = self.Plane()
        chroma.fd = luma.fd
        chroma.length = luma.length // 3
        chroma.offset = luma.length = luma.length - chroma.length
        return self._frame_buffer([luma, chroma])


class _Libcamera:
    """libcamera, as picamera2's allocator is to see it."""

    def __init__(self, libcamera: ModuleType) -> None:
        self.FrameBuffer = _FrameBuffers(libcamera.FrameBuffer)


def _patch(picamera2: Any) -> None:
    from picamera2.allocators import dmaallocator

    dmaallocator.libcamera = _Libcamera(dmaallocator.libcamera)
    # A sensor lists its raw modes; this one has none, and picamera2 wants to know the largest.
    picamera2.Picamera2._get_raw_modes = lambda self: [{"format": "NV12", "size": (1280, 720)}]


sys.meta_path.insert(0, _Patching())
