"""Warnings of secrets that other users of the machine can read."""

import os
from pathlib import Path

import pytest

from edgepose.cli.main import run_command

pytestmark = pytest.mark.usefixtures("no_user_files")


def check(capsys: pytest.CaptureFixture[str], path: Path) -> list[str]:
    """Return the warnings of `config check`."""
    assert run_command(["config", "check", "-c", str(path)]) == 0
    *warnings, last = capsys.readouterr().err.splitlines()
    assert last == f"{path}: no errors"
    return [text.removeprefix("edgepose: warning: ") for text in warnings]


@pytest.mark.parametrize(
    "text",
    [
        "mqtt: {username: u, password: hunter2}\n",
        "cameras: [{source: 'rtsp://u:hunter2@cam/live'}]\n",
        "cameras: [{source: 'rtsp://cam/live?token=hunter2'}]\n",
        "cameras: [{source: 'rtsp://cam/live', username: u, password: hunter2}]\n",
    ],
)
@pytest.mark.parametrize(("mode", "warns"), [(0o644, True), (0o642, True), (0o640, False)])
def test_config_check_file_with_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, mode: int, warns: bool
) -> None:
    """A configuration with a password in it is for its owner and group only."""
    path = tmp_path / "my config.yaml"
    path.write_text(text)
    path.chmod(mode)
    expected = (
        f"{path}: contains a password, and every user of this machine may read or change it; "
        f"run `chmod o= '{path}'`"
    )
    assert check(capsys, path) == ([expected] if warns else [])


def test_config_check_without_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A configuration without one may be public, and a file may be missing for the moment."""
    path = tmp_path / "config.yaml"
    path.write_text(
        "cameras: [{source: 'rtsp://u@cam/1'}]\nmqtt: {username: u, password_file: none}\n"
    )
    path.chmod(0o666)
    assert check(capsys, path) == []


def test_config_check_secret_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Password files and the TLS key are checked as well, each one once."""
    path = tmp_path / "config.yaml"
    path.write_text(
        "mqtt:\n"
        "  url: mqtts://u@broker\n"
        "  password_file: secret\n"
        "  tls: {ca_file: ca, cert_file: cert, key_file: key}\n"
        "cameras:\n"
        "  - {name: a, source: 'rtsp://u@cam/1', password_file: secret}\n"
        "  - {name: b, source: 'rtsp://u@cam/2', password_file: own}\n"
        "  - {name: c, source: 'rtsp://u@cam/2', password_file: pipe}\n"
        "  - {name: d, source: 'rtsp://u@cam/2', password_file: /dev/zero}\n"
    )
    os.mkfifo(tmp_path / "pipe", 0o666)
    for name, mode in (("secret", 0o666), ("own", 0o600), ("key", 0o604), ("ca", 0o644)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    assert [warning.partition(",")[0] for warning in check(capsys, path)] == [
        f"{tmp_path / 'key'}: contains a private key",
        f"{tmp_path / 'secret'}: contains a password",
    ]


@pytest.mark.parametrize(
    "wrong",
    [["run", "--accelerator", "x"], ["demo", "--seconds", "0"], ["benchmark", "--min-runs", "0"]],
    ids=lambda words: words[0],
)
def test_source_option_with_password(capsys: pytest.CaptureFixture[str], wrong: list[str]) -> None:
    """Lists of processes show it, so there is a warning, without any of it."""
    command, *others = wrong
    for source, warns in (("rtsp://u:hunter2@cam/live", True), ("rtsp://u@cam/live", False)):
        assert run_command([command, "--source", source, *others]) == 2
        errors = capsys.readouterr().err
        assert ("--source contains a password" in errors) is warns
        assert ("EDGEPOSE_CAMERA_PASSWORD" in errors) is warns
        assert "hunter2" not in errors
