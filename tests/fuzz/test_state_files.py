"""Files damaged by a power cut, a full disk or by hand: their valid parts are used."""

import json
import logging
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgepose import messages
from edgepose.daemon.switches import Switches
from edgepose.errors import EdgeposeError, ModelFileError, SourceError
from edgepose.inference.thread_cache import FILE as THREADS_FILE
from edgepose.inference.thread_cache import ThreadCache, ThreadKey
from edgepose.mqtt.event_store import EventStore
from edgepose.mqtt.replay import Recording, replay
from edgepose.registry.registry import (
    Manifest,
    ModelEntry,
    Registry,
    add_to_manifest,
    read_manifest,
)
from tests.fuzz.effort import examples

DEEP = b"[" * 5000
CAMERAS = frozenset({"main", "door"})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
JSON_LINES = JSON.map(lambda value: json.dumps(value).encode())
BAD_LINES = (
    st.binary(max_size=60).map(lambda line: line.replace(b"\n", b""))
    | JSON_LINES
    | st.sampled_from(
        [DEEP, b'{"x":' + DEEP, b"\xef\xbb\xbf{}", b"1" * 5000, b"\x00" * 4096, b'{"topic":NaN}']
    )
)


def mixed(good: list[bytes], bad: list[bytes], order: list[int]) -> bytes:
    """Return a file with the good lines in order and the bad ones inserted at `order`."""
    lines = list(good)
    for place, line in zip(order, bad, strict=False):
        lines.insert(place % (len(lines) + 1), line)
    return b"\n".join(lines) + b"\n"


# -- the event store


@examples(150)
@given(content=st.binary(max_size=500) | BAD_LINES)
def test_event_store_any_bytes_as_its_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "events.sqlite"
    for file in tmp_path.iterdir():
        file.unlink()
    path.write_bytes(content)
    assert list(EventStore(path, max_events=10)) == []


@examples(60)
@given(place=st.integers(0, 8191), damage=st.binary(min_size=1, max_size=200))
@example(place=4010, damage=b"\x80")  # sqlite3 cannot decode the text of its own error
def test_event_store_damaged_database(tmp_path: Path, place: int, damage: bytes) -> None:
    """Events read from a damaged file can be sent, and new events are stored."""
    path = tmp_path / "events.sqlite"
    for file in tmp_path.iterdir():
        file.unlink()
    store = EventStore(path, max_events=10)
    for number in range(5):
        store.append("edgepose/gym/main/event", b"%d" % number)
    store.close()
    content = bytearray(path.read_bytes())
    content[place : place + len(damage)] = damage
    path.write_bytes(content)
    damaged = EventStore(path, max_events=10)
    for event in damaged:
        assert event.topic.isprintable()
        assert not set(event.topic) & set("+#")
    damaged.append("edgepose/gym/main/event", b"new")
    assert [event.payload for event in damaged][-1] == b"new"
    damaged.close()


# -- the privacy switch


@examples(200)
@given(
    content=st.binary(max_size=200)
    | BAD_LINES
    | JSON.map(lambda v: json.dumps({"off": v}).encode())
)
def test_switches_any_bytes_leave_cameras_off(tmp_path: Path, content: bytes) -> None:
    """With anything but a list of names all cameras stay off."""
    path = tmp_path / "switches.json"
    path.write_bytes(content)
    with closing(Switches(path, CAMERAS)) as switches:
        off = switches.off & CAMERAS
    try:
        names = json.loads(content)["off"]
    except (ValueError, TypeError, KeyError, RecursionError):
        assert off == CAMERAS
    else:
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            assert off == CAMERAS & set(names)
        else:
            assert off == CAMERAS


@pytest.mark.parametrize(
    "content", [DEEP, b'{"off":"main"}', b'{"off":{}}', b'{"off":[1]}', b"null"]
)
def test_switches_invalid_content(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "switches.json"
    path.write_bytes(content)
    assert Switches(path, CAMERAS).off == CAMERAS
    (record,) = caplog.records
    assert record.getMessage().isprintable()


# -- the measured numbers of threads


@examples(150)
@given(content=st.binary(max_size=200) | BAD_LINES | JSON.map(lambda v: json.dumps([v]).encode()))
def test_thread_cache_any_bytes_as_its_file(tmp_path: Path, content: bytes) -> None:
    """They are measured again."""
    (tmp_path / THREADS_FILE).write_bytes(content)
    assert ThreadCache(tmp_path).find(ThreadKey("model", "runtime", "machine")) is None


# -- recordings


def message(second: int = 0) -> bytes:
    at = f"2026-01-31T12:00:{second:02d}Z"
    return messages.encode(
        messages.PoseMessage(
            node="gym",
            camera="main",
            sequence=second,
            captured_at=at,
            published_at=at,
            frame=messages.FrameSize(640, 480),
            model="m",
            accelerator="cpu",
            degraded=False,
            timings_ms=messages.Timings(1, 2, 3, 4, 5, 15),
            poses=[],
        )
    )


def _published(path: Path) -> tuple[list[bytes], list[float]]:
    sent: list[bytes] = []
    sleeps: list[float] = []
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        # A value that time.sleep accepts.
        assert 0 < seconds < 1e6
        now += seconds
        sleeps.append(seconds)
        assert len(sleeps) < 20_000_000

    replay(
        Recording(path),
        lambda _topic, payload: sent.append(payload),
        monotonic=lambda: now,
        sleep=sleep,
    )
    return sent, sleeps


@examples(200)
@given(content=st.binary(max_size=400) | BAD_LINES)
def test_replay_any_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recording.ndjson"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="no pose message"):
        Recording(path)


@examples(100)
@given(
    count=st.integers(1, 8),
    bad=st.lists(BAD_LINES, max_size=4),
    order=st.lists(st.integers(0, 20), min_size=4, max_size=4),
)
def test_replay_valid_messages_among_invalid_lines(
    tmp_path: Path, count: int, bad: list[bytes], order: list[int]
) -> None:
    path = tmp_path / "recording.ndjson"
    good = [message(second) for second in range(count)]
    path.write_bytes(mixed(good, bad, order))
    assert _published(path)[0] == good


@examples(150)
@given(
    field=st.sampled_from(sorted(json.loads(message()))),
    value=JSON | st.sampled_from(["9999-12-31T23:59:59Z", "0001-01-01T00:00:00", "a/b", "+", "\n"]),
)
def test_replay_message_with_any_field_value(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "recording.ndjson"
    odd = json.dumps(json.loads(message(1)) | {field: value}).encode()
    path.write_bytes(b"\n".join([message(0), odd, message(2)]) + b"\n")
    sent, _ = _published(path)
    assert [payload for payload in sent if payload != odd] == [message(0), message(2)]


def test_replay_timestamp_centuries_ahead(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A pause is 30 s at most; `time.sleep` raises OverflowError for the years until 9999."""
    path = tmp_path / "recording.ndjson"
    late = json.dumps(json.loads(message(1)) | {"captured_at": "9999-12-31T00:00:00Z"}).encode()
    path.write_bytes(message(0) + b"\n" + late + b"\n")
    sent, sleeps = _published(path)
    assert len(sent) == 2
    assert sleeps == [30.0]
    assert "the recorded time jumps" in caplog.text


# -- manifests of models


ENTRY = {
    "name": "x", "kind": "posenet", "file": "x.tflite", "input_size_wh": [1, 1],
    "input_dtype": "uint8", "precision": "int8", "source": "s", "licence": "l", "made_by": "m",
    "sha256": "0" * 64,
}  # fmt: skip


def listed(**changes: object) -> bytes:
    return json.dumps({"schema": 1, "models": [ENTRY | changes]}).encode()


@examples(200)
@given(
    content=st.binary(max_size=200)
    | BAD_LINES
    | st.builds(
        lambda key, value: listed(**{key: value}),
        st.sampled_from([*ENTRY, "bytes", "git_blob_sha1", "accelerator", "urls", "note"]),
        JSON,
    )
)
def test_registry_any_bytes_as_manifest(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    try:
        registry = Registry.from_folders(tmp_path)
    except ModelFileError:
        return
    for entry in registry.entries.values():
        assert (tmp_path / entry.file).parent == tmp_path
        assert (entry.name + entry.file).isprintable()
        with pytest.raises(EdgeposeError):
            registry.resolve(entry.name)


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "../x.tflite"},
        {"file": "/etc/x.tflite"},
        {"file": "a/x.tflite"},
        {"file": "x\x00.tflite"},
        {"name": "\x1b[2J"},
        {"urls": ["file:///etc/shadow"]},
        {"urls": ["ftp://host/x.tflite"]},
        {"urls": ["https://host/\r\nHost: other"]},
        {"bytes": 0},
        {"sha256": "0" * 63},
    ],
)
def test_registry_entry_outside_folder(tmp_path: Path, changes: dict[str, object]) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(listed(**changes))
    with pytest.raises(ModelFileError, match="not a manifest of models") as caught:
        read_manifest(tmp_path)
    assert str(caught.value).isprintable()
    path.write_bytes(listed())
    assert len(read_manifest(tmp_path)) == 1


def test_registry_manifest_too_large(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(listed(note="x" * (2 << 20)))
    with pytest.raises(ModelFileError, match="at most 1024 KiB"):
        read_manifest(tmp_path)


@examples(60)
@given(content=st.binary(max_size=60) | BAD_LINES)
def test_registry_unreadable_manifest_is_not_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    (entry,) = _decoded(listed())
    with pytest.raises(ModelFileError):
        add_to_manifest(tmp_path, entry)
    assert path.read_bytes() == content


def _decoded(content: bytes) -> tuple[ModelEntry, ...]:
    return msgspec.json.decode(content, type=Manifest).models


def test_state_files_damaged_lines_are_logged_in_few_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand bad lines are one warning, or the first five of them, not a thousand."""
    caplog.set_level(logging.INFO)
    path = tmp_path / "events"
    path.write_bytes(b"invalid\n" * 1000)
    EventStore(path, max_events=10)
    assert len(caplog.records) == 1
    caplog.clear()
    path.write_bytes(message() + b"\n" + b"invalid\n" * 1000)
    _published(path)
    assert len(caplog.records) == 5
