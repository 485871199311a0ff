"""Faults of a network camera, which is an RTSP server of GStreamer."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

from edgepose.sources.synthetic import SyntheticSource
from tests.chaos.judge import Row
from tests.chaos.proxy import TcpProxy
from tests.chaos.registry import UnavailableError, fault
from tests.chaos.rig import MAIN_FPS, SIZE_WH, TOPICS, Rig, is_installed
from tests.media import ffmpeg, write_video

PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).parents[1] / "rtsp_server.py"
NEEDS = "gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad python3-gi"
_SECONDS = 45
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
    presence = rig.observer.wait_for(
        TOPICS.presence("main"), lambda text: text == b"OFF", after_s=gone_s
    )
    if presence.at_s - status.at_s > 1:
        row.failures.append("presence stayed ON while the camera was away")
    # The other camera is not affected.
    rig.next_pose(status.at_s, camera="door")


class _Camera:
    """An RTSP server behind a proxy, so that its address stays the same."""

    def __init__(self, clip: Path) -> None:
        self._pipeline = f"( filesrc location={clip} ! qtdemux ! h264parse ! rtph264pay name=pay0 )"
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
        if first:
            self.proxy = TcpProxy(port)
        else:
            self.proxy.target = port
            self.proxy.unblock()

    def end(self) -> None:
        """Switch it off."""
        self.proxy.block()
        self.server.kill()
        self.server.wait()


@contextmanager
def _camera(folder: Path) -> Iterator[_Camera]:
    code = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if (
        not (is_installed("ffmpeg") and Path(PYTHON).exists())
        or subprocess.run([PYTHON, "-c", code], capture_output=True, check=False).returncode
    ):
        raise UnavailableError(
            f"needs ffmpeg and GStreamer's RTSP server: apt install ffmpeg {NEEDS}"
        )
    source = SyntheticSource(size_wh=SIZE_WH, fps=MAIN_FPS, live=False)
    # The motion repeats after 8 s.
    images = [frame.image for frame in islice(source.frames(), 160)]
    raw = write_video(
        folder / "main.avi", islice(cycle(images), _SECONDS * MAIN_FPS), float(MAIN_FPS)
    )
    clip = folder / "main.mp4"
    ffmpeg(
        *("-i", raw, "-c:v", "libx264", "-preset", "ultrafast", "-g", "10"),
        *("-tune", "zerolatency", "-pix_fmt", "yuv420p", clip),
    )
    raw.unlink()
    camera = _Camera(clip)
    try:
        with (
            camera.proxy,
            Rig(folder, main=f"rtsp://127.0.0.1:{camera.proxy.port}/live") as camera.rig,
        ):
            yield camera
    finally:
        camera.server.send_signal(signal.SIGCONT)
        camera.end()
