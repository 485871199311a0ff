"""The camera: whether it is there and free, and what it shows."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from edgepose.build import source_opener
from edgepose.config.schema import Config
from edgepose.config.source_uri import parse_source_uri
from edgepose.datatypes import Frame
from edgepose.diagnostics.report import Check, failed
from edgepose.diagnostics.system import daemon_pid
from edgepose.errors import EdgeposeError, SourceBusyError, UsageError
from edgepose.protocols import FrameSource
from edgepose.util.process import processes_using

MEASURED_S: Final = 1.0
"""How long frames are counted; the exposure of a camera settles in that time."""
DARK: Final = 12.0
"""The mean brightness, of 255, below which a frame is dark."""
UNIFORM: Final = 4.0
"""The standard deviation, of 255, below which a frame shows nothing: a lid, or a wall."""
_CAMERA_NODES: Final = ("media*", "video*")


def check_camera(config: Config, name: str) -> Iterator[Check]:
    """Open a camera, take its frames for a second, and close it."""
    check = f"camera {name}"
    camera = next(camera for camera in config.cameras if camera.name == name)
    uri = parse_source_uri(camera.source)
    try:
        source = source_opener(camera)()
        frame, fps = _look(source)
    except SourceBusyError as error:
        yield _busy(check, config, error)
    except UsageError as error:
        yield failed(check, error, "correct the source of the camera in the configuration")
    except EdgeposeError as error:
        yield failed(check, error, "check the camera, and the source in the configuration")
    else:
        width, height = frame.size_wh
        rate = f" at {fps:.1f} frames a second" if fps else ""
        yield _seen(check, frame, f"{uri}: {width}x{height}{rate}")


def _look(source: FrameSource) -> tuple[Frame, float | None]:
    """Return the last frame of a second, and the frame rate of a live source."""
    with closing(source.frames()) as frames:
        frame = first = next(frames)
        if not source.live:
            return frame, None
        started, count = time.monotonic(), 0
        while time.monotonic() - started < MEASURED_S:
            frame = next(frames, frame)
            count += 1
        elapsed_ns = frame.timestamp_ns - first.timestamp_ns
    return frame, count * 1e9 / elapsed_ns if elapsed_ns else None


def _seen(check: str, frame: Frame, what: str) -> Check:
    mean, deviation = float(frame.image.mean()), float(frame.image.std())
    if mean < DARK:
        return Check(
            check,
            "warning",
            f"{what}, but it is dark (brightness {mean:.0f} of 255)",
            "switch a light on, or remove the lens cap; in the dark use an infrared camera",
        )
    if deviation < UNIFORM:
        return Check(
            check,
            "warning",
            f"{what}, but it shows nothing (one even colour)",
            "remove what covers the lens, and check that it points into the room",
        )
    return Check(check, "ok", what)


def _busy(check: str, config: Config, error: SourceBusyError) -> Check:
    nodes = [path for pattern in _CAMERA_NODES for path in sorted(Path("/dev").glob(pattern))]
    users = processes_using(nodes)
    own = daemon_pid(config)
    if own is not None and (own in users or not users):
        return Check(check, "ok", f"in use by edgepose itself (process {own})")
    named = ", ".join(f"{name} (process {pid})" for pid, name in users.items())
    message = str(error).partition("; ")[0]
    if not named:
        return failed(check, error)
    return Check(check, "error", f"{message}: {named}", "stop that program, then try again")
