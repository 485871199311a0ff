"""The recorder and the NDJSON stream."""

import errno
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgepose import messages
from edgepose.errors import SinkError
from edgepose.sinks.ndjson import NdjsonSink
from edgepose.sinks.recorder import RecorderSink
from tests.builders import message_of


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
    sink.publish(message_of(3))
    assert sequences(path) == [0, 1, 2]


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


def test_recorder_stops_at_its_limit_and_logs_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "r.ndjson"
    line = len(messages.encode(message_of(0))) + 1
    sink = RecorderSink(path, max_bytes=3 * line)
    for sequence in range(9):
        sink.publish(message_of(sequence))
    assert sequences(path) == [0, 1, 2]
    assert [r.getMessage() for r in caplog.records if "reached its limit" in r.getMessage()]
    assert len(caplog.records) == 1
    sink.close()
    again = RecorderSink(path, max_bytes=3 * line)
    again.publish(message_of(9))
    again.close()
    assert sequences(path) == [0, 1, 2]


def test_recorder_full_disk_stops_the_recording_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk takes 700 bytes more, then none; no incomplete line is left in the file."""
    path = tmp_path / "r.ndjson"
    sink = RecorderSink(path)
    sink.publish(message_of(0))
    sink.publish(message_of(1))
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
    for sequence in range(2, 9):
        sink.publish(message_of(sequence))
    monkeypatch.undo()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "No space left on device" in record.getMessage()
    assert str(path) in record.getMessage()
    assert path.read_bytes().endswith(b"\n")
    assert sequences(path) == [0, 1, *range(2, 2 + 700 // len(messages.encode(message_of(2))))]
    sink.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_recorder_device_that_is_always_full(caplog: pytest.LogCaptureFixture) -> None:
    sink = RecorderSink(Path("/dev/full"))
    sink.publish(message_of(0))
    sink.close()
    assert "No space left" in caplog.text


def test_recorder_names_an_invalid_path(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere" / "r.ndjson"):
        with pytest.raises(SinkError, match=str(path)):
            RecorderSink(path)


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
        with pytest.raises(SinkError, match="closed by the reader") as caught:
            sink.publish(message_of(1))
        assert isinstance(caught.value.__cause__, BrokenPipeError)


def test_ndjson_completes_partial_writes() -> None:
    class Slow(io.BytesIO):
        def write(self, data: object, /) -> int:
            assert isinstance(data, bytes)
            return super().write(data[:7])

    stream = Slow()
    NdjsonSink(stream).publish(message_of(1))
    assert messages.decode(stream.getvalue()) == message_of(1)


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
