"""Makes picamera2 accept libcamera's virtual camera as a sensor; for tests only.

Imported by a `.pth` file in every Python of the chroot, so that `edgepose run` itself is unchanged.
picamera2 is patched in two places when it is imported.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


class _Patching(importlib.abc.MetaPathFinder):
    """Patches picamera2 right after it was imported, without importing it."""

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
    """libcamera.FrameBuffer with one piece of memory split into luma and chroma planes.

    The virtual camera fills the planes separately; a Pi's camera takes them as one.
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
    """libcamera as picamera2's allocator uses it."""

    def __init__(self, libcamera: ModuleType) -> None:
        self.FrameBuffer = _FrameBuffers(libcamera.FrameBuffer)


def _patch(picamera2: Any) -> None:
    from picamera2.allocators import dmaallocator

    dmaallocator.libcamera = _Libcamera(dmaallocator.libcamera)
    # The virtual camera has no raw modes, but picamera2 asks for the largest one.
    modes = [{"format": "NV12", "size": (1280, 720)}]
    picamera2.Picamera2._get_raw_modes = lambda self: modes  # noqa: SLF001 - has no setting for it


sys.meta_path.insert(0, _Patching())
