"""The folder of a node's state: one process, one folder for each node, and what a rename keeps."""

import json
import logging
import stat
from contextlib import closing
from pathlib import Path

import pytest

from edgepose.daemon.state_folder import StateFolder
from edgepose.errors import AlreadyRunningError
from edgepose.mqtt.event_store import EventStore
from edgepose.mqtt.topics import Topics
from edgepose.sinks.mqtt import EVENTS_FILE

CONFIG = Path("/etc/edgepose/config.yaml")


def opened(
    directory: Path, node: str, config: Path | None = CONFIG, base: str = "e"
) -> StateFolder:
    return StateFolder(directory, Topics(node=node, base=base), config)


def test_state_folder_of_a_running_node(tmp_path: Path) -> None:
    """A second process is refused, with the folder, the process and the remedy."""
    with closing(opened(tmp_path, "gym")) as folder:
        pid = json.loads((folder.path / "lock").read_bytes())["pid"]
        with pytest.raises(AlreadyRunningError) as refused:
            opened(tmp_path, "gym", Path("/another.yaml"))
        assert str(refused.value) == (
            f"{tmp_path}/nodes/gym: another edgepose (process {pid}) runs with the node id 'gym'; "
            "stop it, or give this one another node id"
        )
    opened(tmp_path, "gym").close()


def test_state_folder_for_each_node(tmp_path: Path) -> None:
    with (
        closing(opened(tmp_path, "a", Path("/a.yaml"))) as first,
        closing(opened(tmp_path, "b", Path("/b.yaml"))) as second,
    ):
        assert first.path == tmp_path / "nodes" / "a"
        assert second.path == tmp_path / "nodes" / "b"
        assert stat.S_IMODE(first.path.stat().st_mode) == 0o700
        assert stat.S_IMODE((first.path / "lock").stat().st_mode) == 0o600
    with closing(opened(tmp_path, "c", Path("/c.yaml"))) as third:
        assert third.previous_root is None
    assert {path.name for path in (tmp_path / "nodes").iterdir()} == {"a", "b", "c"}


def test_state_folder_of_a_renamed_node(tmp_path: Path) -> None:
    """It keeps its switches, and the prefix of its earlier topics until that is forgotten."""
    with closing(opened(tmp_path, "gym")) as folder:
        assert folder.previous_root is None
        (folder.path / "switches.json").write_text('{"off": ["main"]}')
    for _ in range(2):
        with closing(opened(tmp_path, "hall")) as folder:
            assert (folder.path / "switches.json").read_text() == '{"off": ["main"]}'
            assert folder.previous_root == "e/gym"
            with pytest.raises(AlreadyRunningError):
                opened(tmp_path, "hall")
    with closing(opened(tmp_path, "hall")) as folder:
        folder.forget_previous()
    with closing(opened(tmp_path, "hall")) as again:
        assert again.previous_root is None
    assert [path.name for path in (tmp_path / "nodes").iterdir()] == ["hall"]


def test_state_folder_after_another_base_topic(tmp_path: Path) -> None:
    opened(tmp_path, "gym").close()
    with closing(opened(tmp_path, "gym", base="f")) as folder:
        assert folder.previous_root == "e/gym"


def test_state_folder_of_a_running_node_is_not_taken_over(tmp_path: Path) -> None:
    with closing(opened(tmp_path, "gym")) as running, closing(opened(tmp_path, "hall")) as folder:
        assert folder.path != running.path
        assert folder.previous_root is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"root": 3}', b"[" * 100_000])
def test_state_folder_damaged_lock_file(tmp_path: Path, content: bytes) -> None:
    with closing(opened(tmp_path, "gym")) as folder:
        pass
    (folder.path / "lock").write_bytes(content)
    with closing(opened(tmp_path, "gym")) as folder:
        assert folder.previous_root is None


def test_state_folder_takes_events_of_an_earlier_version(tmp_path: Path) -> None:
    store = EventStore(tmp_path / EVENTS_FILE, max_events=10)
    store.append("e/gym/main/event", b"1")
    store.close()
    with closing(opened(tmp_path, "gym")) as folder:
        again = EventStore(folder.path / EVENTS_FILE, max_events=10)
        assert [event.payload for event in again] == [b"1"]
        again.close()
    assert not (tmp_path / EVENTS_FILE).exists()


def test_state_folder_that_cannot_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Everything else goes on, as with a full disk."""
    caplog.set_level(logging.WARNING)
    (tmp_path / "file").write_text("")
    with closing(opened(tmp_path / "file", "gym")) as folder:
        assert folder.path == tmp_path / "file" / "nodes" / "gym"
    (record,) = caplog.records
    assert "Not a directory" in record.getMessage()
    assert "state_directory" in record.getMessage()
