"""Faults of a network camera, which is an RTSP server of GStreamer."""

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from edgepose.sources.synthetic import SyntheticSource
from tests.chaos.daemon_run import Line
from tests.chaos.judge import Row
from tests.chaos.observer import wait
from tests.chaos.proxy import TcpProxy
from tests.chaos.registry import UnavailableError, fault
from tests.chaos.rig import MAIN_FPS, SIZE_WH, TOPICS, Rig, is_installed
from tests.media import ffmpeg, save, write_video

PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).parents[1] / "rtsp_server.py"
NEEDS = "gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad python3-gi"
_H264 = (
    *("-c:v", "libx264", "-preset", "ultrafast", "-g", "10"),
    # One slice a frame: with several, GStreamer ends some frames early.
    *("-tune", "zerolatency", "-threads", "1", "-pix_fmt", "yuv420p"),
)
_SECONDS = 45
_FIRST_SIZE_S = 14
"""Long enough for the daemon to start meanwhile."""
_NOSE_TOLERANCE = 0.05
_NOTICE_S = 6.0
"""How soon a silent camera is noticed at the latest; its frames are missed after 5 s."""
_AWAY_S = 3.0


@fault("camera-stall", "Camera: the stream stops, the connection stays")
def _stall(folder: Path, row: Row) -> Row:
    with _camera(folder) as camera:
        gone_s = time.monotonic()
        camera.server.send_signal(signal.SIGSTOP)
        _wait_until_detected(camera.rig, row, gone_s)
        time.sleep(_AWAY_S)
        camera.server.send_signal(signal.SIGCONT)
        back_s = time.monotonic()
        row.resumed_s = camera.rig.next_pose(back_s) - back_s
        return camera.rig.evaluate(row)


@fault("camera-unplug", "Camera: switched off and on again")
def _unplug(folder: Path, row: Row) -> Row:
    with _camera(folder) as camera:
        gone_s = time.monotonic()
        camera.end()
        _wait_until_detected(camera.rig, row, gone_s)
        time.sleep(_AWAY_S)
        camera.start()
        back_s = time.monotonic()
        row.resumed_s = camera.rig.next_pose(back_s) - back_s
        return camera.rig.evaluate(row)


def _wait_until_detected(rig: Rig, row: Row, gone_s: float) -> None:
    status = rig.observer.wait_for(
        TOPICS.status("main"), lambda text: text != b"online", after_s=gone_s
    )
    row.detected_s = status.at_s - gone_s
    if row.detected_s > _NOTICE_S:
        row.failures.append(f"noticed after {row.detected_s:.1f} s, at most {_NOTICE_S:g} s")
    presence = rig.observer.wait_for(
        TOPICS.presence("main"), lambda text: text == b"OFF", after_s=gone_s
    )
    if presence.at_s - status.at_s > 1:
        row.failures.append("presence stayed ON while the camera was away")
    # The other camera is not affected.
    rig.next_pose(status.at_s, camera="door")


@fault("size-smaller", "Camera: the stream goes on with smaller frames")
def _smaller(folder: Path, row: Row) -> Row:
    return _changes_size(folder, row, (SIZE_WH[0] // 2, SIZE_WH[1] // 2))


@fault("size-larger", "Camera: the stream goes on with larger frames")
def _larger(folder: Path, row: Row) -> Row:
    return _changes_size(folder, row, (SIZE_WH[0] * 2, SIZE_WH[1] * 2))


def _changes_size(folder: Path, row: Row, size_wh: tuple[int, int]) -> Row:
    """Change the size within the stream, of a person who stands still: the pose stays there."""
    pipeline = _pipeline(_clip_of_two_sizes(folder, size_wh), "tsdemux")
    with _camera(folder, pipeline) as camera:
        rig = camera.rig

        def poses(of_wh: tuple[int, int]) -> list[Line]:
            return [
                line
                for line in list(rig.daemon.lines)
                if line.message.camera == "main"
                and line.message.poses
                and (line.message.frame.width, line.message.frame.height) == of_wh
            ]

        wait(lambda: poses(size_wh), f"poses in frames of {size_wh[0]} x {size_wh[1]}", 40.0)
        rig.next_pose(time.monotonic())
        before, after = poses(SIZE_WH), poses(size_wh)
        row.resumed_s = after[0].at_s - before[-1].at_s
        expected, found = _nose(before[-1]), np.array([_nose(line) for line in after])
        off = float(np.abs(found - expected).max())
        row.remarks.append(f"the nose moved by {off:.3f} of the frame at most")
        if not off < _NOSE_TOLERANCE:
            row.failures.append(f"the nose moved by {off:.3f} of the frame with its size")
        return rig.evaluate(row)


def _nose(line: Line) -> Sequence[float]:
    """Return x and y of the nose, NaN if it was not found."""
    return (line.message.poses[0].keypoints[0] or (np.nan, np.nan))[:2]


def _clip_of_two_sizes(folder: Path, size_wh: tuple[int, int]) -> Path:
    """Write a person who stands still, in the usual size and then in another one."""
    still = next(SyntheticSource(size_wh=SIZE_WH, fps=MAIN_FPS, live=False).frames()).image
    image, clip = save(folder / "still.png", still), folder / "main.ts"
    with clip.open("wb") as file:
        for (width, height), first_s, seconds in (
            (SIZE_WH, 0, _FIRST_SIZE_S),
            (size_wh, _FIRST_SIZE_S, _SECONDS),
        ):
            part = folder / "part.ts"
            ffmpeg(
                *("-loop", "1", "-framerate", str(MAIN_FPS), "-i", image, "-t", str(seconds)),
                *("-vf", f"scale={width}:{height}", *_H264, "-output_ts_offset", str(first_s)),
                part,
            )
            file.write(part.read_bytes())
    return clip


def _moving_clip(folder: Path) -> Path:
    """Write the synthetic person in motion."""
    source = SyntheticSource(size_wh=SIZE_WH, fps=MAIN_FPS, live=False)
    # The motion repeats after 8 s.
    images = [frame.image for frame in islice(source.frames(), 160)]
    raw = write_video(
        folder / "main.avi", islice(cycle(images), _SECONDS * MAIN_FPS), float(MAIN_FPS)
    )
    clip = folder / "main.mp4"
    ffmpeg("-i", raw, *_H264, clip)
    raw.unlink()
    return clip


def _pipeline(clip: Path, demultiplexer: str) -> str:
    """Return GStreamer's description of a server that plays a clip."""
    return (
        f"( filesrc location={clip} ! {demultiplexer} ! h264parse ! "
        "rtph264pay config-interval=-1 name=pay0 )"
    )


class _Camera:
    """An RTSP server behind a proxy, so that its address stays the same.

    A second client watches all the time, so that the stream goes on while the daemon is away.
    """

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        self.start(first=True)
        self.rig: Rig

    def start(self, *, first: bool = False) -> None:
        """Switch it on."""
        self.server = subprocess.Popen(
            [PYTHON, str(SERVER), self._pipeline], stdout=subprocess.PIPE, text=True
        )
        assert self.server.stdout is not None
        port = int(self.server.stdout.readline())
        self.server.stdout.close()
        self.viewer = subprocess.Popen(
            [
                *("ffmpeg", "-v", "quiet", "-rtsp_transport", "tcp"),
                *("-i", f"rtsp://127.0.0.1:{port}/live", "-c", "copy", "-f", "null", "-"),
            ],
            stdin=subprocess.DEVNULL,
        )
        if first:
            self.proxy = TcpProxy(port)
        else:
            self.proxy.target = port
            self.proxy.unblock()

    def end(self) -> None:
        """Switch it off."""
        self.proxy.block()
        for process in (self.server, self.viewer):
            process.kill()
            process.wait()


@contextmanager
def _camera(folder: Path, pipeline: str | None = None) -> Iterator[_Camera]:
    """Yield a camera and the rig around it; by default it shows the synthetic person in motion."""
    code = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if (
        not (is_installed("ffmpeg") and Path(PYTHON).exists())
        or subprocess.run([PYTHON, "-c", code], capture_output=True, check=False).returncode
    ):
        raise UnavailableError(
            f"needs ffmpeg and GStreamer's RTSP server: apt install ffmpeg {NEEDS}"
        )
    camera = _Camera(pipeline or _pipeline(_moving_clip(folder), "qtdemux"))
    try:
        with (
            camera.proxy,
            Rig(folder, main=f"rtsp://127.0.0.1:{camera.proxy.port}/live") as camera.rig,
        ):
            yield camera
    finally:
        camera.server.send_signal(signal.SIGCONT)
        camera.end()
