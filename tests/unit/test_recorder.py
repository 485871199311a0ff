"""The recorder and the NDJSON stream."""

import errno
import io
import os
import stat
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

import pytest

from edgepose import messages
from edgepose.errors import SinkError
from edgepose.mqtt.replay import Recording
from edgepose.sinks.ndjson import NdjsonSink
from edgepose.sinks.recorder import RecorderSink
from tests.builders import message_of

LINE_BYTES = len(messages.encode(message_of(0))) + 1


def sequences(path: Path) -> list[int]:
    return [messages.decode(line).sequence for line in path.read_bytes().splitlines()]


def test_recorder_writes_every_message_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"
    sink = RecorderSink(path)
    for sequence in range(3):
        sink.publish(message_of(sequence))
        assert sequences(path) == list(range(sequence + 1))
    sink.close()
    sink.close()


def test_recorder_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"
    sink = RecorderSink(path)
    sink.publish(message_of(7))
    sink.close()
    assert messages.decode(path.read_bytes()) == message_of(7)


def test_recorder_appends_after_a_restart_and_after_a_power_cut(tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"
    for sequence in range(2):
        sink = RecorderSink(path)
        sink.publish(message_of(sequence))
        sink.close()
    assert sequences(path) == [0, 1]
    path.write_bytes(path.read_bytes()[:-20])
    sink = RecorderSink(path)
    sink.publish(message_of(2))
    sink.close()
    lines = path.read_bytes().splitlines()
    assert len(lines) == 3
    assert [messages.decode(lines[i]).sequence for i in (0, 2)] == [0, 2]


def record(sink: RecorderSink, *sequences: int) -> None:
    for sequence in sequences:
        sink.publish(message_of(sequence))


def contents(folder: Path) -> dict[str, list[int]]:
    return {path.name: sequences(path) for path in folder.iterdir()}


def test_recorder_begins_a_new_file_at_its_limit(tmp_path: Path) -> None:
    """The renamed files are kept, the newest is `.1`, the oldest is deleted."""
    path = tmp_path / "r.ndjson"
    sink = RecorderSink(path, max_bytes=2 * LINE_BYTES, keep=2)
    record(sink, 0, 1, 2)
    assert contents(tmp_path) == {"r.ndjson": [2], "r.ndjson.1": [0, 1]}
    record(sink, 3, 4)
    assert contents(tmp_path) == {"r.ndjson": [4], "r.ndjson.1": [2, 3], "r.ndjson.2": [0, 1]}
    sink.close()
    again = RecorderSink(path, max_bytes=2 * LINE_BYTES, keep=2)
    record(again, 5, 6)
    again.close()
    assert contents(tmp_path) == {"r.ndjson": [6], "r.ndjson.1": [4, 5], "r.ndjson.2": [2, 3]}
    joined = tmp_path / "all.ndjson"
    joined.write_bytes(b"".join(file.read_bytes() for file in sorted(tmp_path.iterdir())[::-1]))
    recording = Recording(joined)
    assert [recorded.message.sequence for recorded in recording] == [2, 3, 4, 5, 6]
    assert recording.skipped == 0


def test_recorder_fills_a_gap_before_it_deletes(tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"
    sink = RecorderSink(path, max_bytes=LINE_BYTES, keep=3)
    record(sink, 0, 1, 2, 3)
    (tmp_path / "r.ndjson.1").unlink()
    record(sink, 4)
    sink.close()
    assert contents(tmp_path) == {
        "r.ndjson": [4], "r.ndjson.1": [3], "r.ndjson.2": [1], "r.ndjson.3": [0],
    }  # fmt: skip


def test_recorder_message_over_the_limit_is_a_file_of_its_own(tmp_path: Path) -> None:
    sink = RecorderSink(tmp_path / "r.ndjson", max_bytes=1, keep=1)
    record(sink, 0, 1)
    sink.close()
    assert contents(tmp_path) == {"r.ndjson": [1], "r.ndjson.1": [0]}


def test_recorder_overwrites_nothing_but_recordings(tmp_path: Path) -> None:
    """A number that something else has is left out, be it a file, a link or a folder."""
    path = tmp_path / "r.ndjson"
    letters = tmp_path / "r.ndjson.1"
    letters.write_text("Dear Ada,\n")
    (tmp_path / "elsewhere").write_bytes(messages.encode(message_of(9)) + b"\n")
    (tmp_path / "r.ndjson.2").symlink_to("elsewhere")
    (tmp_path / "r.ndjson.3").mkdir()
    (tmp_path / "r.ndjson.4").touch()
    sink = RecorderSink(path, max_bytes=LINE_BYTES, keep=2)
    record(sink, 0, 1, 2, 3)
    sink.close()
    assert letters.read_text() == "Dear Ada,\n"
    assert (tmp_path / "r.ndjson.2").is_symlink()
    assert sequences(tmp_path / "elsewhere") == [9]
    assert (tmp_path / "r.ndjson.4").read_bytes() == b""
    assert sequences(path) == [3]
    assert sequences(tmp_path / "r.ndjson.5") == [2]
    assert sequences(tmp_path / "r.ndjson.6") == [1]
    assert not (tmp_path / "r.ndjson.7").exists()


def test_recorder_text_file_as_its_path_is_never_lost(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("to do\n")
    sink = RecorderSink(path, max_bytes=LINE_BYTES, keep=1)
    record(sink, 0, 1, 2)
    sink.close()
    assert (tmp_path / "notes.1").read_text() == "to do\n"
    assert sequences(tmp_path / "notes.2") == [1]


@pytest.mark.parametrize("how", ["moved", "deleted", "replaced", "emptied"])
def test_recorder_goes_on_in_the_file_of_its_name(tmp_path: Path, how: str) -> None:
    """What logrotate does, without a signal: mv, rm, mv and create, copytruncate."""
    path, moved = tmp_path / "r.ndjson", tmp_path / "moved"
    sink = RecorderSink(path, max_bytes=3 * LINE_BYTES)
    record(sink, 0, 1)
    if how == "deleted":
        path.unlink()
    elif how == "emptied":
        os.truncate(path, 0)
    else:
        path.rename(moved)
    if how == "replaced":
        path.touch()
    record(sink, 2, 3, 4)
    sink.close()
    assert sequences(path) == [2, 3, 4]
    if moved.exists():
        assert sequences(moved) == [0, 1]


def test_recorder_goes_on_when_the_disk_has_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk takes 700 bytes more, then none; no incomplete line is left in the file."""
    path = tmp_path / "r.ndjson"
    sink = RecorderSink(path)
    record(sink, 0, 1)
    room = 700
    write = os.write

    def full(fd: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(fd, bytes(data[:room]))
        room -= written
        return written

    monkeypatch.setattr(os, "write", full)
    fitting = range(2, 2 + 700 // LINE_BYTES)
    record(sink, *fitting)
    for sequence in (7, 8):
        with pytest.raises(SinkError, match=r"r\.ndjson: .*No space left on device"):
            sink.publish(message_of(sequence))
    assert path.read_bytes().endswith(b"\n")
    assert sequences(path) == [0, 1, *fitting]
    monkeypatch.undo()
    record(sink, 9)
    sink.close()
    assert sequences(path) == [0, 1, *fitting, 9]


def test_recorder_waits_for_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "stick" / "r.ndjson"
    sink = RecorderSink(path)
    with pytest.raises(SinkError, match="No such file or directory"):
        sink.open()
    with pytest.raises(SinkError, match="No such file or directory"):
        sink.publish(message_of(0))
    path.parent.mkdir()
    record(sink, 1)
    sink.close()
    assert sequences(path) == [1]


def test_recorder_file_is_for_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"
    sink = RecorderSink(path, max_bytes=LINE_BYTES)
    record(sink, 0, 1)
    sink.close()
    assert [stat.S_IMODE(file.stat().st_mode) & ~0o640 for file in tmp_path.iterdir()] == [0, 0]


@pytest.mark.parametrize("kind", ["folder", "FIFO", "device", "link"])
def test_recorder_writes_regular_files_only(tmp_path: Path, kind: str) -> None:
    """Another kind of file could block, or lead to a file of somebody else."""
    victim = tmp_path / "victim"
    victim.touch()
    path = Path("/dev/null") if kind == "device" else tmp_path / "r.ndjson"
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(victim)
    sink = RecorderSink(path)
    with pytest.raises(SinkError, match=str(path)):
        sink.open()
    with pytest.raises(SinkError, match=str(path)):
        sink.publish(message_of(0))
    sink.close()
    assert victim.read_bytes() == b""


def test_ndjson_writes_one_line_per_message() -> None:
    raw = io.BytesIO()
    sink = NdjsonSink(raw)
    sink.publish(message_of(1))
    sink.publish(message_of(2))
    assert [messages.decode(line).sequence for line in raw.getvalue().splitlines()] == [1, 2]
    sink.close()
    assert not raw.closed


def test_ndjson_reader_that_closed_the_pipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as stream:
        sink = NdjsonSink(stream)
        with pytest.raises(BrokenPipeError):
            sink.publish(message_of(1))


def test_ndjson_completes_partial_writes() -> None:
    class Slow(io.BytesIO):
        def write(self, data: object, /) -> int:
            assert isinstance(data, bytes)
            return super().write(data[:7])

    stream = Slow()
    NdjsonSink(stream).publish(message_of(1))
    assert messages.decode(stream.getvalue()) == message_of(1)


def test_ndjson_line_that_a_full_disk_cut_is_completed() -> None:
    """The lines stay whole, however often the disk is full."""
    room = 0

    class Disk(io.BytesIO):
        def write(self, data: object, /) -> int:
            nonlocal room
            assert isinstance(data, bytes)
            taken = data[:room]
            room -= len(taken)
            if not taken:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(taken)

    stream = Disk()
    sink = NdjsonSink(stream)
    for sequence in range(4):
        room += LINE_BYTES * 2 // 3
        with suppress(SinkError):
            sink.publish(message_of(sequence))
    room = 10 * LINE_BYTES
    sink.publish(message_of(4))
    lines = stream.getvalue().splitlines()
    found = [messages.decode(line).sequence for line in lines]
    assert found == [0, 1, 3, 4]


def test_ndjson_non_blocking_stream_waits_for_its_reader() -> None:
    """A parent may have made the pipe non-blocking; every line arrives all the same."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    count = 200_000 // LINE_BYTES
    with os.fdopen(writer, "wb", buffering=0) as stream, os.fdopen(reader, "rb") as lines:
        sink = NdjsonSink(stream)
        thread = threading.Thread(
            target=lambda: deque(map(sink.publish, map(message_of, range(count))))
        )
        thread.start()
        found = [messages.decode(lines.readline()).sequence for _ in range(count)]
        thread.join()
    assert found == list(range(count))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_ndjson_full_disk_behind_stdout() -> None:
    with Path("/dev/full").open("wb", buffering=0) as stream:
        sink = NdjsonSink(stream)
        with pytest.raises(SinkError, match="No space left"):
            sink.publish(message_of(1))


def test_file_sinks_do_not_import_paho() -> None:
    code = (
        "import sys, edgepose.sinks.ndjson, edgepose.sinks.recorder;"
        "sys.exit('paho' in sys.modules or 'cv2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
