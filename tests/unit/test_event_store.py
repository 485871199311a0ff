"""Events that wait for the broker, in memory and in their SQLite file."""

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepose.mqtt.event_store import EventStore
from tests.mosquitto import wait_for

TOPIC = "edgepose/gym/main/event"


def numbers(store: EventStore) -> list[int]:
    return [int(event.payload) for event in store]


def on_disk(path: Path) -> list[int]:
    """Return the events that the next process loads after this one was killed."""
    return numbers(EventStore(path, max_events=1000))


def fill(store: EventStore, count: int) -> None:
    for number in range(count):
        store.append(TOPIC, b"%d" % number)


def test_event_store_survives_a_restart_in_order(tmp_path: Path) -> None:
    path = tmp_path / "state" / "events.sqlite"
    store = EventStore(path, max_events=10)
    payloads = [f'{{"n": {number}, "ä": "\\n"}}'.encode() for number in range(5)]
    events = [store.append(TOPIC, payload) for payload in payloads]
    store.remove(events[1])
    store.close()
    again = EventStore(path, max_events=10)
    assert [event.payload for event in again] == [payloads[n] for n in (0, 2, 3, 4)]
    assert {event.topic for event in again} == {TOPIC}
    added = again.append(TOPIC, b"9")
    assert added.id > max(event.id for event in events)
    for event in list(again):
        again.remove(event)
    again.close()
    assert on_disk(path) == []


def test_event_store_saves_in_the_background(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    store = EventStore(path, max_events=10)
    for number in range(3):
        store.append(TOPIC, b"%d" % number)
        store.request_save()
        wait_for(lambda: on_disk(path) == list(range(number + 1)), "the event")  # noqa: B023
    store.remove(next(iter(store)))
    wait_for(lambda: on_disk(path) == [1, 2], "the removal")
    store.close()


def test_event_store_never_touches_the_disk_for_events_that_arrive_at_once(
    tmp_path: Path,
) -> None:
    store = EventStore(tmp_path / "state" / "events.sqlite", max_events=10)
    event = store.append(TOPIC, b"0")
    store.remove(event)
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_event_store_full_drops_the_oldest_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    store = EventStore(path, max_events=3)
    events = [store.append(TOPIC, b"%d" % number) for number in range(5)]
    assert numbers(store) == [2, 3, 4]
    assert store.dropped == 2
    store.remove(events[0])
    assert len(store) == 3
    store.close()
    assert on_disk(path) == [2, 3, 4]
    assert numbers(EventStore(path, max_events=2)) == [3, 4]


def test_event_store_bounds_its_file(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    store = EventStore(path, max_events=10)
    for number in range(2000):
        store.append(TOPIC, b"%d" % number)
        store.request_save()
    store.close()
    assert on_disk(path) == list(range(1990, 2000))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 100_000


@pytest.mark.parametrize("content", [b"rubbish\n" * 100, b"\xff\xfe\x00", b"SQLite format 3\0" * 9])
def test_event_store_puts_a_damaged_file_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "events.sqlite"
    path.write_bytes(content)
    store = EventStore(path, max_events=10)
    assert numbers(store) == []
    (record,) = caplog.records
    assert "events.sqlite.damaged" in record.getMessage()
    assert (tmp_path / "events.sqlite.damaged").read_bytes() == content
    fill(store, 2)
    store.close()
    assert on_disk(path) == [0, 1]


def test_event_store_of_a_process_killed_early_is_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    assert path.stat().st_size > 0
    store = EventStore(path, max_events=10)
    fill(store, 1)
    store.close()
    assert on_disk(path) == [0]
    assert not caplog.records


@pytest.mark.parametrize("topic", ["a\x01b", "a\x7f", "a\ufdd0", "\x1b[31m", "", "a/#", "+"])
def test_event_store_leaves_out_invalid_topics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, topic: str
) -> None:
    """mosquitto closes the connection for such an event, at every attempt."""
    path = tmp_path / "events.sqlite"
    store = EventStore(path, max_events=10)
    fill(store, 1)
    store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO events VALUES (7, ?, ?)", (topic, b"7"))
        connection.execute("INSERT INTO events VALUES (8, ?, ?)", (TOPIC, "a text"))
    assert on_disk(path) == [0]
    (record,) = caplog.records
    assert "2 of 3" in record.getMessage()


def test_event_store_without_a_disk_logs_once_and_saves_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    path = folder / "events.sqlite"
    store = EventStore(path, max_events=10)
    folder.write_text("a file where the folder should be")
    fill(store, 3)
    store.request_save()
    wait_for(lambda: "cannot be saved" in caplog.text, "the warning")
    store.request_save()
    assert numbers(store) == [0, 1, 2]
    folder.unlink()
    wait_for(lambda: path.exists() and on_disk(path) == [0, 1, 2], "the events")
    assert caplog.text.count("cannot be saved") == 1
    store.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_event_store_unreadable_file_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.sqlite"
    store = EventStore(path, max_events=10)
    fill(store, 1)
    store.close()
    path.chmod(0)
    assert numbers(EventStore(path, max_events=10)) == []
    assert "cannot be read" in caplog.text
    path.chmod(0o600)
    assert on_disk(path) == [0]


def test_event_store_in_memory_only() -> None:
    store = EventStore(None, max_events=2)
    fill(store, 3)
    store.request_save()
    assert numbers(store) == [1, 2]
    store.close()


STEPS = st.lists(st.sampled_from(["event", "acknowledge", "save", "restart"]), max_size=25)


@settings(deadline=None, max_examples=40)
@given(STEPS)
def test_event_store_keeps_every_unacknowledged_event(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    path = tmp_path_factory.mktemp("store") / "events.sqlite"
    store = EventStore(path, max_events=10)
    expected: list[int] = []
    for number, step in enumerate(steps):
        if step == "event" and len(expected) < 10:
            store.append(TOPIC, b"%d" % number)
            expected.append(number)
        elif step == "acknowledge" and expected:
            expected.pop(0)
            store.remove(next(iter(store)))
        elif step == "save":
            store.request_save()
        elif step == "restart":
            store.close()
            store = EventStore(path, max_events=10)
        assert numbers(store) == expected
    store.close()


def test_event_store_overflow_is_logged_once_a_series(caplog: pytest.LogCaptureFixture) -> None:
    store = EventStore(None, max_events=4)
    fill(store, 4)
    assert not caplog.records
    fill(store, 3)
    assert [record.getMessage() for record in caplog.records] == [
        "4 events wait for the broker; the oldest are dropped from now on"
    ]
    store.remove(next(iter(store)))
    fill(store, 2)
    assert len(caplog.records) == 1, "the broker accepts one now and then"
    for event in list(store)[:2]:
        store.remove(event)
    fill(store, 3)
    assert len(caplog.records) == 2
    assert store.dropped == 5


def test_event_store_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """Also while it is open, when SQLite has two more files beside it."""
    path = tmp_path / "state" / "events.sqlite"
    store = EventStore(path, max_events=10)
    fill(store, 1)
    store.request_save()
    wait_for(lambda: path.exists() and on_disk(path) == [0], "the event")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    store.close()
    assert set(modes.values()) == {0o600}
    assert "events.sqlite" in modes
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_event_store_follows_no_link_that_was_planted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    victim = tmp_path / "victim"
    path = tmp_path / "events.sqlite"
    path.symlink_to(victim)
    store = EventStore(path, max_events=10)
    fill(store, 1)
    store.close()
    assert "got a symbolic link" in caplog.text
    assert not victim.exists()
    assert numbers(store) == [0]


def test_event_store_file_that_another_program_locks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the events in it nor those made meanwhile are lost."""
    path = tmp_path / "events.sqlite"
    before = EventStore(path, max_events=10)
    fill(before, 2)
    before.close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        store = EventStore(path, max_events=10)
        assert "cannot be read" in caplog.text
        store.append(TOPIC, b"2")
        store.request_save()
        assert numbers(store) == [2]
    store.close()
    assert on_disk(path) == [0, 1, 2]
