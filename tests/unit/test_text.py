"""Text from outside: names of files that are not UTF-8, control characters."""

import os

import pytest

from edgepose.util.text import printable, valid_text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"plain.jpg", "plain.jpg"),
        ("K\u00fcche \u6f22.jpg".encode(), "K\u00fcche \u6f22.jpg"),
        (b"caf\xe9.jpg", r"caf\xe9.jpg"),
        (b"\xff\xfe", r"\xff\xfe"),
    ],
)
def test_valid_text_names_of_files(name: bytes, expected: str) -> None:
    """Bytes that are not UTF-8 are escaped, everything else stays."""
    assert valid_text(name.decode("utf-8", "surrogateescape")) == expected
    # As read in a locale of ASCII.
    assert valid_text(name.decode("ascii", "surrogateescape")) == expected


def test_valid_text_half_of_a_pair() -> None:
    """What is no byte of a name is escaped too."""
    assert valid_text("a\ud83d\u00fc") == "a\\ud83d\u00fc"


def test_printable_control_characters() -> None:
    """They are escaped; spaces, brackets and bytes of a name stay."""
    assert printable("a\nb\x1b[2J\u202e\x9b") == r"a\nb\x1b[2J\u202e\x9b"
    name = os.fsdecode(b"[b]\xe9 \xe3\x80\x80[/b]")
    assert printable(name) == name
