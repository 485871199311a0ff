"""Passwords: never printed, and read from small regular files only."""

import copy
import os
import pickle
from pathlib import Path

import pytest

from edgepose.errors import SecretFileError
from edgepose.util.secrets import MAX_BYTES, Secret, find_password, read_password_file


def error_of(path: Path) -> str:
    """Return the error about a password file, one line that begins with its path."""
    with pytest.raises(SecretFileError) as caught:
        read_password_file(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert len(text.splitlines()) == 1
    # Restart=on-failure tries again; 2 would end the service for good.
    assert caught.value.exit_code == 1
    return text


def test_secret_text_is_masked() -> None:
    """No way to print a secret shows it."""
    secret = Secret("hunter2")
    shown = f"{secret} {secret!r} {secret!s:>20} {[secret]} {getattr(secret, '__dict__', {})}"
    assert "hunter2" not in shown
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2")
    assert secret != Secret("other")
    assert secret != "hunter2"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("after", [b"", b"\n", b"\r\n"], ids=["none", "LF", "CRLF"])
def test_password_file_text(tmp_path: Path, before: bytes, after: bytes) -> None:
    """Neither the byte order mark of an editor nor the line end is part of the password."""
    path = tmp_path / "password"
    path.write_bytes(before + " pä ss ".encode() + after)
    assert read_password_file(path) == Secret(" pä ss ")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "an empty file"),
        (b"\n", "an empty file"),
        (b"hunter2\nb\n", "several lines"),
        (b"hunter2\xff", "expected the password as UTF-8 text, got another encoding"),
        ("hunter2".encode("utf-16"), "expected the password as UTF-8 text, got UTF-16"),
        (b"hunter2" * MAX_BYTES, "expected at most 64 KiB, got a larger file"),
    ],
    ids=["empty", "empty line", "lines", "Latin-1", "UTF-16", "large"],
)
def test_password_file_invalid(tmp_path: Path, content: bytes, expected: str) -> None:
    """The error has the reason and no part of the content."""
    path = tmp_path / "password"
    path.write_bytes(content)
    text = error_of(path)
    assert expected in text
    assert "hunter2" not in text


def test_password_file_other_kinds(tmp_path: Path) -> None:
    """A pipe could block, a device never ends: neither is opened."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, Path("/dev/zero")):
        assert "expected a regular file, got a folder, a pipe or a device" in error_of(path)


def test_password_file_missing(tmp_path: Path) -> None:
    """The error names the file and what the system reports."""
    assert "No such file" in error_of(tmp_path / "nowhere")


def test_find_password_is_read_afresh(tmp_path: Path) -> None:
    """A file that was written again has the new password."""
    path = tmp_path / "password"
    for text in ("old", "new"):
        path.write_text(text)
        found = find_password(None, path, credential="none", variable="EDGEPOSE_NONE")
        assert found == Secret(text)
