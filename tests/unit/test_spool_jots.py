"""Events on disk while the broker is away: there for whoever comes after a killed process."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.mqtt.event_store import EventStore, StoredEvent
from edgepose.mqtt.outbox import Outbox

TOPIC = "edgepose/gym/main/event"


def message(number: int) -> StoredEvent:
    return StoredEvent(TOPIC, b"%d" % number)


def after_a_kill(path: Path) -> list[int]:
    """Return what the next process finds."""
    return [int(waiting.payload) for waiting in EventStore(path, max_messages=1000)]


def outbox_at(path: Path) -> Outbox:
    return Outbox(EventStore(path, max_messages=10), max_live=1, wake=lambda: None)


def test_while_the_broker_is_away_an_event_is_in_the_file_at_once(tmp_path: Path) -> None:
    """A daemon killed between two saves lost what had happened since the first."""
    path = tmp_path / "state" / "spool"
    outbox = outbox_at(path)
    for number in range(3):
        outbox.add_event(TOPIC, b"%d" % number)
        assert after_a_kill(path) == list(range(number + 1))


def test_while_the_broker_is_there_nothing_touches_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "state" / "spool"
    outbox = outbox_at(path)
    outbox.open_live()
    outbox.add_event(TOPIC, b"0")
    sent = outbox.take_lasting()
    assert sent is not None
    assert sent.event is not None
    outbox.settle(sent.event)
    outbox.save()
    assert not path.parent.exists()


def test_what_was_sent_and_not_acknowledged_is_saved_as_the_broker_goes(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    outbox = outbox_at(path)
    outbox.open_live()
    outbox.add_event(TOPIC, b"0")
    outbox.drop_live()
    outbox.add_event(TOPIC, b"1")
    outbox.save()
    assert after_a_kill(path) == [0, 1]


def test_what_is_only_jotted_is_brought_to_the_disk_and_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new file for every event would wear the card; a power cut must not take them either."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    path = tmp_path / "spool"
    spool = EventStore(path, max_messages=10)
    spool.append(message(0), jot=True)
    inode = path.stat().st_ino
    spool.save()
    assert (len(synced), path.stat().st_ino) == (1, inode)
    spool.save()
    assert len(synced) == 1


def test_half_a_line_of_a_killed_process_harms_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    first = EventStore(path, max_messages=10)
    first.append(message(0), jot=True)
    with path.open("ab") as file:
        file.write(b'{"topic":"a","payl')
    again = EventStore(path, max_messages=10)
    again.append(message(1), jot=True)
    assert after_a_kill(path) == [0, 1]


def test_a_full_disk_is_said_once_and_made_up_for_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "spool"
    spool = EventStore(path, max_messages=10)
    with monkeypatch.context() as full:
        full.setattr(Path, "open", _full)
        for number in range(3):
            spool.append(message(number), jot=True)
            spool.save()
    assert not path.exists()
    (record,) = caplog.records
    assert "cannot be saved (No space left on device)" in record.getMessage()
    spool.append(message(3), jot=True)
    spool.save()
    assert after_a_kill(path) == [0, 1, 2, 3]


def test_an_event_during_a_save_is_in_the_file_after_it(tmp_path: Path) -> None:
    """It was jotted into the file that the save then replaced."""
    path = tmp_path / "spool"
    spool = EventStore(path, max_messages=10)
    spool.append(message(0))
    save = spool.begin_save()
    assert save is not None
    spool.append(message(1), jot=True)
    spool.write(save)
    spool.end_save()
    assert after_a_kill(path) == [0, 1]


def test_lines_of_dropped_events_do_not_pile_up(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool = EventStore(path, max_messages=10)
    for number in range(200):
        spool.append(message(number), jot=True)
        spool.save()
        assert len(path.read_bytes().splitlines()) <= 20
    again = EventStore(path, max_messages=10)
    assert [int(waiting.payload) for waiting in again] == list(range(190, 200))
    assert (spool.dropped, again.dropped) == (190, 0)


STEPS = st.lists(st.sampled_from(["event", "settle", "save", "away", "back"]), max_size=40)


@given(steps=STEPS)
def test_whatever_happens_no_waiting_event_is_missing_after_a_kill(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """And they are in order; one that had arrived may be there again."""
    path = tmp_path_factory.mktemp("spool") / "spool"
    outbox = outbox_at(path)
    waiting: list[int] = []
    number, away = 0, True
    do: dict[str, Callable[[], None]] = {"save": outbox.save, "back": outbox.open_live}
    for step in steps:
        if step == "event" and len(waiting) < 10:
            outbox.add_event(TOPIC, b"%d" % number)
            waiting.append(number)
            number += 1
        elif step == "settle" and not away and (sent := outbox.take_lasting()) is not None:
            assert sent.event is not None
            outbox.settle(sent.event)
            waiting.remove(int(sent.payload))
        elif step == "away":
            outbox.drop_live()
            outbox.save()
            outbox.renew()
            away = True
        elif step in do:
            do[step]()
            away = away and step != "back"
        if away:
            found = after_a_kill(path)
            assert found == sorted(set(found))
            assert set(waiting) <= set(found)


def test_events_of_one_thread_survive_the_saves_of_another(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    outbox = Outbox(EventStore(path, max_messages=1000), max_live=1, wake=lambda: None)
    done = threading.Event()

    def save() -> None:
        while not done.is_set():
            outbox.save()

    saver = threading.Thread(target=save)
    saver.start()
    for number in range(300):
        outbox.add_event(TOPIC, b"%d" % number)
    done.set()
    saver.join()
    assert after_a_kill(path) == list(range(300))


def _full(*_: object, **__: object) -> None:
    raise OSError(28, os.strerror(28))
