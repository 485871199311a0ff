"""VideoFileSource with files made by ffmpeg."""

import os
import re
import shutil
import struct
import subprocess
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgepose.daemon.capture import Capture, FrameMailbox
from edgepose.datatypes import Frame
from edgepose.errors import SourceError, SourceNotFoundError
from edgepose.sources import _base
from edgepose.sources._opencv import open_capture
from edgepose.sources.video_file import VideoFileSource
from tests.fakes.pipeline import FakePoseModel, PipelineRig
from tests.media import (
    BLUE,
    GREEN,
    GREY,
    RED,
    assert_colours,
    ffmpeg,
    number_of,
    numbered,
    quarters,
    save,
    write_video,
)


def _numbered_images(tmp_path: Path, count: int) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for k, image in enumerate(numbered(count)):
        save(folder / f"{k:03}.png", image)
    return folder / "%03d.png"


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", ["-c:v", "libx264", "-bf", "3", "-pix_fmt", "yuv420p"]),
        ("a.mkv", ["-c:v", "libx264", "-bf", "2", "-pix_fmt", "yuv420p"]),
        ("a.avi", ["-c:v", "mjpeg", "-q:v", "2"]),
        ("a.webm", ["-c:v", "libvpx", "-b:v", "1M"]),
    ],
)
def test_video_file_every_frame_in_order(tmp_path: Path, name: str, codec: list[str]) -> None:
    """Every frame arrives once, in order, with its media time."""
    path = tmp_path / name
    ffmpeg("-framerate", "20", "-i", _numbered_images(tmp_path, 40), *codec, path)
    frames = list(VideoFileSource(path).frames())
    assert [number_of(frame.image) for frame in frames] == list(range(40))
    assert [frame.sequence for frame in frames] == list(range(40))
    elapsed = [frame.timestamp_ns - frames[0].timestamp_ns for frame in frames]
    np.testing.assert_allclose(elapsed, np.arange(40) * 5e7, atol=2e6)
    assert {frame.path for frame in frames} == {str(path)}


def test_video_file_variable_frame_rate(tmp_path: Path) -> None:
    """Frames keep their media times."""
    path = tmp_path / "a.mkv"
    images = _numbered_images(tmp_path, 12)
    choose = "select='not(mod(n,3))+eq(n,1)'"
    ffmpeg("-framerate", "10", "-i", images, "-vf", choose, "-vsync", "vfr", "-c:v", "mjpeg", path)
    frames = list(VideoFileSource(path).frames())
    assert [number_of(frame.image) for frame in frames] == [0, 1, 3, 6, 9]
    elapsed = [frame.timestamp_ns - frames[0].timestamp_ns for frame in frames]
    np.testing.assert_allclose(elapsed, np.array([0, 1, 3, 6, 9]) * 1e8, atol=2e6)


def test_video_file_variable_frame_rate_looped(tmp_path: Path) -> None:
    """Frames keep their media times in every pass of a loop."""
    path = tmp_path / "a.mkv"
    choose = "select='not(mod(n,3))+eq(n,1)'"
    ffmpeg(
        "-framerate", "10", "-i", _numbered_images(tmp_path, 7), "-vf", choose, "-vsync", "vfr",
        "-c:v", "mjpeg", path,
    )  # fmt: skip
    frames = list(islice(VideoFileSource(path, loop=True).frames(), 12))
    assert [number_of(frame.image) for frame in frames] == [0, 1, 3, 6] * 3
    elapsed = np.array([frame.timestamp_ns - frames[0].timestamp_ns for frame in frames])
    for start in (4, 8):
        np.testing.assert_allclose(
            elapsed[start : start + 4] - elapsed[start], elapsed[:4], atol=2e6
        )
    assert (np.diff(elapsed) > 0).all()


def test_video_file_jump_in_timestamps(tmp_path: Path) -> None:
    """A jump of hours in a damaged file counts as one frame interval."""
    path = tmp_path / "a.mkv"
    leap = "setpts='(N+if(gte(N,4),100000,0))/(10*TB)'"
    ffmpeg(
        "-framerate", "10", "-i", _numbered_images(tmp_path, 8), "-vf", leap,
        "-vsync", "passthrough", "-c:v", "mjpeg", path,
    )  # fmt: skip
    frames = list(VideoFileSource(path).frames())
    assert [number_of(frame.image) for frame in frames] == list(range(8))
    steps = np.array([b.timestamp_ns - a.timestamp_ns for a, b in pairwise(frames)])
    assert (steps > 0).all()
    assert steps.max() < 1e9


def test_video_file_colours(tmp_path: Path) -> None:
    """Frames are RGB."""
    still, path = save(tmp_path / "still.png", quarters(320, 240)), tmp_path / "a.mp4"
    ffmpeg("-loop", "1", "-i", still, "-frames:v", "3", "-pix_fmt", "yuv420p", path)
    for frame in VideoFileSource(path).frames():
        assert_colours(frame.image, [RED, GREEN, BLUE, GREY], tolerance=16)


def _rotated(mp4: bytes, degrees: int) -> bytes:
    """Return an MP4 with a rotation matrix in its track header (ISO 14496-12, 8.3.2).

    ffmpeg's own option for it has different names in different versions.
    """
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    whole = 1 << 16
    matrix = (cosine, sine, 0, -sine, cosine, 0, 0, 0)
    packed = struct.pack(">9i", *(number * whole for number in matrix), 1 << 30)
    at = mp4.index(b"tkhd") + 44
    assert mp4.count(b"tkhd") == 1
    return mp4[:at] + packed + mp4[at + len(packed) :]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_video_file_rotation_metadata(tmp_path: Path, degrees: int) -> None:
    """The rotation in the metadata is applied as ffmpeg applies it."""
    still, plain = save(tmp_path / "still.png", quarters(320, 240)), tmp_path / "plain.mp4"
    turned, shown = tmp_path / "turned.mp4", tmp_path / "shown.png"
    ffmpeg("-loop", "1", "-i", still, "-frames:v", "3", "-pix_fmt", "yuv420p", plain)
    turned.write_bytes(_rotated(plain.read_bytes(), degrees))
    ffmpeg("-i", turned, "-frames:v", "1", shown)
    from edgepose.sources.images import read_image

    expected = read_image(shown)
    frame = next(VideoFileSource(turned).frames())
    assert frame.image.shape == expected.shape
    assert np.abs(frame.image.astype(int) - expected).mean() < 4
    assert np.abs(frame.image[60, 60].astype(int) - RED).max() > 50, "not turned at all"


@pytest.mark.parametrize("name", ["50%d off #1 ü.avi", "cam:1.avi", "-i.avi", "http:x.avi"])
def test_video_file_special_names(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that FFmpeg would take for options, patterns or URLs are opened as files."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "plain.avi", numbered(3)).rename(tmp_path / name)
    source = VideoFileSource(Path(name))
    assert len(list(source.frames())) == 3
    assert source.description == name


def test_video_file_loop(tmp_path: Path) -> None:
    """Timestamps and sequence numbers continue in the next pass."""
    path = write_video(tmp_path / "a.avi", numbered(5), fps=25)
    frames = list(islice(VideoFileSource(path, loop=True).frames(), 17))
    assert [number_of(frame.image) for frame in frames] == [k % 5 for k in range(17)]
    assert [frame.sequence for frame in frames] == list(range(17))
    steps = [b.timestamp_ns - a.timestamp_ns for a, b in pairwise(frames)]
    np.testing.assert_allclose(steps, 4e7, atol=1e6)


@pytest.mark.parametrize("replacement", [None, b"not a video"])
def test_video_file_removed_or_damaged_during_loop(
    tmp_path: Path, replacement: bytes | None
) -> None:
    """The source raises SourceError with the path when it opens the file again."""
    path = write_video(tmp_path / "a.avi", numbered(3))
    with closing(VideoFileSource(path, loop=True).frames()) as frames:
        assert [number_of(frame.image) for frame in islice(frames, 3)] == [0, 1, 2]
        if replacement is None:
            path.unlink()
        else:
            path.write_bytes(replacement)
        with pytest.raises(SourceError, match=re.escape(str(path))):
            next(frames)


def test_video_file_replaced_during_loop(tmp_path: Path) -> None:
    """The next pass plays the new file, also with another codec."""
    path = write_video(tmp_path / "a.avi", numbered(3))
    with closing(VideoFileSource(path, loop=True).frames()) as frames:
        assert len(list(islice(frames, 3))) == 3
        write_video(tmp_path / "another.mp4", numbered(13)[10:], fourcc="mp4v").rename(path)
        numbers = [number_of(frame.image) for frame in islice(frames, 3)]
        assert numbers == pytest.approx([10, 11, 12], abs=1)


def test_video_file_realtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No frame arrives before its time; after a suspend, playback continues from now."""
    now_ns = [10**12]

    def sleep(seconds: float) -> None:
        now_ns[0] += round(seconds * 1e9)

    monkeypatch.setattr(_base, "boottime_ns", lambda: now_ns[0])
    monkeypatch.setattr("time.sleep", sleep)
    path = write_video(tmp_path / "a.avi", numbered(30), fps=25)
    source = VideoFileSource(path, live=True)
    assert source.live
    with closing(source.frames()) as frames:
        for frame in islice(frames, 10):
            assert now_ns[0] == frame.timestamp_ns
        assert now_ns[0] - 10**12 == pytest.approx(9 * 4e7, abs=2e6)
        # After an hour of suspend the next frame is due now, not in the past.
        now_ns[0] += 3_600_000_000_000
        late = next(frames)
        assert late.timestamp_ns == now_ns[0]
        assert next(frames).timestamp_ns - late.timestamp_ns == pytest.approx(4e7, abs=2e6)


@pytest.mark.parametrize("container", ["a.mkv", "a.avi"])
def test_video_file_cut_short(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, container: str
) -> None:
    """The frames that are there are read, and a warning is logged."""
    path = tmp_path / container
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=4", "-c:v", "mjpeg", path)
    assert len(list(VideoFileSource(path).frames())) == 100
    assert not caplog.text
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    count = len(list(VideoFileSource(path).frames()))
    assert 40 <= count <= 55
    assert "cut short" in caplog.text
    assert str(path) in caplog.text


def test_video_file_mp4_without_index(tmp_path: Path) -> None:
    """It raises SourceError."""
    path = tmp_path / "a.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=2", path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(SourceError, match="damaged or cut short"):
        next(VideoFileSource(path).frames())


def test_video_file_audio_only(tmp_path: Path) -> None:
    """It raises SourceError."""
    path = tmp_path / "a.wav"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", path)
    with pytest.raises(SourceError, match="expected an image or a video"):
        next(VideoFileSource(path).frames())


def test_video_file_invalid_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each raises SourceError with the reason, and nothing is printed."""
    text, empty, pipe = tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "c.mp4"
    text.write_text("not a video\n" * 100)
    empty.touch()
    os.mkfifo(pipe)
    for path, message in (
        (text, "expected an image or a video"),
        (empty, "empty"),
        (pipe, "not a file"),
        (tmp_path, "not a file"),
    ):
        with pytest.raises(SourceError, match=message):
            next(VideoFileSource(path).frames())
    with pytest.raises(SourceNotFoundError, match="no such file"):
        next(VideoFileSource(tmp_path / "none.mp4").frames())
    assert capfd.readouterr() == ("", ""), "FFmpeg and OpenCV keep quiet"


@pytest.mark.parametrize("major", [4, 5])
def test_open_capture_log_level(
    tmp_path: Path, major: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV's log level is set to errors in OpenCV 4 and 5."""
    levels: list[int] = []
    monkeypatch.delenv("OPENCV_LOG_LEVEL", raising=False)
    if major == 4:
        monkeypatch.setattr(cv2, "setLogLevel", levels.append, raising=False)
    else:
        monkeypatch.delattr(cv2, "setLogLevel", raising=False)
        logging = SimpleNamespace(setLogLevel=levels.append)
        monkeypatch.setattr(cv2.utils, "logging", logging, raising=False)
    with open_capture(str(write_video(tmp_path / "a.avi", numbered(1))), cv2.CAP_FFMPEG) as capture:
        assert capture.isOpened()
    assert set(levels) == {2}, "errors only"


def test_video_file_damaged_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Frames that cannot be decoded are skipped and counted; the others are read."""
    path = write_video(tmp_path / "a.avi", numbered(6))
    data = bytearray(path.read_bytes())
    starts = [match.start() for match in re.finditer(rb"\xff\xd8\xff", data)]
    assert len(starts) == 6
    for start in (starts[2], starts[4]):
        data[start + 2 : start + 200] = b"\xff" * 198
    path.write_bytes(data)
    numbers = [number_of(frame.image) for frame in VideoFileSource(path).frames()]
    assert numbers == [0, 1, 3, 5]
    assert caplog.messages == [f"{path}: damaged frames: 2"]


def test_video_file_in_capture_thread(tmp_path: Path) -> None:
    """The capture thread loses no frame of a file."""
    path = write_video(tmp_path / "a.avi", numbered(50))
    mailbox = FrameMailbox()
    pipeline = PipelineRig(FakePoseModel(0, 0)).pipeline
    Capture("file", lambda: VideoFileSource(path), 10**10, pipeline, mailbox).start()
    numbers = []
    while (taken := mailbox.take(10)) is not None and isinstance(taken[1], Frame):
        numbers.append(number_of(taken[1].image))
    assert numbers == list(range(50))


def test_video_file_real_clips(shared_data: Path) -> None:
    """Every frame of real clips is read, with the times that ffprobe reports."""
    if shutil.which("ffprobe") is None:
        pytest.skip("ffprobe is not installed")
    for path in sorted((shared_data / "video").glob("*.m[pk][4v]")):
        output = subprocess.run(
            ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries",
             "packet=pts_time", "-of", "csv=p=0", str(path)],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        times = sorted(float(line.strip(",")) for line in output.split())
        stamps = [frame.timestamp_ns for frame in VideoFileSource(path).frames()]
        assert len(stamps) == len(times), path.name
        np.testing.assert_allclose(
            (np.array(stamps) - stamps[0]) / 1e9, np.array(times) - times[0], atol=0.002
        )
