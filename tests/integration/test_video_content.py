"""What is in a video file, and what becomes of it: sizes, orientation, times, damage, limits."""

import gc
import json
import math
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edgepose.cli.main import run_command
from edgepose.datatypes import Frame
from edgepose.errors import SourceError
from edgepose.sources import _base, _video
from edgepose.sources.video_file import VideoFileSource
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

DATA = Path(__file__).parents[1] / "data"
NOSE, LEFT_EYE, RIGHT_EYE = 0, 1, 2


def _frames(path: Path, **options: Any) -> list[Frame]:
    return list(VideoFileSource(path, **options).frames())


def _steps_ms(frames: list[Frame]) -> list[float]:
    return [(b.timestamp_ns - a.timestamp_ns) / 1e6 for a, b in pairwise(frames)]


def _messages(path: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert run_command(["estimate", str(path)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def _still(tmp_path: Path, width: int, height: int) -> list[str | Path]:
    """Return ffmpeg's arguments for one second of a still image at 10 fps."""
    image = save(tmp_path / f"{width}x{height}.png", quarters(width, height))
    return ["-loop", "1", "-framerate", "10", "-t", "1", "-i", image]


H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")


def test_estimate_video_that_becomes_smaller(capsys: pytest.CaptureFixture[str]) -> None:
    """Keypoints are those of the smaller frames, whose size is published."""
    messages = _messages(DATA / "size_down.ts", capsys)
    assert [message["frame"]["width"] for message in messages] == [384] * 15 + [192] * 25
    for message in (messages[1], messages[16]):
        (pose,) = message["poses"]
        assert math.dist(pose["keypoints"][NOSE][:2], (0.432, 0.234)) < 0.01
    assert len(messages[-1]["poses"]) == 1


def test_video_file_that_becomes_larger(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    for name, size in (("small", (160, 120)), ("large", (640, 480))):
        ffmpeg(*_still(tmp_path, *size), *H264, tmp_path / f"{name}.ts")
    path.write_bytes((tmp_path / "small.ts").read_bytes() + (tmp_path / "large.ts").read_bytes())
    frames = _frames(path)
    assert [frame.size_wh for frame in frames] == [(160, 120)] * 10 + [(640, 480)] * 10
    for frame in frames:
        assert_colours(frame.image, [RED, GREEN, BLUE, GREY], tolerance=16)
    # The second part begins with a clock of its own.
    np.testing.assert_allclose(_steps_ms(frames), 100, atol=1)


def test_estimate_video_with_a_mirroring_display_matrix(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is shown mirrored, as by ffmpeg; her left eye is still her left eye."""
    (pose,) = _messages(DATA / "mirrored_matrix.mp4", capsys)[1]["poses"]
    keypoints = pose["keypoints"]
    assert math.dist(keypoints[NOSE][:2], (1 - 0.432, 0.234)) < 0.01
    assert math.dist(keypoints[LEFT_EYE][:2], (1 - 0.480, 0.195)) < 0.01
    assert math.dist(keypoints[RIGHT_EYE][:2], (1 - 0.396, 0.191)) < 0.01


def test_video_file_gap_in_its_times() -> None:
    """Timestamps follow the video's own over a gap; in real time the wait is shortened."""
    steps = _steps_ms(_frames(DATA / "gap100.mp4"))
    assert steps[9] == pytest.approx(100_200, abs=1)
    assert sum(steps) == pytest.approx(103_800, abs=1)


def test_video_file_gap_played_in_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No frame is awaited for so long that the camera would count as stalled."""
    now_ns, waits_s = [10**12], []

    def sleep(seconds: float) -> None:
        waits_s.append(seconds)
        now_ns[0] += round(seconds * 1e9)

    monkeypatch.setattr(_base, "boottime_ns", lambda: now_ns[0])
    monkeypatch.setattr("time.sleep", sleep)
    frames = _frames(DATA / "gap100.mp4", live=True)
    assert max(waits_s) == 4.0
    steps = _steps_ms(frames)
    assert steps[9] == pytest.approx(4000, abs=1)
    assert steps[10] == pytest.approx(200, abs=1)


def test_video_file_clock_set_back(tmp_path: Path) -> None:
    """One frame interval stands for the step back, then the new times count."""
    path = tmp_path / "a.ts"
    for k, fps in enumerate((10, 5)):
        arguments = _still(tmp_path, 64, 48)
        ffmpeg(*arguments, "-vf", f"fps={fps}", *H264, "-bf", "0", tmp_path / f"{k}.ts")
    path.write_bytes((tmp_path / "0.ts").read_bytes() + (tmp_path / "1.ts").read_bytes())
    steps = _steps_ms(_frames(path))
    assert steps == pytest.approx([100] * 9 + [200] * 5, abs=1)


def test_video_file_timelapse(tmp_path: Path) -> None:
    """Frames that are minutes apart stay so."""
    path = tmp_path / "a.mkv"
    images = tmp_path / "%d.png"
    for k, image in enumerate(numbered(5)):
        save(tmp_path / f"{k}.png", image)
    ffmpeg("-framerate", "1/600", "-i", images, "-c:v", "mjpeg", path)
    assert _steps_ms(_frames(path)) == pytest.approx([600_000] * 4, abs=1)


def test_video_file_with_longer_sound_is_whole(caplog: pytest.LogCaptureFixture) -> None:
    assert len(_frames(DATA / "sound_longer.mkv")) == 20
    assert not caplog.messages


def test_video_file_with_longer_sound_cut_short(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes((DATA / "sound_longer.mkv").read_bytes()[:40_000])
    assert 0 < len(_frames(path)) < 19
    assert [message.partition(": ")[0] for message in caplog.messages] == [str(path)]
    assert "cut short" in caplog.text


def test_estimate_damaged_motion_jpeg(capfd: pytest.CaptureFixture[str]) -> None:
    """One message has the number of damaged frames; no library prints anything."""
    path = DATA / "mjpeg_corrupt.avi"
    assert run_command(["estimate", str(path)]) == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 20
    assert [line.partition(str(path))[2] for line in err.splitlines()] == [": damaged frames: 5"]


@pytest.mark.parametrize(("aspect", "width"), [("64/45", 1024), ("12/11", 785), ("1/2", 360)])
def test_video_file_with_oblong_pixels(tmp_path: Path, aspect: str, width: int) -> None:
    """Frames have square pixels: their width is scaled."""
    for name in ("a.mp4", "a.ts"):
        path = tmp_path / name
        ffmpeg(*_still(tmp_path, 720, 576), "-vf", f"setsar={aspect}", *H264, path)
        frame = _frames(path)[0]
        assert frame.size_wh == (width, 576)
        assert_colours(frame.image, [RED, GREEN, BLUE, GREY], tolerance=16)


def test_video_file_full_range_and_b_frames(tmp_path: Path) -> None:
    """White is white in full-range YUV; an AVI with B-frames has regular times."""
    path = tmp_path / "a.avi"
    ffmpeg(
        "-f", "lavfi", "-i", "color=white:size=64x48:rate=10:duration=1",
        "-vf", "scale=out_range=pc,format=yuv420p", "-color_range", "pc",
        "-c:v", "libx264", "-bf", "3", path,
    )  # fmt: skip
    frames = _frames(path)
    assert frames[0].image.min() >= 253
    assert _steps_ms(frames) == pytest.approx([100] * 9)


def test_video_file_without_times_at_the_given_rate(tmp_path: Path) -> None:
    """Raw H.264 is played at `fps`; a video with times of its own refuses it."""
    raw, timed = tmp_path / "a.h264", tmp_path / "a.mp4"
    for path in (raw, timed):
        ffmpeg(*_still(tmp_path, 64, 48), *H264, path)
    assert _steps_ms(_frames(raw, fps=4)) == pytest.approx([250] * 9)
    assert _steps_ms(_frames(raw)) == pytest.approx([100] * 9), "as the stream says"
    with pytest.raises(SourceError, match="this video has its own, leave fps out"):
        _frames(timed, fps=4)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:3,\n{video}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{video}'\n",
        "ffconcat version 1.0\nfile '{pipe}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
)
@pytest.mark.timeout(60)
def test_video_file_that_names_others(tmp_path: Path, text: str) -> None:
    """No playlist is followed: it could name addresses, or a pipe that never answers."""
    video = write_video(tmp_path / "v.avi", numbered(2))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for name in ("a.mp4", "a.m3u8", "a.ffconcat", "a.sdp"):
        path = tmp_path / name
        path.write_text(text.format(video=video, pipe=pipe))
        with pytest.raises(SourceError, match="such as a playlist"):
            _frames(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.h264", "a.mkv", "a.avi"])
def test_video_file_too_large(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before it is decoded, also if it becomes too large on the way."""
    monkeypatch.setattr(_video, "MAX_PIXELS", 320 * 240)
    path, large = tmp_path / name, tmp_path / f"large-{name}"
    codec = ("-c:v", "mjpeg") if name.endswith("avi") else H264
    ffmpeg(*_still(tmp_path, 320, 240), *codec, path)
    ffmpeg(*_still(tmp_path, 320, 256), *codec, large)
    assert len(_frames(path)) == 10
    with pytest.raises(SourceError, match="megapixels"):
        _frames(large)
    if name in ("a.ts", "a.h264"):
        path.write_bytes(path.read_bytes() + large.read_bytes())
        with pytest.raises(SourceError, match="megapixels"):
            _frames(path)


def test_video_file_of_an_unknown_codec(tmp_path: Path) -> None:
    """The error names the codec."""
    path = tmp_path / "a.mp4"
    ffmpeg(*_still(tmp_path, 64, 48), *H264, path)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"xyz1"))
    with pytest.raises(SourceError, match="no decoder for its codec, xyz1"):
        _frames(path)


def test_video_file_sound_only(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", path)
    with pytest.raises(SourceError, match="it has only sound"):
        _frames(path)


def test_video_file_frames_are_freed_at_once() -> None:
    """Decoded frames do not wait for the garbage collector: at 720p they took 300 MB."""
    gc.collect()
    gc.disable()
    try:
        for _ in VideoFileSource(DATA / "mjpeg_corrupt.avi").frames():
            alive = sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())
            assert alive < 10
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_video_file_metadata_that_is_no_text(tmp_path: Path, name: str) -> None:
    """A title in another encoding than UTF-8 is no obstacle."""
    path = tmp_path / name
    ffmpeg(*_still(tmp_path, 64, 48), *H264, "-metadata", "title=caf_", path)
    data = path.read_bytes()
    assert b"caf_" in data
    path.write_bytes(data.replace(b"caf_", b"caf\xe9"))
    assert len(_frames(path)) == 10


def test_video_file_name_that_is_no_text(tmp_path: Path) -> None:
    """A name in another encoding than UTF-8 is opened."""
    path = write_video(tmp_path / "a.avi", numbered(2)).rename(
        tmp_path / os.fsdecode(b"caf\xe9.avi")
    )
    assert [number_of(frame.image) for frame in _frames(path)] == [0, 1]
