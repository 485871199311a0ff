"""RtspSource with GStreamer's server, and with servers of other kinds."""

import shutil
import signal
import socket
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path

import pytest

from edgepose.config.source_uri import parse_source_uri
from edgepose.errors import SourceError, SourceLoginError, SourceStalledError
from edgepose.sources import rtsp
from edgepose.sources.rtsp import RtspSource
from tests.media import BLUE, GREEN, GREY, RED, assert_colours, ffmpeg, quarters, save
from tests.requirements import missing

SERVER = Path(__file__).parents[1] / "rtsp_server.py"
PYTHON = "/usr/bin/python3"
NEEDS = "gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good python3-gi"

Start = Callable[..., tuple[str, subprocess.Popen[str]]]


def _server_is_there() -> bool:
    code = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); import gi.repository.GstRtspServer"
    )
    return (
        shutil.which(PYTHON) is not None
        and subprocess.run([PYTHON, "-c", code], capture_output=True, check=False).returncode == 0
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not _server_is_there():
        missing(f"GStreamer's RTSP server is not installed: sudo apt install {NEEDS}")
    folder = tmp_path_factory.mktemp("rtsp")
    still, path = save(folder / "still.png", quarters(320, 240)), folder / "clip.mp4"
    ffmpeg(
        "-loop", "1", "-framerate", "25", "-i", still, "-t", "20", "-c:v", "libx264", "-g", "5",
        "-tune", "zerolatency", "-pix_fmt", "yuv420p", path,
    )  # fmt: skip
    return path


@pytest.fixture
def start(clip: Path) -> Iterator[Start]:
    servers: list[subprocess.Popen[str]] = []

    def start_(*credentials: str, pipeline: str = "") -> tuple[str, subprocess.Popen[str]]:
        pipeline = pipeline or f"filesrc location={clip} ! qtdemux ! h264parse ! rtph264pay"
        server = subprocess.Popen(
            [PYTHON, str(SERVER), f"( {pipeline} name=pay0 pt=96 )", *credentials],
            stdout=subprocess.PIPE,
            text=True,
        )
        servers.append(server)
        assert server.stdout is not None
        return f"127.0.0.1:{int(server.stdout.readline())}", server

    yield start_
    for server in servers:
        server.send_signal(signal.SIGCONT)
        server.kill()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()


def _source(url: str) -> RtspSource:
    uri = parse_source_uri(url)
    return RtspSource(uri.target, description=str(uri))


def test_rtsp_source_frames(start: Start) -> None:
    """Frames are RGB, in order, at the rate of the stream."""
    address, _ = start()
    frames = list(islice(_source(f"rtsp://{address}/live").frames(), 60))
    for frame in frames:
        assert_colours(frame.image, [RED, GREEN, BLUE, GREY], tolerance=16)
    assert [frame.sequence for frame in frames] == list(range(60))
    assert all(b.timestamp_ns > a.timestamp_ns for a, b in pairwise(frames))
    # The server sends the first ones in a burst.
    assert frames[-1].timestamp_ns - frames[0].timestamp_ns > 500_000_000


def test_rtsp_source_open_again(start: Start) -> None:
    """The source can be opened again after closing."""
    address, _ = start()
    source = _source(f"rtsp://{address}/live")
    for _ in range(2):
        assert next(source.frames()).sequence == 0


@pytest.mark.timeout(60)
def test_rtsp_source_server_silent_then_killed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent server raises SourceStalledError, a killed one SourceError."""
    monkeypatch.setattr(rtsp, "READ_TIMEOUT_S", 1.0)
    address, server = start()
    with closing(_source(f"rtsp://{address}/live").frames()) as frames:
        next(frames)
        server.send_signal(signal.SIGSTOP)
        with pytest.raises(SourceStalledError, match="silent"):
            for _ in frames:
                pass
        server.send_signal(signal.SIGCONT)
    with closing(_source(f"rtsp://{address}/live").frames()) as frames:
        next(frames)
        server.kill()
        with pytest.raises(SourceError, match="ended the stream"):
            for _ in frames:
                pass


def test_rtsp_source_authentication(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    """User and password work, wrong and missing ones are reported, and none is printed."""
    address, _ = start("admin", "S3cr3t/@")
    source = _source(f"rtsp://admin:S3cr3t%2F%40@{address}/live")
    assert next(source.frames()).sequence == 0
    assert "S3cr3t" not in source.description
    rejected = _source(f"rtsp://admin:wr0ng@{address}/live")
    with pytest.raises(SourceLoginError, match="does not accept the user and password") as caught:
        next(rejected.frames())
    assert "wr0ng" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(SourceLoginError, match="requires a user and a password"):
        next(_source(f"rtsp://{address}/live").frames())
    assert capfd.readouterr() == ("", ""), "FFmpeg would print the URL"


def test_rtsp_source_that_changes_its_size(start: Start, tmp_path: Path) -> None:
    """Frames have the size of the stream at their time, smaller and larger ones."""
    stream = tmp_path / "stream.h264"
    with stream.open("wb") as file:
        for size in ((320, 240), (160, 120), (640, 480)):
            image, part = save(tmp_path / "still.png", quarters(*size)), tmp_path / "part.h264"
            ffmpeg(
                "-loop", "1", "-framerate", "25", "-i", image, "-t", "1", "-c:v", "libx264",
                "-g", "5", "-tune", "zerolatency", "-pix_fmt", "yuv420p", part,
            )  # fmt: skip
            file.write(part.read_bytes())
    address, _ = start(
        pipeline=f"filesrc location={stream} ! h264parse config-interval=-1 ! rtph264pay"
    )
    sizes: list[tuple[int, int]] = []
    with closing(_source(f"rtsp://{address}/live").frames()) as frames:
        while sizes[-1:] != [(640, 480)]:
            frame = next(frames)
            assert_colours(frame.image, [RED, GREEN, BLUE, GREY], tolerance=16)
            sizes.append(frame.size_wh)
    assert list(dict.fromkeys(sizes)) == [(320, 240), (160, 120), (640, 480)]
    assert sizes == sorted(sizes, key=[(320, 240), (160, 120), (640, 480)].index)


def test_rtsp_source_sound_only(start: Start) -> None:
    """It is no rejected login, with a user and a password neither."""
    pipeline = "audiotestsrc is-live=true ! audio/x-raw,rate=8000 ! mulawenc ! rtppcmupay"
    address, _ = start("admin", "S3cr3t", pipeline=pipeline)
    with pytest.raises(SourceError, match="it has only sound") as caught:
        next(_source(f"rtsp://admin:S3cr3t@{address}/live").frames())
    assert not isinstance(caught.value, SourceLoginError)


def test_rtsp_source_unknown_path(start: Start) -> None:
    """The error reports that the server has no such stream."""
    address, _ = start()
    with pytest.raises(SourceError, match="no stream of that name"):
        next(_source(f"rtsp://{address}/other").frames())


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def _address(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def test_rtsp_source_closed_port(listener: socket.socket) -> None:
    """The error names the host and the port."""
    address = _address(listener)
    listener.close()
    with pytest.raises(SourceError, match=r"nothing at 127\.0\.0\.1 listens on port"):
        next(_source(f"rtsp://{address}/live").frames())


def test_rtsp_source_unknown_host() -> None:
    """The error names the host."""
    with pytest.raises(SourceError, match=r"unknown host camera\.invalid"):
        next(_source("rtsp://camera.invalid/live").frames())


@pytest.mark.parametrize("host", ["cam..lan", "c" * 64 + ".invalid"])
def test_rtsp_source_invalid_host_name(host: str) -> None:
    """An invalid host name is reported as unknown."""
    with pytest.raises(SourceError, match="unknown host"):
        next(_source(f"rtsp://{host}/live").frames())


@pytest.mark.timeout(60)
def test_rtsp_source_server_does_not_answer(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening ends within the timeouts, with the reason."""
    monkeypatch.setattr(rtsp, "OPEN_TIMEOUT_S", 0.5)
    monkeypatch.setattr(rtsp, "PROBE_TIMEOUT_S", 0.5)
    with pytest.raises(SourceError, match="does not answer"):
        next(_source(f"rtsp://{_address(listener)}/live").frames())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not an RTSP server"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not an RTSP server"),
        (b"", "not an RTSP server"),
        (b"RTSP/1.0 \r\n\r\n", "not an RTSP server"),
        (b"RTSP/1.0 503 Service Unavailable\r\nCSeq: 1\r\n\r\n", "503 Service Unavailable"),
        (b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 0\r\n\r\n", "no video"),
    ],
)
def test_rtsp_source_unexpected_answers(
    listener: socket.socket, answer: bytes, message: str
) -> None:
    """The error reports what the server answered."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with pytest.raises(SourceError, match=message):
        next(_source(f"rtsp://{_address(listener)}/live").frames())
    listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_backlog_monitor_slow_decoding(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A stream that is decoded too slowly is logged once."""
    backlog = rtsp.BacklogMonitor("rtsp://cam/live")
    for k in range(300):
        # 25 fps arrive, 20 fps are decoded.
        backlog.check(1000.0 + 50 * k, 40.0 * k)
    assert caplog.text.count("smaller stream") == 1


def test_backlog_monitor_position_restarts(caplog: pytest.LogCaptureFixture) -> None:
    """A stream whose position restarts at 0 is not reported."""
    backlog = rtsp.BacklogMonitor("rtsp://cam/live")
    for k in range(200):
        backlog.check(1000.0 + 40 * k, 40.0 * (k % 100))
    assert not caplog.text
