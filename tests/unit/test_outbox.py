"""What is sent on a connection, and what is kept without one."""

from collections import deque
from pathlib import Path
from threading import Thread
from typing import cast

from edgepose.mqtt.connection import MqttConnection, Outgoing
from edgepose.mqtt.event_store import EventStore
from edgepose.mqtt.outbox import Outbox
from tests.mosquitto import wait_for

TOPIC = "edgepose/gym/main/event"


class FakeConnection:
    """A broker that acknowledges all messages at `settle`, and a socket that may be full."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.waiting: deque[Outgoing] = deque()
        self.full = False
        self.idle = self.acknowledges = True

    def publish(self, message: Outgoing) -> None:
        (self.waiting if self.full and message.transient else self.sent).append(message)

    def settle(self, outbox: Outbox) -> None:
        with outbox.changed:
            for message in self.sent:
                if message.on_acknowledged is not None:
                    message.on_acknowledged()

    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.sent]


def make_outbox(store: EventStore | None = None, availability: str | None = None) -> Outbox:
    store = EventStore(None, max_events=5) if store is None else store
    return Outbox(store, availability)


def attached(outbox: Outbox) -> FakeConnection:
    connection = FakeConnection()
    outbox.attach(cast("MqttConnection", connection))
    return connection


def test_outbox_sends_only_the_newest_state() -> None:
    outbox = make_outbox()
    for payload in (b"1", b"2", b"2"):
        outbox.set_state("a", payload, 1)
    outbox.set_state("b", b"x", 0)
    connection = attached(outbox)
    outbox.set_state("a", b"2", 1)
    assert [message[:4] for message in connection.sent] == [
        ("a", b"2", 1, True),
        ("b", b"x", 0, True),
    ]


def test_outbox_sends_states_then_online_then_events() -> None:
    """Live messages do not wait until every event of an outage is acknowledged."""
    outbox = make_outbox(availability="a/availability")
    outbox.add_event(TOPIC, b"1")
    outbox.set_state("a", b"state", 1)
    connection = attached(outbox)
    outbox.add_event(TOPIC, b"2")
    assert connection.payloads() == [b"state", b"online"]
    assert not outbox.add_transient("p", b"0")
    connection.settle(outbox)
    assert outbox.online
    assert outbox.add_transient("p", b"pose")
    outbox.add_event(TOPIC, b"3")
    assert connection.payloads() == [b"state", b"online", b"1", b"2", b"pose", b"3"]


def test_outbox_keeps_events_until_acknowledged() -> None:
    outbox = make_outbox()
    outbox.add_event(TOPIC, b"0")
    connection = attached(outbox)
    connection.settle(outbox)
    outbox.add_event(TOPIC, b"1")
    assert outbox.counters()["waiting_events"] == 1
    outbox.detach("lost")
    again = attached(outbox)
    assert [message[:4] for message in again.sent] == [(TOPIC, b"1", 1, False)]


def test_outbox_full_drops_the_oldest_transient_messages() -> None:
    outbox = make_outbox()
    connection = attached(outbox)
    connection.full = True
    assert all(outbox.add_transient("p", b"%d" % number) for number in range(34))
    assert not outbox.add_transient("p", b"34", wait_s=0)
    assert [message.payload for message in connection.waiting] == [b"%d" % n for n in range(2, 34)]
    assert outbox.dropped_transient == 3
    connection.waiting.popleft()
    assert outbox.add_transient("p", b"35", wait_s=0)


def test_outbox_lost_connection_drops_transient_messages_at_once() -> None:
    """They would arrive too late; from then on none is accepted and the reason is known."""
    outbox = make_outbox()
    connection = attached(outbox)
    connection.full = True
    outbox.add_transient("p", b"0")
    outbox.detach("the reason")
    assert (outbox.online, outbox.failure, outbox.dropped_transient) == (False, "the reason", 1)
    assert not outbox.add_transient("p", b"1")
    assert outbox.dropped_transient == 2
    assert connection.payloads() == []


def test_outbox_closed_accepts_no_transient_messages() -> None:
    outbox = make_outbox()
    outbox.close()
    attached(outbox)
    assert not outbox.add_transient("p", b"0", wait_s=10)


def test_outbox_saves_events_while_offline_and_on_the_loss(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"

    def saved() -> list[bytes]:
        return [event.payload for event in EventStore(path, max_events=10)]

    outbox = make_outbox(EventStore(path, max_events=10))
    outbox.add_event(TOPIC, b"0")
    wait_for(lambda: saved() == [b"0"], "the event without a connection")
    attached(outbox)
    outbox.add_event(TOPIC, b"1")
    outbox.detach(None)
    wait_for(lambda: saved() == [b"0", b"1"], "the unacknowledged event")
    outbox.close_store()


def test_outbox_saves_overdue_events(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    outbox = make_outbox(EventStore(path, max_events=10))
    attached(outbox)
    outbox.add_event(TOPIC, b"0")
    outbox.save_overdue_events()
    assert not path.exists()
    outbox.save_overdue_events()
    wait_for(path.exists, "the event")
    outbox.close_store()


def refuse(outbox: Outbox, topic: str, connection: FakeConnection) -> str | None:
    """End a connection at a message on a topic; return what is put aside."""
    connection.settle(outbox)
    put_aside = outbox.suspect([topic])
    outbox.detach("lost")
    return put_aside


def end_twice(outbox: Outbox, *suspects: str) -> None:
    """End two connections, each right after messages on these topics."""
    for _ in range(2):
        attached(outbox)
        outbox.suspect(suspects)
        outbox.detach("lost")


def tick(outbox: Outbox, *, again: bool = False) -> None:
    outbox.try_suspects(again=again)


def test_outbox_suspect_is_sent_after_everything_else() -> None:
    outbox = make_outbox(availability="a/availability")
    outbox.set_state("a", b"suspect", 1)
    outbox.set_state("b", b"other", 1)
    for _ in range(2):
        connection = attached(outbox)
        assert connection.payloads() == [b"suspect", b"other", b"online"]
        assert refuse(outbox, "a", connection) is None
    connection = attached(outbox)
    assert connection.payloads() == [b"other", b"online"]
    connection.settle(outbox)
    tick(outbox)
    assert connection.payloads() == [b"other", b"online", b"suspect"]
    outbox.set_state("a", b"on trial", 1)
    assert connection.payloads()[-1] == b"on trial"


def test_outbox_suspects_are_tried_one_after_the_other() -> None:
    """So that it is known at which of them the connection ends."""
    outbox = make_outbox()
    outbox.set_state("a", b"state", 1)
    outbox.add_event(TOPIC, b"event")
    end_twice(outbox, "a", TOPIC)
    connection = attached(outbox)
    tick(outbox)
    assert connection.payloads() == [b"state"]
    outbox.add_event(TOPIC, b"later")
    connection.idle = False
    for _ in range(3):
        tick(outbox)
    assert connection.payloads() == [b"state"], "it is not acknowledged"
    connection.idle = True
    tick(outbox)
    assert connection.payloads() == [b"state", b"event", b"later"]
    outbox.add_event(TOPIC, b"on trial")
    assert connection.payloads()[-1] == b"on trial"


def test_outbox_third_suspicion_puts_a_topic_aside() -> None:
    """Its newest state and its events are kept, and tried again when that is due."""
    outbox = make_outbox()
    outbox.set_state("a", b"1", 1)
    for put_aside in (None, None, "a"):
        connection = attached(outbox)
        tick(outbox)
        assert connection.payloads() == [b"1"]
        assert refuse(outbox, "a", connection) == put_aside
    connection = attached(outbox)
    for _ in range(3):
        tick(outbox)
    outbox.set_state("a", b"2", 1)
    assert connection.payloads() == []
    tick(outbox, again=True)
    assert connection.payloads() == [b"2"]
    assert refuse(outbox, "a", connection) == "a"


def test_outbox_survived_suspect_is_none() -> None:
    outbox = make_outbox()
    outbox.set_state("a", b"1", 1)
    for _ in range(4):
        connection = attached(outbox)
        for _ in range(3):
            tick(outbox)
        assert connection.payloads() == [b"1"]
        assert refuse(outbox, "a", connection) is None


def test_outbox_broker_that_restarts_gets_everything_at_once() -> None:
    """A connection ends while messages are on their way, which once is no suspicion."""
    outbox = make_outbox(availability="a/availability")
    outbox.set_state("a", b"state", 1)
    for _ in range(4):
        outbox.add_event(TOPIC, b"event")
        connection = attached(outbox)
        connection.settle(outbox)
        assert outbox.add_transient("p", b"pose")
        assert connection.payloads()[:3] == [b"state", b"online", b"event"]
        for _ in range(2):
            tick(outbox)
        outbox.suspect(["a", "a/availability", TOPIC, "p"])
        outbox.detach("lost")


def test_outbox_unacknowledged_message_is_suspect_at_once() -> None:
    """Another deadline would keep everything else back as long."""
    outbox = make_outbox(availability="a/availability")
    outbox.set_state("a", b"state", 1)
    connection = attached(outbox)
    connection.acknowledges = False
    outbox.suspect(["a"], unacknowledged=True)
    outbox.detach("unacknowledged")
    assert attached(outbox).payloads() == [b"online"]


def test_outbox_sends_the_states_of_suspects_before_offline() -> None:
    """There is no time for a trial, and the state of a camera must not stay online."""
    outbox = make_outbox(availability="a/availability")
    outbox.set_state("a/status", b"online", 1)
    end_twice(outbox, "a/status")
    connection = attached(outbox)
    outbox.set_state("a/status", b"offline", 1)
    outbox.close()
    assert connection.payloads() == [b"online"]
    outbox.send_offline()
    assert connection.payloads() == [b"online", b"offline", b"offline"]


def test_outbox_suspected_availability_does_not_keep_it_offline() -> None:
    outbox = make_outbox(availability="a/availability")
    end_twice(outbox, "a/availability")
    connection = attached(outbox)
    assert outbox.add_transient("p", b"pose")
    tick(outbox)
    assert connection.payloads() == [b"pose", b"online"]


def test_outbox_transient_messages_put_aside_are_dropped() -> None:
    outbox = make_outbox()
    for _ in range(3):
        connection = attached(outbox)
        assert outbox.add_transient("p", b"pose")
        refuse(outbox, "p", connection)
    attached(outbox)
    assert not outbox.add_transient("p", b"pose")
    assert outbox.add_transient("other", b"pose")
    assert outbox.dropped_transient == 1


def test_outbox_patient_transient_message_waits_for_its_trial() -> None:
    outbox = make_outbox()
    end_twice(outbox, "a", "b")
    connection = attached(outbox)
    assert outbox.add_transient("a", b"1")
    assert not outbox.add_transient("b", b"2")
    sent: list[bool] = []
    thread = Thread(target=lambda: sent.append(outbox.add_transient("b", b"3", wait_s=20.0)))
    thread.start()
    while thread.is_alive():
        tick(outbox)
        with outbox.changed:
            outbox.changed.notify_all()
    assert sent == [True]
    assert connection.payloads() == [b"1", b"3"]


def test_outbox_broker_that_acknowledges_nothing_puts_nothing_aside() -> None:
    """When it works again, everything is sent within seconds."""
    outbox = make_outbox()
    outbox.set_state("a", b"1", 1)
    for _ in range(5):
        connection = attached(outbox)
        connection.acknowledges = False
        tick(outbox)
        assert refuse(outbox, "a", connection) is None
    connection = attached(outbox)
    tick(outbox)
    assert connection.payloads() == [b"1"]
