"""Recordings and their timing, on a clock that only `sleep` advances."""

import os
import threading
from pathlib import Path

import pytest

from edgepose.errors import SourceError, SourceNotFoundError
from edgepose.mqtt.replay import MAX_LINE_BYTES, Recording, replay
from tests.builders import line_of


class Publisher:
    """Records the published messages and their times."""

    def __init__(self) -> None:
        self.now_s = 50.0
        self.sent: list[tuple[float, str, bytes]] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds

    def publish(self, topic: str, payload: bytes) -> None:
        self.sent.append((round(self.now_s - 50.0, 6), topic, payload))
        # Publishing takes time, which must not add up.
        self.now_s += 0.004

    def replay(self, path: Path, speed: float = 1.0, base: str = "edgepose") -> tuple[int, int]:
        """Return how many messages were published and how many lines skipped."""
        recording = Recording(path)
        published = replay(
            recording,
            self.publish,
            speed=speed,
            base=base,
            monotonic=self.monotonic,
            sleep=self.sleep,
        )
        return published, recording.skipped

    def times(self) -> list[float]:
        return [at for at, _, _ in self.sent]


def recording(path: Path, *lines: bytes, end: bytes = b"\n") -> Path:
    path.write_bytes(b"\n".join(lines) + end)
    return path


def test_replay_keeps_recorded_intervals(tmp_path: Path) -> None:
    path = recording(tmp_path / "r", *map(line_of, (10.0, 10.1, 10.25, 12.0)))
    publisher = Publisher()
    assert publisher.replay(path) == (4, 0)
    assert publisher.times() == [0.0, 0.1, 0.25, 2.0]


def test_replay_speed(tmp_path: Path) -> None:
    path = recording(tmp_path / "r", *map(line_of, (10.0, 11.0, 13.0)))
    publisher = Publisher()
    publisher.replay(path, speed=4)
    assert publisher.times() == [0.0, 0.25, 0.75]
    publisher = Publisher()
    publisher.replay(path, speed=0)
    assert publisher.times() == [0.0, 0.004, 0.008]


def test_replay_bytes_and_topics(tmp_path: Path) -> None:
    lines = (
        line_of(1.0, camera="door"),
        line_of(1.0, camera="main", node="hall"),
        b'{"extra": 1, ' + line_of(1.0)[1:],
    )
    publisher = Publisher()
    publisher.replay(recording(tmp_path / "r", *lines), base="a/b")
    assert [(topic, payload) for _, topic, payload in publisher.sent] == [
        ("a/b/gym/door/poses", lines[0]),
        ("a/b/hall/main/poses", lines[1]),
        ("a/b/gym/main/poses", lines[2]),
    ]


def test_replay_two_recordings_in_one_file(tmp_path: Path) -> None:
    """The second one follows at once."""
    path = recording(tmp_path / "r", *map(line_of, (100.0, 101.0, 5.0, 6.5)))
    publisher = Publisher()
    publisher.replay(path)
    assert publisher.times() == [0.0, 1.0, 1.004, 2.5]


def test_replay_interleaved_cameras(tmp_path: Path) -> None:
    """Messages of two cameras that are out of order do not wait."""
    path = recording(tmp_path / "r", *map(line_of, (10.0, 10.5, 10.45, 11.0)))
    publisher = Publisher()
    publisher.replay(path)
    assert publisher.times() == [0.0, 0.5, 0.504, 1.0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"invalid", "malformed"),
        (b'{"schema":1}', "missing required field"),
        (b"\xff\xfe", "malformed"),
        (line_of(1.0).replace(b'"node":"gym"', b'"node":"a/+"'), "the node id"),
        (line_of(1.0).replace(b"2026-01-31T", b"yesterday"), "isoformat"),
        (line_of(1.0).replace(b'"schema":1', b'"schema":2'), "schema 2"),
        (line_of(1.0).replace(b"[0.5,0.5,0.9]", b"[0.5,0.5,9]"), "<= 1.0"),
    ],
)
def test_replay_damaged_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: bytes, message: str
) -> None:
    path = recording(tmp_path / "r", line_of(1.0), bad, b"", line_of(2.0))
    publisher = Publisher()
    assert publisher.replay(path) == (2, 1)
    (record,) = caplog.records
    assert f"{path}, line 2: expected a pose message" in record.getMessage()
    assert message in record.getMessage()


def test_replay_truncated_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that a power cut ended is read up to the damage."""
    path = recording(tmp_path / "r", line_of(1.0), line_of(2.0)[:-30], end=b"")
    publisher = Publisher()
    assert publisher.replay(path) == (1, 1)
    assert "line 2" in caplog.text
    assert "power cut" in caplog.text


def test_replay_many_damaged_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = recording(tmp_path / "r", line_of(1.0), *[b"x"] * 100, line_of(2.0))
    publisher = Publisher()
    assert publisher.replay(path) == (2, 100)
    assert len(caplog.records) == 5


@pytest.mark.parametrize("content", [b"", b"\n\n", b"x\n", b"x\n" * 1000, b"\0" * 3_000_000])
def test_replay_file_without_messages(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r"
    path.write_bytes(content)
    publisher = Publisher()
    with pytest.raises(SourceError, match="no pose message"):
        publisher.replay(path)
    assert not publisher.sent
    assert len(content) < 4 * MAX_LINE_BYTES


def test_replay_errors(tmp_path: Path) -> None:
    publisher = Publisher()
    with pytest.raises(SourceNotFoundError, match="nowhere"):
        publisher.replay(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="directory"):
        publisher.replay(tmp_path)
    assert not publisher.sent


def test_replay_clock_set_forward(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The recording of a Pi without a clock, which begins in 1970, does not wait for 57 years."""
    before = [line_of(at).replace(b"2026-01-31T12", b"1970-01-01T00") for at in (12.0, 12.5)]
    path = recording(tmp_path / "r", *before, *map(line_of, (33.0, 33.5)))
    publisher = Publisher()
    assert publisher.replay(path) == (4, 0)
    assert publisher.times() == [0.0, 0.5, 30.5, 31.0]
    assert publisher.sent[0][2] == before[0]
    assert "jumps by 1769860820 s" in caplog.text


def test_replay_pauses_and_steps_back_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = recording(tmp_path / "r", *map(line_of, (0.0, 600.0, 0.0, 29.0, 900.0)))
    publisher = Publisher()
    publisher.replay(path)
    assert publisher.times() == [0.0, 30.0, 30.004, 59.0, 89.0]
    (record,) = caplog.records
    assert "jumps by 600 s at 2026-01-31T12:10:00.000000Z" in record.getMessage()


def test_replay_pause_is_cut_before_the_speed(tmp_path: Path) -> None:
    """In slow motion, a pause that was recorded in full is replayed in full."""
    path = recording(tmp_path / "r", *map(line_of, (0.0, 20.0, 100.0)))
    publisher = Publisher()
    publisher.replay(path, speed=0.1)
    assert publisher.times() == [0.0, 200.0, 500.0]


def test_replay_any_speed_sleeps_a_bounded_time(tmp_path: Path) -> None:
    path = recording(tmp_path / "r", line_of(1.0), line_of(2.0))
    publisher = Publisher()
    publisher.replay(path, speed=1e-300)
    assert publisher.times() == [0.0, 86_400.004]


@pytest.mark.parametrize("field", ["node", "camera"])
@pytest.mark.parametrize("name", ["x" * 70_000, "a/b", "+", "#", "a\0b", "a\nb", "ä", "", "$SYS"])
def test_replay_invalid_ids(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, field: str, name: str
) -> None:
    """A line whose topic a broker would not accept stops no other line."""
    bad = line_of(2.0, **{field: name})
    path = recording(tmp_path / "r", line_of(1.0), bad, line_of(3.0), line_of(4.0))
    publisher = Publisher()
    assert publisher.replay(path) == (3, 1)
    assert {topic for _, topic, _ in publisher.sent} == {"edgepose/gym/main/poses"}
    (record,) = caplog.records
    assert f"{path}, line 2: expected a pose message (the {field} id: " in record.getMessage()
    assert len(record.getMessage()) < 500


def test_replay_overlong_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is one line, also for the numbers of those after it."""
    path = recording(tmp_path / "r", line_of(1.0), b"x" * 2_500_000, line_of(2.0), b"y")
    publisher = Publisher()
    assert publisher.replay(path) == (2, 2)
    assert "line 2: expected a pose message (the line is longer than 1,000,000" in caplog.text
    assert "line 4" in caplog.text


def test_replay_pipe(tmp_path: Path) -> None:
    """A pipe is read once, from its first message to its end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    lines = [line_of(at) for at in (1.0, 1.5)]
    writer = threading.Thread(target=path.write_bytes, args=(b"\n".join(lines) + b"\n",))
    writer.start()
    publisher = Publisher()
    assert publisher.replay(path) == (2, 0)
    writer.join()
    assert [payload for _, _, payload in publisher.sent] == lines
