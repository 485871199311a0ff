"""The memory of the privacy switches."""

import logging
from pathlib import Path

import pytest

from edgepose.daemon.daemon import SwitchFile

CAMERAS = frozenset({"main", "yard", "door"})


def test_what_is_off_stays_off(tmp_path: Path) -> None:
    path = tmp_path / "state" / "switches.json"
    assert SwitchFile(path).read(CAMERAS) == frozenset()
    SwitchFile(path).write(frozenset({"main", "yard", "gone"}))
    assert SwitchFile(path).read(CAMERAS) == {"main", "yard"}
    SwitchFile(path).write(frozenset())
    assert SwitchFile(path).read(CAMERAS) == frozenset()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"off": 3}', b"\xff\xfe", b'{"on": []}'])
def test_a_damaged_file_opens_no_camera(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "switches.json"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert SwitchFile(path).read(CAMERAS) == CAMERAS
    assert str(path) in caplog.text


def test_a_full_disk_is_said_and_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with caplog.at_level(logging.WARNING):
        SwitchFile(in_the_way / "switches.json").write(frozenset({"main"}))
    assert "cannot remember" in caplog.text
