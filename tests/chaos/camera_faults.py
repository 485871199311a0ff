"""A network camera falls silent, or is switched off; GStreamer's server is the camera."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

from edgepose.sources.synthetic import SyntheticSource
from tests.chaos.gate import Gate
from tests.chaos.judge import Row
from tests.chaos.registry import NotHereError, fault
from tests.chaos.stage import MAIN_FPS, SIZE_WH, TOPICS, Stage, tool
from tests.media import ffmpeg, write_video

PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).parents[1] / "rtsp_server.py"
NEEDS = "gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad python3-gi"
_SECONDS = 45
_AWAY_S = 3.0


@fault("camera-stall", "Camera: the stream falls silent, the connection stays")
def _stall(folder: Path, row: Row) -> Row:
    with _camera(folder) as camera:
        gone_s = time.monotonic()
        camera.server.send_signal(signal.SIGSTOP)
        _notice(camera.stage, row, gone_s)
        time.sleep(_AWAY_S)
        camera.server.send_signal(signal.SIGCONT)
        back_s = time.monotonic()
        row.resumed_s = camera.stage.next_pose(back_s) - back_s
        return camera.stage.judged(row)


@fault("camera-unplug", "Camera: switched off, later on again")
def _unplug(folder: Path, row: Row) -> Row:
    with _camera(folder) as camera:
        gone_s = time.monotonic()
        camera.end()
        _notice(camera.stage, row, gone_s)
        time.sleep(_AWAY_S)
        camera.start()
        back_s = time.monotonic()
        row.resumed_s = camera.stage.next_pose(back_s) - back_s
        return camera.stage.judged(row)


def _notice(stage: Stage, row: Row, gone_s: float) -> None:
    told = stage.observer.wait_for(
        TOPICS.status("main"), lambda text: text != b"online", after_s=gone_s
    )
    row.noticed_s = told.at_s - gone_s
    presence = stage.observer.wait_for(
        TOPICS.presence("main"), lambda text: text == b"OFF", after_s=gone_s
    )
    if presence.at_s - told.at_s > 1:
        row.failures.append("presence stayed ON while the camera was away")
    # The other camera sees on.
    stage.next_pose(told.at_s, camera="door")


class _Camera:
    """An RTSP server behind a gate, so that it comes back at the same address."""

    def __init__(self, clip: Path) -> None:
        self._pipeline = f"( filesrc location={clip} ! qtdemux ! h264parse ! rtph264pay name=pay0 )"
        self.start(first=True)
        self.stage: Stage

    def start(self, *, first: bool = False) -> None:
        """Switch it on."""
        self.server = subprocess.Popen(
            [PYTHON, str(SERVER), self._pipeline], stdout=subprocess.PIPE, text=True
        )
        assert self.server.stdout is not None
        port = int(self.server.stdout.readline())
        self.server.stdout.close()
        if first:
            self.gate = Gate(port)
        else:
            self.gate.target = port
            self.gate.open()

    def end(self) -> None:
        """Switch it off."""
        self.gate.shut()
        self.server.kill()
        self.server.wait()


@contextmanager
def _camera(folder: Path) -> Iterator[_Camera]:
    code = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if (
        not (tool("ffmpeg") and Path(PYTHON).exists())
        or subprocess.run([PYTHON, "-c", code], capture_output=True, check=False).returncode
    ):
        raise NotHereError(f"needs ffmpeg and GStreamer's RTSP server: apt install ffmpeg {NEEDS}")
    source = SyntheticSource(size_wh=SIZE_WH, fps=MAIN_FPS, frame_count=160, realtime=False)
    with source:
        # The motion repeats after 8 s.
        images = [frame.image for frame in source.frames()]
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
            camera.gate,
            Stage(folder, main=f"rtsp://127.0.0.1:{camera.gate.port}/live") as camera.stage,
        ):
            yield camera
    finally:
        camera.server.send_signal(signal.SIGCONT)
        camera.end()
