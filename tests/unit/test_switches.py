"""The stored privacy switches."""

import errno
import json
import logging
import os
import stat
from pathlib import Path

import pytest

from edgepose.daemon.switches import Switches
from tests.mosquitto import wait_for

CAMERAS = frozenset({"main", "yard", "gate"})


def test_switches_off_stays_off(tmp_path: Path) -> None:
    path = tmp_path / "state" / "switches.json"
    switches = Switches(path, CAMERAS)
    assert switches.off == frozenset()
    switches.set("main", enabled=False)
    switches.set("yard", enabled=False)
    assert switches.off == {"main", "yard"}
    switches.close()
    again = Switches(path, CAMERAS)
    assert again.off == {"main", "yard"}
    again.set("main", enabled=True)
    again.set("yard", enabled=True)
    again.close()
    assert Switches(path, CAMERAS).off == frozenset()
    assert list(path.parent.iterdir()) == [path]


def test_switches_of_an_earlier_version(tmp_path: Path) -> None:
    """What was off stays off for every node that has no file yet."""
    earlier, path = tmp_path / "switches.json", tmp_path / "nodes" / "gym" / "switches.json"
    earlier.write_text('{"off": ["main", "yard"]}')
    switches = Switches(path, CAMERAS, earlier=earlier)
    assert switches.off == {"main", "yard"}
    switches.set("main", enabled=True)
    switches.close()
    assert Switches(path, CAMERAS, earlier=earlier).off == {"yard"}
    earlier.write_text("damaged")
    assert Switches(path, CAMERAS, earlier=earlier).off == {"yard"}
    assert Switches(tmp_path / "hall.json", CAMERAS, earlier=earlier).off == CAMERAS


def test_switches_remember_a_camera_that_is_not_configured_now(tmp_path: Path) -> None:
    """One that was removed or renamed and came back was opened, if another had been switched."""
    path = tmp_path / "switches.json"
    path.write_text('{"off": ["main", "removed"]}')
    switches = Switches(path, CAMERAS)
    switches.set("yard", enabled=False)
    switches.close()
    assert Switches(path, CAMERAS | {"removed"}).off == {"main", "removed", "yard"}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"off": 3}', b"\xff\xfe", b'{"on": []}'])
def test_switches_damaged_file_leaves_all_cameras_off(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "switches.json"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert Switches(path, CAMERAS).off == CAMERAS
    assert str(path) in caplog.text


def test_switches_hold_in_memory_and_are_saved_when_the_disk_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    folder.write_text("a file where the folder should be")
    path = folder / "switches.json"
    # Read while the folder is fine, as at a start.
    switches = Switches(tmp_path / "fine" / "switches.json", CAMERAS)
    blocked = Switches(path, CAMERAS)
    assert blocked.off == CAMERAS, "a file in the folder's place cannot be read either"
    switches.set("main", enabled=False)
    blocked.set("main", enabled=True)
    wait_for(lambda: "cannot save" in caplog.text, "the warning")
    assert blocked.off == {"yard", "gate"}
    folder.unlink()
    wait_for(path.exists, "the file")
    assert sorted(json.loads(path.read_text())["off"]) == ["gate", "yard"]
    assert caplog.text.count("cannot save") == 1
    switches.close()
    blocked.close()


def test_switches_on_a_full_disk_leave_all_cameras_off_at_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be written fails closed: a restart opened the camera."""
    path = tmp_path / "switches.json"
    path.write_text('{"off": ["yard"]}')
    full = True

    def fsync(_fd: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    switches = Switches(path, CAMERAS)
    switches.set("main", enabled=False)
    wait_for(lambda: "cameras stay off" in caplog.text, "the warning")
    assert Switches(path, CAMERAS).off == CAMERAS
    # As it was saved before, which is not in the file any more.
    switches.set("main", enabled=True)
    full = False
    wait_for(path.read_bytes, "the file")
    switches.close()
    assert Switches(path, CAMERAS).off == {"yard"}


def test_switches_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "node" / "switches.json"
    switches = Switches(path, CAMERAS)
    switches.set("main", enabled=False)
    switches.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (path.parent, path.parents[1]):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_switches_follow_no_link_that_was_planted(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "switches.new").symlink_to(victim)
    switches = Switches(folder / "switches.json", CAMERAS)
    switches.set("main", enabled=False)
    switches.close()
    assert victim.read_text() == "precious"
    assert Switches(folder / "switches.json", CAMERAS).off == {"main"}
    assert [path.name for path in folder.iterdir()] == ["switches.json"]


def test_switches_survive_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is on the disk before it is renamed, and its name before it counts as saved."""
    path = tmp_path / "switches.json"
    synced: list[str] = []

    def fsync(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        synced.append("switched off" if path.exists() else "not yet")

    monkeypatch.setattr(os, "fsync", fsync)
    switches = Switches(path, CAMERAS)
    switches.set("main", enabled=False)
    switches.close()
    assert synced == ["switches.new", "not yet", tmp_path.name, "switched off"]


def test_switches_pipe_in_place_of_the_file(tmp_path: Path) -> None:
    """The start does not wait for somebody to write into it; the cameras stay off."""
    path = tmp_path / "switches.json"
    os.mkfifo(path)
    assert Switches(path, CAMERAS).off == CAMERAS
