"""Source URIs, valid and invalid."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepose.config.source_uri import OPTIONS, parse_source_uri
from edgepose.errors import UsageError
from edgepose.util.redact import masked_url


@pytest.mark.parametrize(
    ("text", "kind", "target", "options"),
    [
        ("picamera:0", "picamera", "0", {}),
        ("picamera:", "picamera", "0", {}),
        ("picamera:1?stream=lores&fps=7.5", "picamera", "1", {"stream": "lores", "fps": 7.5}),
        ("PiCamera:01", "picamera", "1", {}),
        ("/dev/video2", "v4l2", "/dev/video2", {}),
        (
            "/dev/v4l/by-id/usb-046d_C920-video-index0?width=1280&height=720",
            "v4l2",
            "/dev/v4l/by-id/usb-046d_C920-video-index0",
            {"width": 1280, "height": 720},
        ),
        ("/dev/webcam", "v4l2", "/dev/webcam", {}),
        ("/dev/shm/clip.mp4", "path", "/dev/shm/clip.mp4", {}),
        ("synthetic:", "synthetic", "", {}),
        ("synthetic:?realtime=0&mirror=on", "synthetic", "", {"realtime": False, "mirror": True}),
        (
            "clip.mp4?loop=1&realtime=1&width=640&height=480&fps=30&rotate=90&mirror=1",
            "path",
            "clip.mp4",
            {
                "loop": True,
                "realtime": True,
                "width": 640,
                "height": 480,
                "fps": 30.0,
                "rotate": 90,
                "mirror": True,
            },
        ),
        ("  my holiday images/at sea.jpg ", "path", "my holiday images/at sea.jpg", {}),
        ("file:///a%20b/c%3Fd.mp4?loop=yes", "path", "/a b/c?d.mp4", {"loop": True}),
        ("file://localhost/a.png", "path", "/a.png", {}),
        ("file:/a.png", "path", "/a.png", {}),
        ("clip.mp4?", "path", "clip.mp4", {}),
        # A colon, a space of another kind and a byte that is no text are parts of names.
        ("a:b.mp4", "path", "a:b.mp4", {}),
        ("12:30.mp4", "path", "12:30.mp4", {}),
        ("sunday:12.30.mp4?loop=1", "path", "sunday:12.30.mp4", {"loop": True}),
        ("./sunday:1", "path", "sunday:1", {}),
        ("C:\\clips\\a.mp4", "path", "C:\\clips\\a.mp4", {}),
        ("5\u202fPM.mov", "path", "5\u202fPM.mov", {}),
        ("caf\udce9.mp4", "path", "caf\udce9.mp4", {}),
    ],
)
def test_parse_source_uri_valid(
    text: str, kind: str, target: str, options: dict[str, object]
) -> None:
    """Every kind of source, with and without options."""
    uri = parse_source_uri(text)
    assert (uri.kind, uri.target, uri.options) == (kind, target, options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "got ''"),
        ("   ", "got ''"),
        ("?", "before the options"),
        ("?loop=1", "before the options"),
        ("picamera:front", "picamera:0"),
        ("picamera:-1", "picamera:0"),
        ("picamera", "did you mean picamera:?"),
        ("synthetic", "did you mean synthetic:?"),
        ("synthetic:astronaut", "nothing after"),
        ("picamra:0", "did you mean 'picamera'"),
        ("http://camera/video", "unknown source http"),
        ("sunday:1", "unknown source sunday:"),
        ("sunday:1", "a file of this name is written with ./ before"),
        ("0", "/dev/video0"),
        ("clip.mp4?lop=1", "did you mean 'loop'"),
        ("clip.mp4?loop", "expected true or false"),
        ("clip.mp4?loop=2", "expected true or false, got '2'"),
        ("clip.mp4?loop=1&loop=0", "twice"),
        ("clip.mp4?&", "expected options"),
        ("/dev/video0?width=640", "width and height together"),
        ("/dev/video0?width=0&height=1", "at least 16 and at most 16384"),
        ("/dev/video0?width=٣&height=1", "whole number"),
        ("/dev/video0?fps=0", "more than 0"),
        ("/dev/video0?fps=nan", "more than 0"),
        ("/dev/video0?fps=1e9", "more than 0"),
        ("/dev/video0?rotate=45", "0, 90, 180 or 270"),
        ("picamera:0?stream=raw", "main or lores"),
        ("file://server/share/clip.mp4", "file:///"),
        ("clip\0.mp4", "control characters"),
        ("rtsp:camera", "expected rtsp://host[:port]/path, or that with user:password@ before"),
        ("rtsp://", "rtsp://"),
        ("rtsp://:554/x", "rtsp://"),
        ("rtsp://[::1/x", "rtsp://"),
        ("rtsp://camera:99999/x", "rtsp://"),
        ("rtsp://camera:port/x", "rtsp://"),
        ("rtsp://camera:0/x", "rtsp://"),
        ("rtsp://camera:" + "5" * 5000, "rtsp://"),
        ("rtsp://user:[x@camera/x", "%40"),
        ("rtsp://camera/x?rotate=45", "0, 90, 180 or 270"),
    ],
)
def test_parse_source_uri_invalid(text: str, expected: str) -> None:
    """An invalid source is an error of one line."""
    with pytest.raises(UsageError) as caught:
        parse_source_uri(text)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parse_source_uri_question_mark_in_a_file_name(tmp_path: Path) -> None:
    """A ? in the name of an existing file is part of the name."""
    path = tmp_path / "what? who?.mp4"
    path.touch()
    assert parse_source_uri(str(path)).target == str(path)
    uri = parse_source_uri(f"{path}?loop=1")
    assert (uri.target, uri.options) == (str(path), {"loop": True})


@pytest.mark.parametrize("text", ["/mnt/nas/door.mp4?loop=1&realtime=1", "/mnt/nas/door.mp4", "a"])
def test_parse_source_uri_of_a_path_does_not_touch_the_disk(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload of the configuration waited for a network disk that was dead."""

    def hang(_path: str) -> bool:
        raise AssertionError("the disk was asked")

    monkeypatch.setattr("os.path.exists", hang)
    assert parse_source_uri(text).target == text.partition("?")[0]


def test_parse_source_uri_colon_in_a_file_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text with a colon is a path if such a file exists."""
    monkeypatch.chdir(tmp_path)
    Path("cam:1.mp4").touch()
    Path("0").touch()
    assert parse_source_uri("cam:1.mp4").kind == "path"
    assert parse_source_uri("0").kind == "path"


def test_parse_source_uri_expands_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is the home folder; an unknown user is a file name."""
    monkeypatch.setenv("HOME", "/home/pi")
    assert parse_source_uri("~/clip.mp4").target == "/home/pi/clip.mp4"
    assert parse_source_uri("~nobody-of-that-name/x").target == "~nobody-of-that-name/x"


@pytest.mark.parametrize(
    ("text", "target", "options"),
    [
        ("rtsp://cam/live", "rtsp://cam/live", {}),
        ("RTSP://cam:8554/live", "rtsp://cam:8554/live", {}),
        ("rtsp://[fe80::1]:554/live", "rtsp://[fe80::1]:554/live", {}),
        (
            "rtsp://cam/cam/realmonitor?channel=1&subtype=0&rotate=180",
            "rtsp://cam/cam/realmonitor?channel=1&subtype=0",
            {"rotate": 180},
        ),
        # Names that are options of ours elsewhere are the camera's own here.
        (
            "rtsp://cam/axis-media/media.amp?fps=10&resolution=640x480&stream=1&mirror=1&a=%2F",
            "rtsp://cam/axis-media/media.amp?fps=10&resolution=640x480&stream=1&a=%2F",
            {"mirror": True},
        ),
        ("rtsp://u:p@cam/x?rotate=90", "rtsp://u:p@cam/x", {"rotate": 90}),
    ],
)
def test_parse_source_uri_rtsp_query(text: str, target: str, options: dict[str, object]) -> None:
    """Options of the camera stay in the URL."""
    uri = parse_source_uri(text)
    assert (uri.kind, uri.target, uri.options) == ("rtsp", target, options)


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://admin:S3cr3t@cam/live",
        "rtsp://admin:S3cr3t@cam/live?token=S3cr3t",
        "rtsp://cam:554/user=admin&password=S3cr3t&channel=1",
        "rtsp://cam/live?pwd=S3cr3t&rotate=90",
        "rtsp://cam:554/user=admin_password=S3cr3t_channel=1_stream=0.sdp",
        "rtsp://admin:a@S3cr3t@cam/live",
    ],
)
def test_source_uri_str_masks_passwords(text: str) -> None:
    """A password is not in the text of a source."""
    uri = parse_source_uri(text)
    assert "S3cr3t" in uri.target, "the camera must still get it"
    assert "S3cr3t" not in str(uri)
    assert "S3cr3t" not in repr(uri)
    assert "********" in str(uri)


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://admin:a/S3cr3t@cam/live",
        "rtsp://admin:a@S3cr3t/b@cam/live",
        "rtsp://admin:12/S3cr3t@cam/live",
        "rtsp://admin:12?S3cr3t@cam/live",
        "rtsp://admin:S3cr3t",
        "rtsp://a[:S3cr3t@cam:0/live",
        "rtsp://admin:a?S3cr3t@cam/live",
        "rtsp://admin:S3cr3t#@cam/live",
        "rtsp://admin:#S3cr3t@cam/live",
        "rtsp://admin:S3cr3t@cam/live?rotate=1",
        "rtsp://admin:S3cr3t@[cam/live",
        "rstp://admin:S3cr3t@cam/live",
        "http://admin:S3cr3t@cam/live?x=1",
    ],
)
def test_parse_source_uri_error_masks_passwords(text: str) -> None:
    """A password is not in an error."""
    with pytest.raises(UsageError) as caught:
        parse_source_uri(text)
    assert "S3cr3t" not in str(caught.value)


def test_source_uri_str_without_password() -> None:
    """A URL without a password is shown unchanged."""
    assert masked_url("rtsp://cam:554/a/b?c=d") == "rtsp://cam:554/a/b?c=d"
    assert masked_url("rtsp://user@cam/a") == "rtsp://user@cam/a"


@given(st.text())
def test_parse_source_uri_any_text(text: str) -> None:
    """Any text is parsed or raises UsageError."""
    with contextlib.suppress(UsageError):
        assert parse_source_uri(text).options.keys() <= OPTIONS.keys()


_PIECES = [
    "rtsp://", "rtsps:", "picamera:", "synthetic:", "file:", "file://", "http://", "/dev/video0",
    "~", "~nobody/", "?", "&", "=", "loop", "rotate", "90", "1", "mirror", "@", ":", "/", "[", "]",
    "%", "%00", "%zz", "#", ";", "..", "user:pass@", "camera", "554", "99999", "0" * 5000,
    "a" * 300, "\u2100", "²", "٣", "\udc80", "\0", "\u2028",
]  # fmt: skip


@given(st.lists(st.sampled_from(_PIECES), max_size=8).map("".join))
@settings(max_examples=1000)
def test_parse_source_uri_any_parts(text: str) -> None:
    """Parts of URIs in any order are parsed or raise a UsageError of one line."""
    try:
        shown = str(parse_source_uri(text))
    except UsageError as error:
        shown = str(error)
    assert shown
    os.fsencode(shown)
    assert len(shown.splitlines()) == 1


@given(st.text(st.characters(exclude_characters="@/?#\n"), min_size=1))
def test_source_uri_any_password(password: str) -> None:
    """No password is in the text of a source."""
    marked = f"<{password}>"
    assert marked not in masked_url(f"rtsp://user:{marked}@cam/live")
