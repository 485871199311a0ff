"""Passwords of URLs in longer texts, such as the errors of libraries."""

import pytest

from edgepose.util.redact import masked_text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("cannot open 'rtsp://u:p@ss@h/x': no", "cannot open 'rtsp://u:********@h/x': no"),
        ("a rtsp:/u:p/x@h and mqtt://v:q@i", "a rtsp:/u:********@h and mqtt://v:********@i"),
        ("http://:p@h", "http://:********@h"),
        ("'rtsp://h:5/x?a=1&pwd=p&b=2' failed", "'rtsp://h:5/x?a=1&pwd=********&b=2' failed"),
        ("broker mqtt://127.0.0.1:1883, none", "broker mqtt://127.0.0.1:1883, none"),
        ("rtsp://u:********@h/x", "rtsp://u:********@h/x"),
        ("rtsp://u@h:554/x and http://h:80/x", "rtsp://u@h:554/x and http://h:80/x"),
        ("me@home at 12:30: a:b@c", "me@home at 12:30: a:b@c"),
    ],
)
def test_masked_text(text: str, masked: str) -> None:
    """Only what is between the first colon and the last @ of a URL is masked."""
    assert masked_text(text) == masked


def test_masked_text_long_line() -> None:
    """The time for it is linear, or this would take minutes."""
    for part in ("x", "ab:/", "a@", "ab://c:", "\n"):
        assert len(masked_text(part * 300_000 + "@")) > 10
