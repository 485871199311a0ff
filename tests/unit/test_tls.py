"""Certificates and keys for TLS that cannot be used: the error names the file and the reason."""

import os
from pathlib import Path

import pytest

from edgepose.errors import SecretFileError
from edgepose.mqtt.options import TlsFiles
from edgepose.mqtt.tls import MAX_FILE_BYTES, tls_context

KINDS = ("ca_file", "certificate_file", "key_file")


def error_of(kind: str, path: Path) -> str:
    """Return the error, one line."""
    ca, certificate, key = (path if kind == name else None for name in KINDS)
    with pytest.raises(SecretFileError) as caught:
        tls_context(TlsFiles(ca, certificate, key))
    (line,) = str(caught.value).splitlines()
    # A service waits for the file; 2 would end it for good.
    assert caught.value.exit_code == 1
    return line


@pytest.mark.parametrize("kind", KINDS)
def test_tls_files_that_are_not_read(tmp_path: Path, kind: str) -> None:
    """A missing file is named; a pipe could block, and a device never ends."""
    pipe, large, missing = tmp_path / "pipe", tmp_path / "large", tmp_path / "missing"
    os.mkfifo(pipe)
    large.write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    for path, reason in (
        (pipe, "expected a regular file, got a folder, a pipe or a device"),
        (Path("/dev/zero"), "expected a regular file, got a folder, a pipe or a device"),
        (tmp_path, "expected a regular file, got a folder, a pipe or a device"),
        (large, "expected at most 1024 KiB, got a larger file"),
        (missing, "No such file or directory"),
    ):
        assert error_of(kind, path).startswith(
            f"{path}: the certificate or key cannot be read ({reason}): "
        )


@pytest.mark.parametrize("kind", ["ca_file", "certificate_file"])
@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\n", bytes(range(256))])
def test_tls_files_with_other_content(tmp_path: Path, kind: str, content: bytes) -> None:
    """A file that is written just now is invalid for the moment."""
    path = tmp_path / "file"
    path.write_bytes(content)
    assert error_of(kind, path).startswith(f"{path}: expected certificates in PEM form, ")
